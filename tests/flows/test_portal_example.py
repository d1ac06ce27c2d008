"""The example client of docs/examples, run by Node where there is one: on the socket, and over the stream."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.identity import Role
from tests.flows.test_portals import House, house
from tests.kit.waiting import eventually

__all__ = ["house"]
CLIENT = Path(__file__).parents[2] / "docs" / "examples" / "portal.js"
RUN = """
import { Portal } from "./portal.mjs";
const about = JSON.parse(process.argv[2]);
const say = (what, frame) => console.log(JSON.stringify({ what, frame }));
const portal = new Portal({
  ...about,
  token: async () => about.bearer,
  on: { event: (frame) => say("event", frame), state: say, reset: (frame) => say("reset", frame) },
});
portal.failures = about.failures ?? 0;
portal.start();
process.stdin.on("data", async (line) => {
  const { type, action, payload } = JSON.parse(line);
  portal.command(type, action, payload).then((outcome) => say("outcome", outcome), (error) => say("error", error.code));
});
process.stdin.on("end", () => { portal.stop(); process.exit(0); });
"""


def _has_sockets() -> bool:
    node = shutil.which("node")
    if node is None:
        return False
    asked = [node, "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    return subprocess.run(asked, capture_output=True, timeout=20, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _has_sockets(), reason="no Node with WebSockets on this machine")


class Page:
    """The client in a Node process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []  # Any: JSON

    async def read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            self.told.append(json.loads(line))

    async def says(self, what: str) -> Any:  # Any: JSON
        found = await eventually(lambda: [one.get("frame") for one in self.told if one["what"] == what], what=what)
        return found[-1]

    def command(self, **about: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(about).encode() + b"\n")


@asynccontextmanager
async def page(folder: Path, **about: object) -> AsyncIterator[Page]:
    shutil.copy(CLIENT, folder / "portal.mjs")
    (folder / "run.mjs").write_text(RUN)
    process = await asyncio.create_subprocess_exec(
        "node", "--experimental-websocket", "--no-warnings", "run.mjs", json.dumps(about),
        cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    shown = Page(process)
    reading = asyncio.create_task(shown.read())
    try:
        yield shown
    finally:
        assert process.stdin
        process.stdin.close()
        async with asyncio.timeout(20):
            await process.wait()
        await reading


async def test_the_example_follows_a_board_and_gives_a_command(house: House, tmp_path: Path) -> None:
    await house.unit("example")
    token = house.installed.token(Role.STAFF, "example")
    async with page(tmp_path, socketUrl=house.portal_url, bearer=token, topics=["queue-board"]) as shown:
        assert (await shown.says("live"))["unitId"] == "example"
        await house.checked_in("example")
        assert (await shown.says("event"))["data"]["change"] == "PatientEnqueued"
        shown.command(type="queue-update", action="call-next", payload={"department": "general"})
        assert (await shown.says("outcome"))["status"] == "accepted"
        shown.command(type="queue-update", action="fly", payload={})
        assert await shown.says("error") == "command_unknown"


async def test_the_example_falls_back_to_the_stream_when_sockets_fail(house: House, tmp_path: Path) -> None:
    await house.unit("fallback")
    token = house.installed.token(Role.STAFF, "fallback")
    about = {
        "socketUrl": "ws://127.0.0.1:9/portal", "streamUrl": house.api_url + "/api/stream", "bearer": token,
        "topics": ["queue-board"], "failures": 3,
    }  # fmt: skip
    async with page(tmp_path, **about) as shown:
        await shown.says("live")
        await house.checked_in("fallback")
        assert (await shown.says("event"))["data"]["entry"]["ticket"] == 1
