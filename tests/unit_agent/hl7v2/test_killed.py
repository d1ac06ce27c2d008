"""An agent killed while messages come in: what it acknowledged is there, and what is sent again is taken once."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from contextlib import suppress
from pathlib import Path

from tests.unit_agent.conftest import Agent
from tests.unit_agent.hl7v2.adt import PID, adt

MESSAGES = 60


async def send(port: int, numbers: range, acknowledged: set[int], *, until: int = MESSAGES) -> None:
    """Send these one after the other, as a sender does that waits for each answer; stops after so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number in numbers:
            writer.write(
                b"\x0b" + adt("A28", PID.replace("4711", f"M{number}"), control_id=f"HIS-{number}") + b"\x1c\r"
            )
            answer = await reader.readuntil(b"\x1c\r")
            assert f"MSA|AA|HIS-{number}|".encode() in answer
            acknowledged.add(number)
            if len(acknowledged) == until:
                return
    finally:
        writer.close()


async def test_what_was_acknowledged_survives_kill_9_and_a_repetition_is_one_command(tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"unit": "north"}).encode()).decode().rstrip("=")
    (tmp_path / "agent.toml").write_text(
        f'url = "ws://127.0.0.1:1/unit"\ncredential = "x.{claims}.y"\nhttp_port = 0\n[hl7.listen]\nport = 0\n'
    )
    agent = Agent(
        tmp_path / "data",
        [
            sys.executable,
            "-m",
            "unit_agent",
            "--config",
            str(tmp_path / "agent.toml"),
            "--data",
            str(tmp_path / "data"),
        ],
    )
    agent.folder.mkdir(mode=0o700)
    acknowledged: set[int] = set()
    try:
        for kill_after in (10, 25, 26, MESSAGES):
            await agent.start()
            port = (await agent.status())["hl7"]["listen"]["port"]
            # A sender that lost its connection begins again a little further back than it has to.
            first = max(0, len(acknowledged) - 5)
            async with asyncio.timeout(30):
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    await send(port, range(first, MESSAGES), acknowledged, until=kill_after)
            agent.end()
            kept = {row[0] for row in agent.rows("SELECT control_id FROM hl7_received")}
            assert {f"HIS-{number}" for number in acknowledged} <= kept
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.end()
    assert acknowledged == set(range(MESSAGES))
    made = agent.rows("SELECT type, payload FROM outbox ORDER BY seq")
    numbers = [json.loads(payload)["medicalRecordNumber"] for _, payload in made]
    assert numbers == [f"M{number}" for number in range(MESSAGES)]
