"""`unit-agent` as people and scripts use it: what it says, what it finds, and its exit codes."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.envelope import Json
from infra.http_server import serving
from tests.kit.processes import ROOT, Started
from tests.kit.waiting import eventually
from tests.unit_agent.conftest import NewAgent
from tests.unit_agent.hl7v2.adt import PID, PV1, adt
from tests.ws_bridge.centre import Centre, patient
from tests.ws_bridge.conftest import url_of
from tests.ws_bridge.test_submissions import with_the_handlers
from unit_agent.cli import doctor
from unit_agent.store import Store

UNIT = "north"


async def run(*arguments: str, given: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARESPINE_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "unit_agent", *arguments],
        cwd=ROOT,
        capture_output=True,
        input=given,
        text=True,
        timeout=60,
        check=False,
        env=clean | environment,
    )
    return done.returncode, done.stdout, done.stderr


async def findings(*arguments: str, **environment: str) -> dict[str, Json]:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", said)
        code = await asyncio.to_thread(doctor.main, ["--json", *arguments])
    found = {one["id"]: one for one in json.loads(said.getvalue())}
    assert (code == 7) == any(one["state"] == "failed" for one in found.values())
    return found


def token(unit: str = UNIT, seconds: float = 3600) -> str:
    """Good to look at; nobody here checks who signed it."""
    claims = json.dumps({"unit": unit, "exp": int(time.time() + seconds)}).encode()
    return f"x.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.y"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that an agent has left."""
    folder = tmp_path / "agent"
    with Store(folder, UNIT):
        pass
    return folder


async def test_help_names_every_command_and_what_is_no_command_is_told() -> None:
    code, told, _ = await run("--help")
    assert code == 0
    for name in ("run", "status", "enrol", "rotate-key", "doctor", "config", "hl7"):
        assert f"  {name}" in told
    assert (await run("dance"))[0] == 2


async def test_usage_is_exit_code_2_and_says_what_to_give(tmp_path: Path) -> None:
    for arguments, said in (
        (["run", "--unit", UNIT, "--data", str(tmp_path)], "enrol"),
        (["run", "--credential", "nonsense"], "not a token"),
        (["run", "--url", "http://x", "--credential", token()], "url: String should match"),
        (["status", "--data", str(tmp_path)], "give --unit"),
        (["--fleet", str(tmp_path / "missing.json")], "No such file"),
    ):
        code, _, trouble = await run(*arguments, XDG_STATE_HOME=str(tmp_path))
        assert (code, said in trouble) == (2, True), trouble


async def test_an_agent_that_cannot_have_its_port_or_folder_says_so_and_ends(store: Path, tmp_path: Path) -> None:
    arguments = ["--url", "ws://127.0.0.1:1/unit", "--credential", token(), "--data", str(store)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "agent.toml").write_text(f"[hl7.listen]\nport = {taken.getsockname()[1]}\n")
        code, _, trouble = await run(*arguments, "--config", str(tmp_path / "agent.toml"))
    assert (code, "in use" in trouble, "Traceback" in trouble) == (1, True, False), trouble
    with Store(store, UNIT):
        code, _, trouble = await run(*arguments)
    assert (code, "another agent uses" in trouble) == (1, True), trouble


async def test_status_of_an_agent_that_does_not_run_is_read_from_its_store(store: Path, tmp_path: Path) -> None:
    assert (await run("status", "--data", str(tmp_path / "nothing"), "--unit", UNIT))[0] == 5
    code, told, _ = await run("status", "--data", str(store))
    assert (code, f"{UNIT}, not running" in told) == (3, True)
    code, told, _ = await run("status", "--data", str(store), "--json")
    status = json.loads(told)
    assert (code, status["running"], status["counts"]["position"], status["troubles"]) == (3, False, 0, [])
    store.joinpath("agent.db").write_bytes(b"this is no database at all" * 100)
    code, _, trouble = await run("status", "--data", str(store), "--unit", UNIT)
    assert (code, "unit-agent doctor" in trouble) == (1, True)


