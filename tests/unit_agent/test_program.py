"""Programs of the site: what their exit codes mean, and that none outlives its time."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from contracts.unit_command import OnReconnect
from tests.kit.commands import new_id
from tests.kit.waiting import eventually
from unit_agent.connectors import Declined, Done, NotDone, Unsure
from unit_agent.mailbox import Order
from unit_agent.program import Commands, Program

ORDER = Order(
    id=new_id(), unit_id="north", type="orders.place", payload={"item": "blood count"}, patient_id=None,
    deadline=datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(hours=1), on_reconnect=OnReconnect.RUN, late=False,
    attempts=1, attempt=1, in_doubt=False, erased=False,
)  # fmt: skip


def program(
    run: str = "exit 0", ask: str | None = None, still_wanted: str | None = None, timeout: float = 10
) -> Program:
    """A program of shell lines."""
    one, two, three = (None if line is None else ["/bin/sh", "-c", line] for line in (run, ask, still_wanted))
    assert one is not None
    return Program(Commands(run=one, ask=two, still_wanted=three, timeout=timeout))


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        ("exit 0", Done()),
        ('echo \'{"room": "4"}\'', Done({"room": "4"})),
        ("echo no json", Done()),
        ("exit 10", Declined("declined")),
        ('echo \'{"code": "out_of_stock"}\'; exit 10', Declined("out_of_stock", {"code": "out_of_stock"})),
        ('echo \'{"code": "Ann, 4 Mill Lane"}\'; exit 10', Declined("declined", {"code": "Ann, 4 Mill Lane"})),
        ("exit 1", Unsure("exit_1")),
        ("exit 75", Unsure("exit_75")),
        ("kill -9 $$", Unsure("signal_9")),
        ("head -c 100000 /dev/zero | tr '\\0' x", Done()),
    ],
)
async def test_an_exit_code_says_how_it_went(lines: str, answer: object) -> None:
    assert await program(lines).run(ORDER) == answer


@pytest.mark.parametrize(
    ("code", "answer"),
    [(0, Done()), (10, Declined("declined")), (11, NotDone()), (12, None), (75, Unsure("exit_75"))],
)
async def test_a_program_can_be_asked_what_became_of_an_order(code: int, answer: object) -> None:
    assert await program(ask=f"exit {code}").ask(ORDER) == answer


async def test_a_question_is_never_put_to_the_program_that_does() -> None:
    assert await program("exit 0").ask(ORDER) is None
    assert await program("exit 11").still_wanted(ORDER) is True


@pytest.mark.parametrize(("code", "answer"), [(0, True), (11, False), (12, True), (1, Unsure("exit_1"))])
async def test_a_program_can_say_whether_a_late_order_is_still_wanted(code: int, answer: object) -> None:
    assert await program(still_wanted=f"exit {code}").still_wanted(ORDER) == answer


async def test_a_program_is_told_the_order_and_nothing_of_the_agent_s_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARESPINE_AGENT_CREDENTIAL", "secret")
    heard, seen = tmp_path / "heard", tmp_path / "seen"
    assert await program(f"cat > {heard}; env > {seen}").run(ORDER) == Done()
    told = json.loads(heard.read_text())
    assert (told["verb"], told["id"], told["payload"]) == ("run", str(ORDER.id), {"item": "blood count"})
    assert "CARESPINE" not in seen.read_text()


async def test_a_program_that_takes_too_long_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    lines = f"trap '' TERM; sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; wait; sleep 60"
    assert await program(lines, timeout=0.5).run(ORDER) == Unsure("timeout")
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    await eventually(lambda: not any(is_alive(pid) for pid in started), within=5)


async def test_a_program_s_child_that_stays_is_not_waited_for_and_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert await program(f"echo '{{}}'; sleep 60 & echo $! > {pids}").run(ORDER) == Done()
    await eventually(lambda: not is_alive(int(pids.read_text())), within=5)


async def test_an_agent_that_stops_leaves_no_program_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    running = asyncio.ensure_future(program(f"echo $$ > {pids}; exec sleep 60").run(ORDER))
    await eventually(lambda: pids.exists() and pids.read_text().strip(), within=5)
    running.cancel()
    await asyncio.wait([running])
    assert not is_alive(int(pids.read_text()))


async def test_a_program_that_is_not_there_or_does_not_listen_is_no_crash() -> None:
    missing = Program(Commands(run=[os.fspath(Path("/nowhere/at/all"))]))
    assert await missing.run(ORDER) == Unsure("FileNotFoundError")
    deaf = program("exec 0<&-; exit 0")
    big = Order(**{**vars(ORDER), "payload": {"text": "x" * 500_000}})
    assert await deaf.run(big) == Done()


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
