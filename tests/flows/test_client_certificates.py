"""Units behind client certificates at a proxy, with the configurations that this repository ships."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from contracts.frames import SUBPROTOCOL, Hello, Welcome
from contracts.identity import Role
from infra.services.ports import free_ports
from tests.kit.certificates import Authority
from tests.kit.processes import ROOT, Installation, installation
from tests.kit.proxies import NotObtainable, obtained, running
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import Agent
from unit_agent.credential import CredentialUnusable, KeyCredential
from unit_agent.enrolment import EnrolmentRefused, enrol, rotate

pytestmark = pytest.mark.timeout(240)
HEADER = "X-Carespine-Certificate-Unit"


@dataclass
class Front:
    """What units see: one address, and who signs certificates."""

    url: str
    units: Authority
    installed: Installation
    gateway_url: str
    bridge_url: str

    async def code(self, unit_id: str) -> str:
        """A registered unit's enrolment code; operators have a way of their own."""
        headers = {"Authorization": f"Bearer {self.installed.token(Role.OPS)}"}
        async with httpx.AsyncClient(base_url=self.gateway_url, headers=headers, trust_env=False, timeout=30) as api:
            await api.post("/api/units", json={"unitId": unit_id, "name": "A clinic"})
            answer = await api.post(f"/api/units/{unit_id}/enrolment-codes", json={})
            return str(answer.json()["code"])

    async def links(self, unit_id: str, token: str, context: ssl.SSLContext, **headers: str) -> bool:
        """Whether the unit is welcomed; a no over HTTP is raised."""
        async with connect(
            self.url.replace("https", "wss") + "/unit",
            ssl=context,
            additional_headers={"Authorization": f"Bearer {token}", **headers},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            proxy=None,
        ) as socket:
            await socket.send(Hello(unit_id=unit_id, position=0, agent_version="test").to_json(), text=True)
            return isinstance(Welcome.model_validate_json(await socket.recv()), Welcome)


def adapted(name: str, folder: Path, *, listen: int, gateway: str, bridge: str) -> str:
    """The configuration as it is shipped, with this test's addresses and files in it."""
    text = (ROOT / "infra" / "proxy" / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]).read_text()
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{gateway}",
        "127.0.0.1:8090": f"127.0.0.1:{bridge}",
        "/etc/carespine/proxy": str(folder),
        "listen 443": f"listen 127.0.0.1:{listen}",
        "bind :443": f"bind 127.0.0.1:{listen}",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    assert not re.search(r":443|:80[89]0|/etc/carespine/proxy", text)
    return text


@pytest.fixture(params=["nginx", "haproxy"])
async def front(request: pytest.FixtureRequest, postgres: str, rabbitmq: str, tmp_path: Path) -> AsyncIterator[Front]:
    """The whole system behind a proxy."""
    name: str = request.param
    try:
        program = await asyncio.to_thread(obtained, name)
    except NotObtainable as why:
        pytest.skip(str(why))
    units = Authority(tmp_path)
    certificate, key = units.issue("server", server=True)
    for unit_id in ("north", "south"):
        units.issue(unit_id)
    (listen,) = free_ports(1)
    with installation(postgres, rabbitmq, tmp_path, CARESPINE_CLIENT_CERTIFICATE_HEADER=HEADER) as installed:
        bridge = installed.start("ws_bridge")
        gateway = installed.start("gateway", CARESPINE_UNIT_URLS=f"wss://127.0.0.1:{listen}/unit")
        others = [installed.start("command_handlers"), installed.start("projections")]
        await asyncio.gather(*(one.ready() for one in (bridge, gateway, *others)))
        ports = gateway.environment["CARESPINE_HTTP_PORT"], bridge.environment["CARESPINE_BRIDGE_PORT"]
        configuration = adapted(name, tmp_path, listen=listen, gateway=ports[0], bridge=ports[1])
        with running(name, program, configuration, tmp_path):
            found = Front(
                url=f"https://127.0.0.1:{listen}",
                units=units,
                installed=installed,
                gateway_url=f"http://127.0.0.1:{ports[0]}",
                bridge_url=f"ws://127.0.0.1:{ports[1]}/unit",
            )

            async def answers() -> bool:
                try:
                    async with httpx.AsyncClient(verify=units.context("north"), trust_env=False) as client:
                        return (await client.get(found.url)).status_code == 404
                except httpx.HTTPError:
                    return False

            await eventually(answers, within=20, what=f"{name} answers")
            assert certificate.exists()
            assert key.exists()
            yield found


