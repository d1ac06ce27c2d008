"""A disk that runs out under a running agent, a real one of its own: nothing taken is lost, nothing untrue is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from contracts.envelope import Json
from tests.kit.processes import ROOT, Started
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent, NewAgent
from tests.unit_agent.site import site_system
from tests.ws_bridge.centre import Centre, patient, queued
from tests.ws_bridge.conftest import url_of
from tests.ws_bridge.test_submissions import with_the_handlers

UNIT = "north"
SIZE = 24 * 1024 * 1024
SETTINGS = "[disk]\nlow_bytes = 4_000_000\nreserve_bytes = 2_000_000\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own; what is on it is gone with the test."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a filesystem of a test's own wants root on Linux and leave to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607 - the system's own


def fill(disk: Path, name: str = "ballast") -> None:
    """Something else takes all the room there is."""
    with (disk / name).open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(64 * 1024))
    with (disk / name).open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(64))
    assert os.statvfs(disk).f_bavail == 0


def cli(agent: Agent, *arguments: str) -> tuple[int, Json]:
    """What an operator types, for programs."""
    done = subprocess.run(
        [sys.executable, "-m", "unit_agent", *arguments, "--data", str(agent.folder), "--unit", UNIT, "--json",
         "--config", agent.command[agent.command.index("--config") + 1]],
        cwd=ROOT, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    told = json.loads(done.stdout)
    return done.returncode, told if isinstance(told, dict) else {one["id"]: one for one in told}


async def test_an_agent_whose_disk_is_full_refuses_loudly_and_loses_nothing(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str, small_disk: Path, tmp_path: Path
) -> None:
    await centre.unit(UNIT)
    (tmp_path / "agent.toml").write_text(SETTINGS)
    async with site_system() as site:
        agent = agent_at(url_of(bridge), UNIT, "--config", str(tmp_path / "agent.toml"), "--webhook", site.url)
        agent.command[agent.command.index(str(agent.folder))] = str(small_disk / "agent")
        agent.folder = small_disk / "agent"
        await agent.start()
        before = await centre.happens(UNIT, *(patient() for _ in range(20)))
        await eventually(lambda: agent.position() >= before, within=20)
        site.hold.clear()
        command = queued(UNIT, seconds=300)
        under_way = await centre.happens(UNIT, command)
        await eventually(lambda: site.done, within=20, what="the site is at work")

        fill(small_disk)
        asked: dict[str, object] = {"type": "queue.CallNext", "payload": {"department": "intake"}}
        refused = await agent.ask("POST", "/commands", asked)
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")

        # The link stays up and acknowledges nothing more; the outcome of what was under way goes out all the same.
        last = await centre.happens(UNIT, *(patient() for _ in range(50)))
        site.hold.set()
        [report] = await with_the_handlers(rabbitmq, 1)
        assert (report.type, report.payload["applied"]) == ("unit_command.ReportUnitCommand", True)
        status = await agent.status()
        assert (status["link"]["connected"], status["disk"]["takesNew"]) == (True, False)
        assert status["store"]["position"] == under_way == agent.position()
        assert "carespine_agent_room_short 1.0" in (await agent.ask("GET", "/metrics")).text
        code, told = cli(agent, "status")
        assert (code, told["disk"]["takesNew"]) == (7, False)
        assert any("nothing new is taken" in trouble for trouble in told["troubles"])
        code, findings = cli(agent, "doctor", "--url", url_of(bridge), "--credential", f"@{tmp_path / UNIT}.token")
        assert (code, findings["disk.room"]["state"]) == (7, "failed")
        assert findings["store.integrity"]["state"] == "ok"

        (small_disk / "ballast").unlink()
        await eventually(lambda: agent.position() >= last, within=20, what="the feed goes on by itself")
        taken = await agent.ask("POST", "/commands", asked)
        assert taken.status_code == 202
    [(count, first, highest)] = agent.rows("SELECT count(*), min(position), max(position) FROM facts")
    assert (count, first, highest) == (last, 1, last)
    status = await agent.status()
    assert (status["disk"]["state"], status["link"]["sessions"]) == ("enough", 1)
    assert (agent.folder / "reserve").stat().st_size == 2_000_000


async def test_an_agent_killed_on_a_full_disk_starts_on_it_and_goes_on_when_there_is_room(
    bridge: Started, centre: Centre, agent_at: NewAgent, small_disk: Path, tmp_path: Path
) -> None:
    await centre.unit(UNIT)
    (tmp_path / "agent.toml").write_text(SETTINGS)
    agent = agent_at(url_of(bridge), UNIT, "--config", str(tmp_path / "agent.toml"))
    agent.command[agent.command.index(str(agent.folder))] = str(small_disk / "agent")
    agent.folder = small_disk / "agent"
    await agent.start()
    made = (await agent.ask("POST", "/commands", {"type": "queue.CallNext", "payload": {"department": "er"}})).json()
    fill(small_disk)
    agent.end()
    last = await centre.happens(UNIT, *(patient() for _ in range(20)))
    await agent.start()
    assert (await agent.ask("GET", f"/commands/{made['commandId']}")).status_code == 200
    assert (await agent.status())["disk"]["takesNew"] is False
    (small_disk / "ballast").unlink()
    await eventually(lambda: agent.position() >= last, within=30)


async def test_an_outcome_for_which_not_even_the_reserve_is_left_is_written_once_there_is_room(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str, small_disk: Path, tmp_path: Path
) -> None:
    await centre.unit(UNIT)
    (tmp_path / "agent.toml").write_text(SETTINGS)
    async with site_system() as site:
        agent = agent_at(url_of(bridge), UNIT, "--config", str(tmp_path / "agent.toml"), "--webhook", site.url)
        agent.command[agent.command.index(str(agent.folder))] = str(small_disk / "agent")
        agent.folder = small_disk / "agent"
        await agent.start()
        site.hold.clear()
        await centre.happens(UNIT, queued(UNIT, seconds=300))
        await eventually(lambda: site.done, within=20, what="the site is at work")
        fill(small_disk)
        await eventually(lambda: not (agent.folder / "reserve").exists(), within=10, what="the reserve is given up")
        fill(small_disk, "more")
        site.hold.set()
        assert (await agent.status())["disk"]["state"] == "full"
        (small_disk / "ballast").unlink()
        [report] = await with_the_handlers(rabbitmq, 1)
    assert report.payload["applied"] is True
    assert len(site.done) == 1