async def test_doctor_looks_at_the_store(store: Path) -> None:
    found = await findings("--data", str(store), "--credential", token("south"), "--unit", "south")
    assert found["store.integrity"]["state"] == "ok"
    assert found["store.unit"]["state"] == "failed"
    os.chmod(store, 0o755)  # noqa: S103 - what it must not be
    found = await findings("--data", str(store), "--credential", token(seconds=-1))
    assert (found["store.folder"]["state"], found["credential.token"]["state"]) == ("failed", "failed")
    assert "chmod 700" in found["store.folder"]["remedy"]
    whole = store.joinpath("agent.db").read_bytes()
    store.joinpath("agent.db").write_bytes(whole[: len(whole) // 2] + b"\xff" * 20_000)
    found = await findings("--data", str(store), "--credential", token())
    assert found["store.integrity"]["state"] == "failed"
    assert "set" in found["store.integrity"]["remedy"]


async def test_doctor_says_where_the_way_to_the_centre_ends(store: Path) -> None:
    base = ["--data", str(store), "--credential", token()]
    found = await findings(*base, "--url", "wss://nowhere.invalid/unit", "--gateway", "http://127.0.0.1:1")
    assert (found["bridge.dns"]["state"], found["gateway.tcp"]["state"]) == ("failed", "failed")
    assert "firewall" in found["gateway.tcp"]["remedy"]
    assert "clock.skew" not in found


@asynccontextmanager
async def centre_that(say: Response | list[Response], **options: Any) -> AsyncIterator[str]:  # Any: uvicorn's
    """A centre that says this to everything, or one after the other."""

    async def answer(request: Request) -> Response:
        return say.pop(0) if isinstance(say, list) else say

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    async with serving(app, host="127.0.0.1", port=0, grace=1, date_header=False, **options) as url:
        yield url


async def test_doctor_compares_the_clock_with_the_centre_s(store: Path) -> None:
    for minutes, state in ((0, "ok"), (1, "warning"), (10, "failed")):
        at = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        async with centre_that(Response(headers={"Date": at})) as url:
            found = await findings("--data", str(store), "--credential", token(), "--gateway", url)
        assert (found["clock.skew"]["state"], found["gateway.http"]["state"]) == (state, "ok")


async def test_doctor_does_not_take_another_server_for_the_centre(store: Path) -> None:
    async with centre_that(Response(status_code=404)) as url:
        found = await findings("--data", str(store), "--credential", token(), "--gateway", url)
    assert (found["gateway.http"]["state"], found["gateway.http"]["seen"]) == ("failed", "HTTP 404")


def certificate(folder: Path, *, days: int) -> tuple[Path, Path]:
    """One for localhost that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_doctor_looks_at_the_centre_s_certificate(store: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, days=5)
    async with centre_that(Response(), ssl_certfile=cert, ssl_keyfile=key) as url:
        gateway = f"https://localhost:{url.rpartition(':')[2]}"
        base = ["--data", str(store), "--credential", token(), "--gateway", gateway]
        found = await findings(*base)
        assert found["gateway.tls"]["state"] == "failed"
        assert "SSL_CERT_FILE" in found["gateway.tls"]["remedy"]
        found = await findings(*base, SSL_CERT_FILE=str(cert))
    assert (found["gateway.tls"]["state"], found["gateway.tls"]["seen"]) == ("warning", "trusted, 5 days left")
    assert found["gateway.http"]["state"] == "ok"


async def test_doctor_looks_at_the_site_s_own_systems(store: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        f"""
        data = "{store}"
        [webhook]
        url = "http://127.0.0.1:1/orders"
        secret_file = "{tmp_path / "secret"}"
        [programs."orders.place"]
        run = ["/bin/true"]
        ask = ["/nowhere/at/all"]
        [hl7.send]
        port = 1
        """
    )
    found = await findings("--config", str(tmp_path / "agent.toml"), "--credential", token())
    parts = ("webhook", "program", "hl7")
    assert {name: one["state"] for name, one in found.items() if name.split(".")[0] in parts} == {
        "webhook.tcp": "failed", "webhook.secret": "failed", "program.orders.place.run": "ok",
        "program.orders.place.ask": "failed", "hl7.send": "failed",
    }  # fmt: skip
    assert "openssl rand" in found["webhook.secret"]["seen"] or "cannot be read" in found["webhook.secret"]["seen"]


async def test_an_agent_enrols_with_a_code_that_nobody_sees(tmp_path: Path) -> None:
    data = tmp_path / "agent"
    async with centre_that(JSONResponse({"keyId": "0" * 32}, status_code=201)) as url:
        code, told, trouble = await run(
            "enrol", "--unit", UNIT, "--gateway", url, "--data", str(data), "--json", given="ABCDE-FGHJK\n"
        )
    assert code == 0, trouble
    enrolled = json.loads(told)
    assert (enrolled["unit"], enrolled["gateway"]) == (UNIT, url)
    assert os.stat(enrolled["keyFile"]).st_mode & 0o077 == 0
    found = await findings("--data", str(data), "--gateway", url)
    assert found["credential.key"]["state"] == "ok"
    assert enrolled["keyId"] in found["credential.key"]["seen"]


async def test_a_code_that_is_not_taken_says_what_to_do(tmp_path: Path) -> None:
    no = JSONResponse({"code": "enrolment_code_used", "status": 403}, status_code=403)
    async with centre_that(no) as url:
        code, _, trouble = await run("enrol", "X", "--unit", UNIT, "--gateway", url, "--data", str(tmp_path / "a"))
    assert (code, "ask the network for another code" in trouble) == (4, True)
    assert (await run("enrol", "--unit", UNIT, "--gateway", url, "--data", str(tmp_path / "a")))[0] == 2
    assert (await run("rotate-key", "--unit", UNIT, "--data", str(tmp_path / "a")))[0] == 2


async def test_secrets_are_not_shown(tmp_path: Path) -> None:
    secret = token()
    code, told, _ = await run("config", "--credential", secret, "--unit", UNIT)
    assert (code, secret in told, "(not shown)" in told) == (0, False, True)


async def test_an_agent_with_everything_stays_small(store: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        f"""
        url = "ws://127.0.0.1:1/unit"
        credential = "{token()}"
        data = "{store}"
        http_port = 0
        [programs."orders.place"]
        run = ["/bin/true"]
        [hl7.listen]
        port = 0
        [hl7.send]
        port = 1
        """
    )
    with subprocess.Popen(  # noqa: ASYNC220 - starting it is quick
        [sys.executable, "-m", "unit_agent", "--config", str(tmp_path / "agent.toml")],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    ) as agent:  # fmt: skip
        await eventually((store / "local-api.json").exists, within=30, what="the local API")
        size = psutil.Process(agent.pid).memory_info().rss
        agent.terminate()
        assert agent.wait(20) == 0
    assert size < 60 * 1024 * 1024


async def test_a_whole_agent_is_well_takes_hl7_and_says_so(
    bridge: Started, centre: Centre, agent_at: NewAgent, rabbitmq: str, tmp_path: Path
) -> None:
    await centre.unit(UNIT)
    (tmp_path / "agent.toml").write_text(f'[hl7.listen]\nport = 0\n[log]\nfolder = "{tmp_path / "log"}"\n')
    agent = agent_at(url_of(bridge), UNIT, "--config", str(tmp_path / "agent.toml"))
    await agent.start()
    last = await centre.happens(UNIT, patient())
    await eventually(agent.is_live, within=20)
    await eventually(lambda: agent.position() >= last, within=20)
    port = (await agent.status())["hl7"]["listen"]["port"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x0b" + adt("A04", PID, PV1, control_id="HIS-7") + b"\x1c\r")
    async with asyncio.timeout(10):
        assert b"MSA|AA|HIS-7|" in await reader.readuntil(b"\x1c\r")
    writer.close()
    registered, arrived = await with_the_handlers(rabbitmq, 2)
    assert (registered.type, arrived.type) == ("patient.RegisterPatient", "encounter.CheckIn")
    assert registered.actor.subject == "hl7"
    arguments = ["--config", str(tmp_path / "agent.toml"), "--data", str(agent.folder), "--unit", UNIT]
    code, told, trouble = await run("status", *arguments)
    assert code == 0, told + trouble
    assert "live, epoch 1" in told
    credential = f"@{tmp_path / UNIT}.token"
    found = await findings(*arguments, "--url", url_of(bridge), "--credential", credential)
    assert {name for name, one in found.items() if one["state"] == "failed"} == set()
    assert (found["bridge.http"]["state"], found["hl7.listen"]["state"]) == ("ok", "ok")
    assert found["credential.admitted"]["state"] == "ok"
    forged = await findings(*arguments, "--url", url_of(bridge), "--credential", token())
    assert forged["credential.admitted"]["seen"] == "the centre says token_invalid"
    assert 'agent_hl7_received_total{result="taken"} 1.0' in (await agent.ask("GET", "/metrics")).text
    assert "Nyberg" not in (tmp_path / "log" / "agent.log").read_text()