async def refused(front: Front, unit_id: str, token: str, context: ssl.SSLContext, **headers: str) -> int:
    with pytest.raises(InvalidStatus) as no:
        await front.links(unit_id, token, context, **headers)
    return no.value.response.status_code


async def test_a_unit_needs_its_own_certificate_besides_its_own_key(front: Front, tmp_path: Path) -> None:
    north, south = front.units.context("north"), front.units.context("south")
    folder = tmp_path / "agent"
    with pytest.raises(EnrolmentRefused, match="certificate_not_this_unit"):
        await enrol(gateway_url=front.url, unit_id="north", code=await front.code("north"), folder=folder, tls=south)
    await enrol(gateway_url=front.url, unit_id="north", code=await front.code("north"), folder=folder, tls=north)
    await rotate(folder, tls=north)
    credential = KeyCredential(folder, tls=north)
    token = await credential.bearer()
    assert credential.links() == [front.url.replace("https", "wss") + "/unit"]
    assert await front.links("north", token, north)

    stolen = KeyCredential(folder, tls=south)
    with pytest.raises(CredentialUnusable, match="certificate_not_this_unit"):
        await stolen.bearer()
    assert await refused(front, "north", token, south) == 403, "a token alone is not enough"
    assert await refused(front, "north", token, south, **{HEADER: "north"}) == 403, "nor what the client says itself"

    nobody = front.units.context(None)
    with pytest.raises((InvalidHandshake, OSError, EOFError)):
        await front.links("north", token, nobody)
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    other = Authority(strangers, "others")
    other.issue("north")
    stranger = front.units.context(None)
    stranger.load_cert_chain(strangers / "north.pem", strangers / "north.key")
    with pytest.raises((InvalidHandshake, OSError, EOFError)):
        await front.links("north", token, stranger)

    with pytest.raises(InvalidStatus) as past_the_proxy:
        async with connect(
            front.bridge_url,
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            proxy=None,
        ):
            pass
    assert past_the_proxy.value.response.status_code == 403
    async with httpx.AsyncClient(verify=north, trust_env=False) as client:
        for path in ("/api/patients", "/ops/units", "/portal", "/api/units/north/enrolment-codes"):
            assert (await client.get(front.url + path)).status_code == 404, "operators and portals come in elsewhere"


async def test_an_agent_with_a_certificate_enrols_and_links_through_the_proxy(front: Front, tmp_path: Path) -> None:
    """As its users start it."""
    folder, certificates = tmp_path / "agent-north", front.units.folder
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'gateway = "{front.url}"\nunit = "north"\ndata = "{folder}"\nhttp_port = 0\n[tls]\n'
        f'certificate = "{certificates}/north.pem"\nkey = "{certificates}/north.key"\n'
        f'authorities = "{front.units.file}"\n'
    )
    command = [sys.executable, "-m", "unit_agent"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "enrol", "--config", str(settings), await front.code("north")],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    doctor = await asyncio.to_thread(
        subprocess.run,
        [*command, "doctor", "--config", str(settings), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    states = {one["id"]: one["state"] for one in json.loads(doctor.stdout)}
    reached = {"gateway.http", "bridge.http", "credential.key", "clock.skew"}
    assert {name: states[name] for name in reached} == dict.fromkeys(reached, "ok"), doctor.stdout
    agent = Agent(folder, [*command, "run", "--config", str(settings)])
    try:
        await agent.start()
        await eventually(agent.is_live, what="the agent is linked through the proxy")
    finally:
        if agent.process is not None:
            agent.end()
