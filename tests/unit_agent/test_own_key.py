"""An agent's own key: made once, registered once, shown to nobody; tokens got with it whatever the network answers."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from infra.unit_keys import SigningKey
from tests.unit_agent.gateways import FAR_OFF, ScriptedGateway, scripted_gateway
from unit_agent import enrolment
from unit_agent.credential import Credential, CredentialDelayed, CredentialUnusable, KeyCredential, credential_of
from unit_agent.enrolment import EnrolmentRefused, enrol, rotate
from unit_agent.keys import ENROLMENT, KEY, NEXT, KeyFolder

UNIT, CODE = "north", "7Q0XB-3M9TD-K2V8H-Z5RNA-61CWF"


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedGateway]:
    """A gateway that knows one code."""
    monkeypatch.setattr(enrolment, "FIRST_PAUSE", 0.01)
    async with scripted_gateway() as one:
        one.codes[CODE] = None
        yield one


@pytest.fixture
async def folder(gateway: ScriptedGateway, tmp_path: Path) -> Path:
    """The data folder of an agent that has enrolled."""
    await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=tmp_path / "agent")
    return tmp_path / "agent"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_enrolling_makes_a_key_that_only_its_owner_can_read(gateway: ScriptedGateway, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    enrolled = await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=folder)
    assert (enrolled.unit_id, list(gateway.keys)) == (UNIT, [enrolled.key_id])
    assert enrolled.key_file == folder / KEY
    assert files(folder) == {KEY, ENROLMENT}
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    credential = credential_of(None, folder=folder)
    assert credential.unit() == UNIT
    assert (await credential.bearer()).startswith("token-")


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(
    gateway: ScriptedGateway, tmp_path: Path
) -> None:
    gateway.script = [502, 503, 200]
    enrolled = await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=tmp_path)
    assert (gateway.asked, list(gateway.keys)) == (["enrol"] * 3, [enrolled.key_id])


async def test_an_agent_that_died_in_the_middle_of_enrolling_ends_with_one_key(
    gateway: ScriptedGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "PATIENCE", 0.0)
    gateway.script = [502]
    with pytest.raises(EnrolmentRefused, match="network_away"):
        await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=tmp_path)
    assert files(tmp_path) == {NEXT}, "the key that may be registered by now"
    with pytest.raises(CredentialUnusable, match="enrol"):
        KeyCredential(tmp_path)
    enrolled = await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=tmp_path)
    assert list(gateway.keys) == [enrolled.key_id]


async def test_a_refused_code_says_what_to_do_and_shows_neither_code_nor_key(
    gateway: ScriptedGateway, tmp_path: Path
) -> None:
    with capture_logs() as said, pytest.raises(EnrolmentRefused) as no:
        await enrol(gateway_url=gateway.url, unit_id=UNIT, code="WRONG-CODE", folder=tmp_path)
    assert (no.value.code, no.value.status) == ("enrolment_code_not_valid", 422)
    assert "ask the network" in no.value.remedy
    assert "WRONG-CODE" not in f"{no.value!r} {said}"
    await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=tmp_path)
    other = tmp_path / "other"
    with pytest.raises(EnrolmentRefused, match="enrolment_code_used"):
        await enrol(gateway_url=gateway.url, unit_id=UNIT, code=CODE, folder=other)
    for wrong in ("NORTH", "north/../x", ""):
        with pytest.raises(EnrolmentRefused, match="unit_not_valid"):
            await enrol(gateway_url=gateway.url, unit_id=wrong, code=CODE, folder=other)


async def test_a_network_that_is_away_is_told_so_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "PATIENCE", 0.05)
    monkeypatch.setattr(enrolment, "FIRST_PAUSE", 0.01)
    with pytest.raises(EnrolmentRefused, match="network_away") as no:
        await enrol(gateway_url="http://127.0.0.1:9", unit_id=UNIT, code=CODE, folder=tmp_path)
    assert no.value.status is None
    assert "http://127.0.0.1:9" in no.value.remedy


async def test_a_token_is_used_until_it_nearly_runs_out_and_dropped_when_it_is_refused(
    gateway: ScriptedGateway, folder: Path
) -> None:
    credential = KeyCredential(folder)
    first = await credential.bearer()
    assert await credential.bearer() == first
    assert credential.refused()
    assert await credential.bearer() != first
    gateway.lifetime = timedelta(seconds=10)
    credential.refused()
    assert await credential.bearer() != await credential.bearer(), "too short for another connection"
    credential.renewed("from the link", datetime.now(UTC) + timedelta(minutes=10))
    assert await credential.bearer() == "from the link"


@pytest.mark.parametrize("ahead", [FAR_OFF, -FAR_OFF], ids=["clock behind", "clock ahead"])
async def test_a_clock_that_is_hours_off_is_corrected_by_the_network_s(
    gateway: ScriptedGateway, folder: Path, ahead: timedelta
) -> None:
    gateway.ahead = ahead
    credential = KeyCredential(folder)
    first = await credential.bearer()
    assert gateway.asked[1:] == ["token", "token"], "refused once, with the time"
    assert await credential.bearer() == first, "whether it has run out is judged by the network's clock"
    await credential.newer(datetime.now(UTC))
    assert gateway.asked[1:] == ["token"] * 3, "and never again"


@pytest.mark.parametrize("status", [502, 503, 504, 429, 404])
async def test_what_a_proxy_answers_in_the_gateway_s_place_refuses_nobody(
    gateway: ScriptedGateway, folder: Path, status: int
) -> None:
    credential = KeyCredential(folder)
    gateway.script = [status]
    with pytest.raises(CredentialDelayed) as delayed:
        await credential.bearer()
    assert delayed.value.why == f"http_{status}"
    assert await credential.bearer(), "once more, and all is well"


async def test_a_revoked_key_is_said_to_be_so_and_an_agent_that_enrols_again_while_it_runs_is_let_in(
    gateway: ScriptedGateway, folder: Path
) -> None:
    credential = KeyCredential(folder)
    gateway.refused[credential.key_id] = "key_revoked"
    with pytest.raises(CredentialUnusable, match=r"key_revoked.*enrol again"):
        await credential.bearer()
    assert not credential.has_changed()
    gateway.codes["ANOTHER"] = None
    again = await enrol(gateway_url=gateway.url, unit_id=UNIT, code="ANOTHER", folder=folder)
    assert credential.has_changed()
    assert (await credential.bearer()).endswith(again.key_id)
    assert not credential.has_changed()


async def test_a_key_is_replaced_and_a_running_agent_goes_on_with_the_new_one(
    gateway: ScriptedGateway, folder: Path
) -> None:
    credential = KeyCredential(folder)
    old = credential.key_id
    rotated = await rotate(folder)
    assert rotated.key_id != old
    assert files(folder) == {KEY, ENROLMENT}
    assert (await credential.bearer()).endswith(rotated.key_id)


async def test_an_agent_that_died_in_the_middle_of_replacing_its_key_keeps_the_old_and_goes_on_with_the_new(
    gateway: ScriptedGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = KeyCredential(folder)
    monkeypatch.setattr(enrolment, "PATIENCE", 0.0)
    gateway.script = [502]
    with pytest.raises(EnrolmentRefused, match="network_away"):
        await rotate(folder)
    assert (await credential.bearer()).endswith(credential.key_id), "the old one is good for a while"
    begun = KeyFolder(folder).next_key()
    assert begun is not None
    assert (await rotate(folder)).key_id == begun.public.key_id
    assert len(gateway.keys) == 2


async def test_a_key_that_others_may_read_or_that_is_broken_is_not_used(gateway: ScriptedGateway, folder: Path) -> None:
    (folder / KEY).chmod(0o640)
    with pytest.raises(CredentialUnusable, match="others may read"):
        KeyCredential(folder)
    (folder / KEY).chmod(0o600)
    (folder / KEY).write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(CredentialUnusable, match="cannot be used") as no:
        KeyCredential(folder)
    assert "AAAA" not in str(no.value)


async def test_the_link_is_where_the_network_says_or_at_the_gateway_s_own_host(
    gateway: ScriptedGateway, folder: Path
) -> None:
    credential = KeyCredential(folder)
    assert credential.links() == [gateway.url.replace("http", "ws") + "/unit"]
    gateway.urls = ["wss://a.example.org/unit", "wss://b.example.org/unit"]
    await credential.bearer()
    assert credential.links() == gateway.urls


async def test_nothing_secret_is_ever_logged(gateway: ScriptedGateway, folder: Path) -> None:
    structlog.reset_defaults()
    with capture_logs() as said:
        gateway.ahead = FAR_OFF
        credential = KeyCredential(folder)
        token = await credential.bearer()
        await rotate(folder)
    text = f"{said} {credential!r} {KeyFolder(folder).key()!r}"
    pem = SigningKey.read((folder / KEY).read_text()).pem().splitlines()[1]
    assert token not in text
    assert pem not in text


async def test_a_file_that_somebody_renews_gives_its_newer_token(tmp_path: Path) -> None:
    import base64
    import json

    def token(expires_in: int) -> str:
        claims = json.dumps({"unit": UNIT, "exp": int(datetime.now(UTC).timestamp()) + expires_in})
        return f"e30.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.signature"

    file = tmp_path / "token"
    file.write_text(token(60))
    credential = Credential(f"@{file}")
    assert credential.is_renewable()
    first = await credential.bearer()
    soon = datetime.now(UTC) + timedelta(seconds=60)
    assert await credential.newer(soon) is None
    file.write_text(token(3600))
    assert credential.has_changed()
    assert await credential.newer(soon) not in (None, first)
    assert not Credential(first).is_renewable()
