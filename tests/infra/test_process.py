"""A process: ready when it can work, gone when told, never half alive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.waiting import eventually

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from infra.process import Process, run

@asynccontextmanager
async def resource(name):
    print(f"open {name}", flush=True)
    try:
        yield
    finally:
        print(f"close {name}", flush=True)

async def crash():
    await asyncio.sleep(0)
    raise ValueError("Ana Souza")

async def main(process: Process) -> None:
    reason = "no broker"
    process.ready.check("broker", lambda: reason)
    process.metrics.commands_settled.labels("accepted").inc()
    await process.closing.enter_async_context(resource("outer"))
    async with resource("inner"):
        process.started()
        match sys.argv[1]:
            case "crash": process.tasks.create_task(crash())
            case "unready": pass
            case "key": process.settings.keys.sealing()
            case "ends": return
            case "stuck":
                await process.stopping.wait()
                await asyncio.sleep(60)
            case "ready": reason = None
        process.tasks.create_task(asyncio.sleep(3600))
        await process.stopping.wait()

run("probe", main)
"""


class Probe:
    """A running process and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.printed: list[str] = []
        self.errors = b""

    async def follow(self) -> None:
        assert self._process.stdout
        assert self._process.stderr
        async for line in self._process.stdout:
            self.printed.append(line.decode().rstrip())
        self.errors = await self._process.stderr.read()

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.printed if line.startswith("{")]

    def line(self, event: str) -> dict[str, Any] | None:
        return next((line for line in self.logged if line["event"] == event), None)

    async def started(self) -> str:
        line = await eventually(lambda: self.line("started"), what="the start")
        assert line is not None
        return str(line["url"])

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.wait_for(self._process.wait(), 15)


@contextlib.asynccontextmanager
async def probe(tmp_path: Path, behaviour: str, **environment: str) -> AsyncIterator[Probe]:
    program = tmp_path / "probe.py"
    program.write_text(PROGRAM)
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, behaviour,
        env={
            **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "CARESPINE_POSTGRES_URL": "postgresql://h/d",
            "CARESPINE_RABBITMQ_URL": "amqp://h/", **environment,
        },
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    probe = Probe(process)
    following = asyncio.create_task(probe.follow())
    try:
        yield probe
        await process.wait()
        await following
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await following


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_closes_in_reverse_and_leaves_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    async with probe(tmp_path, "ready") as it:
        await it.started()
        it.signal(number)
        assert await it.ended() == 0
    assert [line for line in it.printed if not line.startswith("{")] == [
        "open outer", "open inner", "close inner", "close outer",
    ]  # fmt: skip
    assert [line["event"] for line in it.logged] == ["started", "stopping", "stopped"]


async def test_it_answers_for_its_health(tmp_path: Path) -> None:
    async with probe(tmp_path, "ready") as it, httpx.AsyncClient(trust_env=False) as http:
        url = await it.started()
        for path, status in (("live", 200), ("ready", 200), ("startup", 200)):
            assert (await http.get(f"{url}/health/{path}")).status_code == status
        summary = (await http.get(f"{url}/health")).json()
        assert (summary["status"], summary["process"]) == ("ok", "probe")
        metrics = (await http.get(f"{url}/metrics")).text
        assert 'carespine_commands_settled_total{outcome="accepted"} 1.0' in metrics
        assert "carespine_build_info{" in metrics
        assert "process_cpu_seconds_total" in metrics
        assert "carespine_agent_connected" not in metrics, "only what the process has a part in"
        it.signal(signal.SIGTERM)
        assert await it.ended() == 0


async def test_unready_it_says_which_check_and_why(tmp_path: Path) -> None:
    async with probe(tmp_path, "unready") as it, httpx.AsyncClient(trust_env=False) as http:
        url = await it.started()
        answer = await http.get(f"{url}/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "failing": ["broker"]})
        verbose = (await http.get(f"{url}/health/ready?verbose")).json()
        assert {"name": "broker", "state": "failed", "reason": "no broker"} in verbose["checks"]
        assert (await http.get(f"{url}/health/live")).status_code == 200
        it.signal(signal.SIGTERM)
        assert await it.ended() == 0


async def test_a_failing_task_ends_the_process_with_a_word_and_no_data(tmp_path: Path) -> None:
    async with probe(tmp_path, "crash") as it:
        assert await it.ended() == 1
    crashed = it.line("crashed")
    assert crashed is not None
    assert crashed["error_type"] == "ValueError"
    assert any(frame.startswith("__main__:crash:") for frame in crashed["frames"])
    assert it.printed[-2:-1] == ["close outer"] or "close outer" in it.printed
    assert "Ana" not in "".join(it.printed) + it.errors.decode()


async def test_when_its_work_is_over_it_ends_without_being_told(tmp_path: Path) -> None:
    async with probe(tmp_path, "ends") as it:
        assert await it.ended() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with probe(tmp_path, "stuck") as it:
        await it.started()
        it.signal(signal.SIGTERM)
        await eventually(lambda: it.line("stopping"))
        it.signal(signal.SIGTERM)
        assert await it.ended() == 1
    assert "close outer" in it.printed


async def test_with_settings_missing_it_names_them_all_and_leaves_with_two(tmp_path: Path) -> None:
    async with probe(tmp_path, "ready", CARESPINE_POSTGRES_URL="", CARESPINE_RABBITMQ_URL="") as it:
        assert await it.ended() == 2
    assert "CARESPINE_POSTGRES_URL is missing" in it.errors.decode()
    assert "CARESPINE_RABBITMQ_URL is missing" in it.errors.decode()


async def test_a_key_missing_only_when_asked_for_is_named_too(tmp_path: Path) -> None:
    async with probe(tmp_path, "key") as it:
        assert await it.ended() == 2
    assert "CARESPINE_MASTER_KEY is missing" in it.errors.decode()
    line = it.line("settings_incomplete")
    assert line is not None
    assert line["variables"] == ["MASTER_KEY"]
