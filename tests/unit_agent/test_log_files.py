"""Logs in a folder: never larger than they may be, errors apart, and a full disk is no reason to stop."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest
import structlog

from infra.telemetry import logs
from unit_agent.log_files import LogFolder


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_errors_are_in_a_file_of_their_own_too(tmp_path: Path) -> None:
    logs.configure(
        level="info", process="unit_agent", instance="north", to=LogFolder(tmp_path, largest_bytes=10_000, keep=2)
    )
    try:
        log = structlog.get_logger()
        log.info("link_up", unit_id="north")
        log.error("store_unusable", unit_id="north", first_name="Ottoline")
        log.debug("not_asked_for")
    finally:
        structlog.reset_defaults()
    assert [line["event"] for line in lines(tmp_path / "agent.log")] == ["link_up", "store_unusable"]
    [error] = lines(tmp_path / "errors.log")
    assert (error["event"], error["dropped"]) == ("store_unusable", 1)


def test_a_file_is_put_aside_before_it_grows_too_large_and_only_so_many_are_kept(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path, largest_bytes=1000, keep=3)
    for number in range(200):
        folder.info(json.dumps({"number": number, "text": "x" * 40}).encode())
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["agent.log", "agent.log.1", "agent.log.2", "agent.log.3"]
    assert all(file.stat().st_size <= 1000 for file in files)
    in_order = [line["number"] for file in reversed(files) for line in lines(file)]
    assert in_order == list(range(200 - len(in_order), 200))


def test_a_line_larger_than_a_file_may_be_is_written_all_the_same(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path, largest_bytes=100, keep=1)
    folder.info(b"x" * 500)
    folder.info(b"y")
    assert (tmp_path / "agent.log").read_bytes() == b"y\n"


def test_lines_that_a_full_disk_does_not_take_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = LogFolder(tmp_path, largest_bytes=10_000, keep=1)
    open_as_ever = Path.open

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    folder.error(b'{"event":"lost"}')
    folder.info(b'{"event":"lost"}')
    monkeypatch.setattr(Path, "open", open_as_ever)
    folder.info(b'{"event":"back"}')
    first, second = lines(tmp_path / "agent.log")
    assert (first["event"], first["count"], second["event"]) == ("log_lines_lost", 2, "back")


def test_lines_of_several_threads_stay_whole(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path, largest_bytes=1_000_000, keep=1)

    def write() -> None:
        for _ in range(200):
            folder.info(b'{"event":"' + b"x" * 200 + b'"}')

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path / "agent.log")) == 800
