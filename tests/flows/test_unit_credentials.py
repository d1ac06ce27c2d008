"""A unit's agent from its enrolment to its revocation, on the whole system: every process real, every step a user's."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.envelope import Json
from contracts.frames import CloseCode
from contracts.identity import Role
from infra.cli.exit_codes import ExitCode
from infra.unit_keys import SigningKey
from tests.flows.importing import CARESPINE
from tests.kit.lines import Limits, Line
from tests.kit.processes import ROOT, Installation, Started, installation
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent
from tests.ws_bridge.conftest import url_of
from tests.ws_bridge.raw_unit import RawUnit, linked

pytestmark = pytest.mark.timeout(300)
TOKEN_SECONDS = 6


@dataclass
class Centre:
    """The processes, and an operator at a terminal."""

    installed: Installation
    gateway_url: str
    bridge: Started
    gateway: Started
    api: httpx.AsyncClient
    folder: Path

    async def unit(self, unit_id: str) -> str:
        """A registered unit."""
        answer = await self.api.post("/api/units", json={"unitId": unit_id, "name": "A clinic"})
        assert answer.status_code == 201, answer.text
        return unit_id

    async def operator(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`carespine …` with an operator's token."""
        environment = os.environ | {"CARESPINE_VAR": str(self.folder), "CARESPINE_URL": self.gateway_url}
        environment["CARESPINE_TOKEN"] = self.installed.token(Role.OPS)
        return await asyncio.to_thread(
            subprocess.run,
            [*CARESPINE, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    async def told(self, *words: str) -> Json:
        """The same, its answer as JSON."""
        done = await self.operator(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: Json = json.loads(done.stdout)
        return found

    async def renewals(self) -> int:
        """Sessions renewed so far."""
        text = (await self.api.get(self.bridge.health_url + "/metrics")).text
        found = [line for line in text.splitlines() if 'unit_renewals_total{result="renewed"}' in line]
        return int(float(found[0].split()[-1])) if found else 0


@pytest.fixture
async def centre(postgres: str, rabbitmq: str, tmp_path: Path) -> AsyncIterator[Centre]:
    """A whole one, whose tokens are good for seconds."""
    with installation(postgres, rabbitmq, tmp_path, CARESPINE_UNIT_TOKEN_SECONDS=str(TOKEN_SECONDS)) as installed:
        bridge = installed.start("ws_bridge")
        gateway = installed.start("gateway", CARESPINE_UNIT_URLS=url_of(bridge))
        others = [installed.start("command_handlers"), installed.start("projections")]
        await asyncio.gather(*(one.ready() for one in (bridge, gateway, *others)))
        url = f"http://127.0.0.1:{gateway.environment['CARESPINE_HTTP_PORT']}"
        headers = {"Authorization": f"Bearer {installed.token(Role.OPS)}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as api:
            yield Centre(installed, url, bridge, gateway, api, tmp_path)


async def unit_agent(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m unit_agent …` at the site."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "unit_agent", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def enrol(centre: Centre, unit_id: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """With a code that an operator has read out."""
    code = await centre.operator("units", "enrol-code", unit_id)
    assert code.returncode == 0, code.stderr
    return await unit_agent(
        *("enrol", "--gateway", centre.gateway_url, "--unit", unit_id, "--data", str(folder)),
        code.stdout.strip(),
    )


async def link_of(agent: Agent) -> dict[str, Any]:  # Any: JSON
    found: dict[str, Any] = (await agent.status())["link"]
    return found


async def test_an_agent_enrols_renews_over_and_over_is_shut_out_and_let_in_again(
    centre: Centre, tmp_path: Path
) -> None:
    assert (await centre.operator("units", "enrol-code", "nowhere")).returncode == ExitCode.NOT_FOUND
    unit_id, folder = await centre.unit("north"), tmp_path / "agent-north"
    done = await enrol(centre, unit_id, folder)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "unit_agent", "--gateway", centre.gateway_url, "--unit", unit_id]
    agent = Agent(folder, [*command, "--data", str(folder), "--http-port", "0"])
    try:
        await agent.start()
        await eventually(agent.is_live, what="the agent is linked with its own key")
        looked = await unit_agent("doctor", "--unit", unit_id, "--data", str(folder), "--json")
        found = {one["id"]: one["state"] for one in json.loads(looked.stdout)}
        assert found["bridge.http"] == "ok", "looked for where the centre says it is, not at the gateway's address"

        async def renewed(times: int) -> bool:
            return await centre.renewals() >= times

        await eventually(lambda: renewed(2), within=6 * TOKEN_SECONDS, what="two lifetimes of a token")
        centre.gateway.kill()
        await eventually(lambda: renewed(5), within=9 * TOKEN_SECONDS, what="three more without a gateway")
        centre.gateway.start()
        await centre.gateway.ready()
        assert (await agent.status())["link"]["epoch"] == 1, "one session, never interrupted"

        [key] = (await centre.told("units", "keys", unit_id))["keys"]
        assert key["revokedAt"] is None
        assert (await centre.operator("units", "revoke", unit_id, "--reason", "stolen")).returncode == 0

        async def is_shut_out() -> bool:
            return bool((await link_of(agent))["state"] == "stopped")

        await eventually(is_shut_out, within=5, what="the agent says that somebody has to act")
        assert "enrol" in (await link_of(agent))["remedy"]

        assert (await enrol(centre, unit_id, folder)).returncode == 0
        await eventually(agent.is_live, what="enrolled anew, the running agent comes back by itself")
        states = [one["revokedAt"] is None for one in (await centre.told("units", "keys", unit_id))["keys"]]
        assert states == [True, False]
        listed = (await centre.operator("units", "list", "--connected")).stdout
        assert unit_id in listed
    finally:
        if agent.process is not None:
            agent.end()
    said = (folder.parent / f"{folder.name}.log").read_text()
    for one in centre.installed.started.values():
        said += one.log_text()
    for secret in ("eyJ", "PRIVATE KEY", (folder / "unit-key.pem").read_text().splitlines()[1]):
        assert secret not in said


async def test_a_token_that_runs_out_in_the_middle_of_a_frame_is_renewed_when_the_line_goes_on(
    centre: Centre, tmp_path: Path
) -> None:
    unit_id, folder, patients = await centre.unit("east"), tmp_path / "agent-east", 30
    assert (await enrol(centre, unit_id, folder)).returncode == 0
    async with Line(url_of(centre.bridge)) as line:
        command = [sys.executable, "-m", "unit_agent", "--url", line.url, "--unit", unit_id]
        agent = Agent(folder, [*command, "--data", str(folder), "--http-port", "0"])
        try:
            await agent.start()
            await eventually(agent.is_live, what="the agent is linked")
            line.limits = lambda: Limits(up=2500, hold=True)
            line.cut()
            begun = time.monotonic()
            made = [await agent.ask("POST", "/commands", registration(number)) for number in range(patients)]
            assert {answer.status_code for answer in made} == {202}
            await eventually(lambda: line.held, what="a frame stands half on the wire")
            await eventually(lambda: time.monotonic() > begun + 2 * TOKEN_SECONDS, what="every token has run out")
            line.limits = Limits
            line.release()

            async def all_settled() -> bool:
                found = [await agent.ask("GET", f"/commands/{answer.json()['commandId']}") for answer in made]
                return all((one.json().get("outcome") or {}).get("status") == "accepted" for one in found)

            await eventually(all_settled, within=60, what="every command was handled")
            assert (await link_of(agent))["epoch"] == 2, "the held session went on"
        finally:
            if agent.process is not None:
                agent.end()
    headers = {"Authorization": f"Bearer {centre.installed.token(Role.STAFF, unit_id)}"}
    answer = await centre.api.get("/api/patients", params={"total": "true", "limit": "200"}, headers=headers)
    assert answer.json()["total"] == patients, "none lost, none doubled"


def registration(number: int) -> Json:
    """A patient who is registered at the site."""
    person = {
        "medicalRecordNumber": f"MRN-{number}",
        "firstName": "Ottoline",
        "lastName": "Quillfeather",
        "dateOfBirth": "1984-02-29",
    }
    return {"type": "patient.RegisterPatient", "payload": person}


async def test_a_revocation_shuts_connected_units_out_within_a_second_of_its_answer(centre: Centre) -> None:
    units = [await centre.unit(f"unit-{number}") for number in range(8)]
    took: dict[str, float] = {}

    async def closed(unit: RawUnit) -> None:
        _, code = await unit.closed(within=10)
        took[unit.unit_id] = time.perf_counter()
        assert code == CloseCode.CREDENTIAL_REVOKED

    async with AsyncExitStack() as stack:
        open_links = [
            await stack.enter_async_context(linked(url_of(centre.bridge), unit_id, await keyed(centre, unit_id)))
            for unit_id in units
        ]
        for unit in open_links:
            await unit.hello()
        delays = []
        for unit in open_links:
            waiting = asyncio.create_task(closed(unit))
            path = f"/api/units/{unit.unit_id}/credentials/revoke"
            assert (await centre.api.post(path, json={"reason": "stolen"})).status_code == 200
            answered = time.perf_counter()
            await waiting
            delays.append((took[unit.unit_id] - answered) * 1000)
    print(f"revoked: answer to close {statistics.median(delays):.0f} ms (median), {max(delays):.0f} ms (worst of 8)")
    assert max(delays) < 1000


async def keyed(centre: Centre, unit_id: str) -> str:
    """A token got with a key of the unit's own."""
    key = SigningKey.generate()
    code = (await centre.api.post(f"/api/units/{unit_id}/enrolment-codes", json={})).json()["code"]
    body = {"code": code, "publicKey": key.public.text}
    assert (await centre.api.post(f"/api/units/{unit_id}/enrol", json=body)).status_code == 201
    assertion = {"assertion": key.assertion(unit_id, time.time())}
    answer = await centre.api.post(f"/api/units/{unit_id}/token", json=assertion)
    return str(answer.json()["token"])
