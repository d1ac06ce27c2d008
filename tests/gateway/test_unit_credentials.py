"""How a unit's agent is let in: enrolled once with a code, then by what its own key signs; and how it is shut out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql

from contracts.identity import Role
from infra.tokens import mint
from infra.unit_keys import SKEW, SigningKey
from tests.gateway.conftest import Clinic, JsonObject, Network, problem
from tests.kit.waiting import eventually


@dataclass
class Machine:
    """An agent's side of it, without an agent."""

    unit_id: str
    api: httpx.AsyncClient
    key: SigningKey

    async def enrol(self, code: str) -> httpx.Response:
        """Register the key."""
        body = {"code": code, "publicKey": self.key.public.text}
        return await self.api.post(f"/api/units/{self.unit_id}/enrol", json=body)

    async def show(self, assertion: str) -> httpx.Response:
        """Ask a token for this assertion."""
        return await self.api.post(f"/api/units/{self.unit_id}/token", json={"assertion": assertion})

    async def token(self, *, behind: float = 0) -> httpx.Response:
        """Ask a token for a fresh assertion, made by a clock that is so many seconds behind."""
        return await self.show(self.key.assertion(self.unit_id, time.time() - behind))

    async def rotate(self, new: SigningKey, **changes: object) -> httpx.Response:
        """Replace the key."""
        now = time.time()
        body = {
            "assertion": self.key.assertion(self.unit_id, now, other_key=new.public.key_id),
            "proof": new.assertion(self.unit_id, now, other_key=self.key.public.key_id),
            "publicKey": new.public.text,
            **changes,
        }
        return await self.api.post(f"/api/units/{self.unit_id}/keys", json=body)


@pytest.fixture
async def machine(anyone: httpx.AsyncClient, clinic: Clinic) -> Machine:
    """A machine at the clinic that has a key, of which nobody knows yet."""
    return Machine(clinic.unit_id, anyone, SigningKey.generate())


async def new_code(clinic: Clinic, *, key: str | None = None, **body: object) -> str:
    headers = clinic.role(Role.OPS) | ({"Idempotency-Key": key} if key else {})
    answer = await clinic.api.post(f"/api/units/{clinic.unit_id}/enrolment-codes", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


async def enrolled(clinic: Clinic, machine: Machine) -> Machine:
    answer = await machine.enrol(await new_code(clinic))
    assert answer.status_code == 201, answer.text
    return machine


async def revoke(clinic: Clinic, **body: object) -> httpx.Response:
    path = f"/api/units/{clinic.unit_id}/credentials/revoke"
    return await clinic.api.post(path, json=body, headers=clinic.role(Role.OPS))


async def listed(clinic: Clinic) -> JsonObject:
    path = f"/api/units/{clinic.unit_id}/credentials"
    found: JsonObject = (await clinic.api.get(path, headers=clinic.role(Role.OPS))).json()
    return found


async def test_a_unit_that_nobody_registered_has_no_list_of_credentials(clinic: Clinic, network: Network) -> None:
    answer = await clinic.api.get("/api/units/nowhere/credentials", headers=network.caller(Role.OPS))
    problem(answer, 404, "not_found")


async def test_a_machine_enrols_with_a_code_and_gets_tokens_for_what_its_key_signs(
    clinic: Clinic, machine: Machine, network: Network
) -> None:
    answer = await machine.enrol(await new_code(clinic))
    assert answer.status_code == 201, answer.text
    assert answer.json()["keyId"] == machine.key.public.key_id
    token = await machine.token()
    assert token.status_code == 200, "the key is good as soon as the answer is there"
    claims = jwt.decode(token.json()["token"], options={"verify_signature": False})
    assert (claims["role"], claims["unit"], claims["kid"]) == ("unit", clinic.unit_id, machine.key.public.key_id)
    assert 0 < claims["exp"] - time.time() <= 600, "a short one"
    used = {"Authorization": f"Bearer {token.json()['token']}"}
    assert (await machine.api.get(f"/api/units/{clinic.unit_id}", headers=used)).status_code == 200
    problem(await machine.api.get("/api/units/elsewhere", headers=used), 403, "other_unit")


async def test_a_code_is_shown_again_to_whoever_repeats_the_request_and_to_nobody_else(
    clinic: Clinic, machine: Machine
) -> None:
    code = await new_code(clinic, key="again")
    assert await new_code(clinic, key="again") == code
    assert await new_code(clinic) != code
    everything = str(await listed(clinic))
    assert code not in everything
    assert code.replace("-", "") not in everything
    assert (await machine.enrol(code.lower().replace("-", " "))).status_code == 201, "as people type it"


async def test_only_those_who_run_units_issue_codes_see_keys_and_revoke(
    clinic: Clinic, anyone: httpx.AsyncClient
) -> None:
    for role in (Role.DOCTOR, Role.RECEPTIONIST, Role.UNIT):
        headers = clinic.role(role)
        base = f"/api/units/{clinic.unit_id}"
        problem(await anyone.post(f"{base}/enrolment-codes", json={}, headers=headers), 403, "not_allowed")
        problem(await anyone.post(f"{base}/credentials/revoke", json={}, headers=headers), 403, "not_allowed")
        problem(await anyone.get(f"{base}/credentials", headers=headers), 403, "not_allowed")
    problem(await anyone.post(f"/api/units/{clinic.unit_id}/enrolment-codes", json={}), 401, "token_missing")
    everything = {"type": "unit.IssueEnrolmentCode", "unitId": clinic.unit_id, "payload": {}}
    problem(await anyone.post("/api/commands", json=everything, headers=clinic.role(Role.OPS)), 403, "not_allowed")


async def test_a_code_is_used_once_and_the_same_machine_may_repeat_itself(clinic: Clinic, machine: Machine) -> None:
    code = await new_code(clinic)
    assert (await machine.enrol(code)).status_code == 201
    again = await machine.enrol(code)
    assert (again.status_code, again.json()["keyId"]) == (200, machine.key.public.key_id), "the answer may be lost"
    other = Machine(clinic.unit_id, machine.api, SigningKey.generate())
    problem(await other.enrol(code), 422, "enrolment_code_used")
    problem(await other.token(), 401, "key_unknown")


async def test_two_machines_that_race_for_one_code_do_not_both_get_in(clinic: Clinic, machine: Machine) -> None:
    code = await new_code(clinic)
    racing = [Machine(clinic.unit_id, machine.api, SigningKey.generate()) for _ in range(4)]
    answers = await asyncio.gather(*(one.enrol(code) for one in racing))
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422]


async def test_another_unit_s_code_and_a_made_up_one_are_worth_nothing_and_tell_nothing(
    clinic: Clinic, other_clinic: Clinic, machine: Machine
) -> None:
    foreign = await machine.enrol(await new_code(other_clinic))
    problem(foreign, 422, "enrolment_code_not_valid")
    nowhere = await Machine("no-such-unit", machine.api, machine.key).enrol("AAAAA-AAAAA-AAAAA-AAAAA-AAAAA")
    problem(nowhere, 422, "enrolment_code_not_valid")
    problem(await machine.enrol(await new_code(clinic, ttlSeconds=60) + "0"), 422, "enrolment_code_not_valid")


async def test_guessing_is_stopped_soon_and_does_not_keep_another_unit_away(
    clinic: Clinic, other_clinic: Clinic, machine: Machine
) -> None:
    answers = [await machine.enrol(f"GUESS-{number:05d}") for number in range(12)]
    assert [answer.status_code for answer in answers] == [422] * 10 + [429] * 2
    stopped = answers[-1]
    assert 1 <= int(stopped.headers["Retry-After"]) <= 60
    problem(await machine.enrol(await new_code(clinic)), 429, "too_many_attempts")
    elsewhere = Machine(other_clinic.unit_id, machine.api, SigningKey.generate())
    assert (await elsewhere.enrol(await new_code(other_clinic))).status_code == 201


@pytest.mark.parametrize("public_key", ["", "x", "A" * 43, "A" * 100, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END"])
async def test_what_is_no_key_is_told_so(clinic: Clinic, machine: Machine, public_key: str) -> None:
    body = {"code": "whatever", "publicKey": public_key}
    answer = await machine.api.post(f"/api/units/{clinic.unit_id}/enrol", json=body)
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("behind", [SKEW - 20, -(SKEW - 20)], ids=["clock behind", "clock ahead"])
async def test_a_clock_five_minutes_off_is_forgiven(clinic: Clinic, machine: Machine, behind: float) -> None:
    answer = await (await enrolled(clinic, machine)).token(behind=behind)
    assert answer.status_code == 200, answer.text


async def test_a_clock_further_off_is_told_the_time(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    for behind, code in ((SKEW + 3600, "assertion_expired"), (-(SKEW + 3600), "assertion_early")):
        told = problem(await machine.token(behind=behind), 401, code)
        theirs = time.time() - behind
        offset = time.mktime(time.strptime(told["serverTime"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - theirs
        assert abs(offset - behind) < 5
        assert (await machine.token(behind=behind - offset)).status_code == 200, "so the agent corrects itself"


async def test_an_assertion_is_good_once(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    assertion = machine.key.assertion(clinic.unit_id, time.time())
    answers = await asyncio.gather(*(machine.show(assertion) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]
    problem(await machine.show(assertion), 401, "assertion_replayed")


async def test_an_assertion_for_another_unit_by_another_key_or_of_another_kind_proves_nothing(
    clinic: Clinic, other_clinic: Clinic, machine: Machine, network: Network
) -> None:
    await enrolled(clinic, machine)
    now = time.time()
    problem(await machine.show(machine.key.assertion(other_clinic.unit_id, now)), 401, "assertion_invalid")
    problem(await machine.show(machine.key.assertion(clinic.unit_id, now, ttl=3600)), 401, "assertion_invalid")
    rotating = machine.key.assertion(clinic.unit_id, now, other_key="0" * 32)
    problem(await machine.show(rotating), 401, "assertion_invalid")
    problem(await machine.show(SigningKey.generate().assertion(clinic.unit_id, now)), 401, "key_unknown")
    headers = {"kid": machine.key.public.key_id}
    claims = jwt.decode(machine.key.assertion(clinic.unit_id, now), options={"verify_signature": False})
    foreign = jwt.encode(claims, SigningKey.generate().pem(), "EdDSA", headers)
    problem(await machine.show(foreign), 401, "assertion_invalid")
    unsigned = jwt.encode(claims, "", "none", headers)
    problem(await machine.show(unsigned), 401, "assertion_invalid")
    there = Machine(other_clinic.unit_id, machine.api, machine.key)
    problem(await there.token(), 401, "key_unknown")
    for junk in ("x", "a.b.c", "é.ü.ß", "x" * 4096):
        problem(await machine.show(junk), 401, "assertion_invalid")
    an_assertion_is_no_token = {"Authorization": f"Bearer {machine.key.assertion(clinic.unit_id, now)}"}
    problem(await machine.api.get("/api/units", headers=an_assertion_is_no_token), 401, "token_invalid")


async def test_a_key_is_replaced_and_the_old_one_is_good_until_its_time_is_over(
    clinic: Clinic, machine: Machine
) -> None:
    await enrolled(clinic, machine)
    new = SigningKey.generate()
    answer = await machine.rotate(new, graceSeconds=3600)
    assert (answer.status_code, answer.json()["keyId"]) == (200, new.public.key_id), answer.text
    assert (await machine.token()).status_code == 200
    assert (await Machine(clinic.unit_id, machine.api, new).token()).status_code == 200
    again = await machine.rotate(new, graceSeconds=3600)
    assert again.json()["replacedUntil"] == answer.json()["replacedUntil"], "the answer may be lost"


async def test_a_key_that_was_replaced_without_grace_is_good_no_more(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    assert (await machine.rotate(SigningKey.generate(), graceSeconds=0)).status_code == 200
    problem(await machine.token(), 401, "key_replaced")


async def test_nobody_replaces_a_key_without_both_keys(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    new, another = SigningKey.generate(), SigningKey.generate()
    now = time.time()
    by_another = another.assertion(clinic.unit_id, now, other_key=machine.key.public.key_id)
    problem(await machine.rotate(new, proof=by_another), 401, "assertion_invalid")
    for_another = new.assertion(clinic.unit_id, now, other_key=another.public.key_id)
    problem(await machine.rotate(new, proof=for_another), 401, "assertion_invalid")
    problem(await machine.rotate(new, assertion=machine.key.assertion(clinic.unit_id, now)), 401, "assertion_invalid")
    assert [key["keyId"] for key in (await listed(clinic))["keys"]] == [machine.key.public.key_id]


async def test_a_stolen_token_and_key_are_refused_after_a_revocation(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    stolen = {"Authorization": f"Bearer {(await machine.token()).json()['token']}"}
    plain = clinic.role(Role.UNIT)
    path = f"/api/units/{clinic.unit_id}"
    for headers in (stolen, plain):
        assert (await machine.api.get(path, headers=headers)).status_code == 200
    assert (await revoke(clinic, reason="stolen")).status_code == 200

    async def is_refused(headers: dict[str, str]) -> bool:
        return (await machine.api.get(path, headers=headers)).status_code == 401

    for headers in (stolen, plain):
        await eventually(lambda headers=headers: is_refused(headers), within=5, what="the token is refused")  # type: ignore[misc]
        problem(await machine.api.get(path, headers=headers), 401, "token_revoked")
    problem(await machine.token(), 401, "key_revoked")
    problem(await machine.rotate(SigningKey.generate()), 401, "key_revoked")
    found = await listed(clinic)
    assert found["keys"][0]["revokedBecause"] == "stolen"

    replaced = Machine(clinic.unit_id, machine.api, SigningKey.generate())
    await enrolled(clinic, replaced)
    fresh = {"Authorization": f"Bearer {(await replaced.token()).json()['token']}"}
    assert (await machine.api.get(path, headers=fresh)).status_code == 200, "enrolled anew, in the same second or not"


async def test_one_key_is_revoked_and_the_other_only_has_to_renew(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    other = await enrolled(clinic, Machine(clinic.unit_id, machine.api, SigningKey.generate()))
    assert (await revoke(clinic, keyId=machine.key.public.key_id)).status_code == 200
    problem(await revoke(clinic, keyId="0" * 32), 422, "unit_key_not_found")

    async def is_shut_out() -> bool:
        return (await machine.token()).status_code == 401

    await eventually(is_shut_out, within=5)
    assert (await other.token()).status_code == 200


async def test_a_unit_that_left_the_network_gets_no_token(clinic: Clinic, machine: Machine) -> None:
    await enrolled(clinic, machine)
    path = f"/api/units/{clinic.unit_id}/retire"
    retired = await clinic.api.post(path, json={"reason": "closed"}, headers=clinic.role(Role.OPS))
    position = {"position": retired.headers["Carespine-Position"]}
    await clinic.api.get(f"/api/units/{clinic.unit_id}", params=position, headers=clinic.role(Role.OPS))
    problem(await machine.token(), 401, "unit_retired")


async def test_no_code_token_or_private_key_is_ever_logged_or_kept(
    clinic: Clinic, machine: Machine, network: Network
) -> None:
    code = await new_code(clinic)
    await machine.enrol(code)
    assertion = machine.key.assertion(clinic.unit_id, time.time())
    token = (await machine.show(assertion)).json()["token"]
    await machine.show(assertion)
    said = "".join(one.log_text() for one in network.installed.started.values())
    async with await psycopg.AsyncConnection.connect(network.installed.postgres_url) as database:
        cursor = await database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in await cursor.fetchall():
            rows = await database.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            said += "".join(row for (row,) in await rows.fetchall())
    assert machine.key.public.text in said, "what is public is kept"
    for secret in (code, code.replace("-", ""), assertion, token, machine.key.pem().splitlines()[1]):
        assert secret not in said
    forged = mint(machine.key.pem(), role=Role.UNIT, unit=clinic.unit_id)
    problem(await machine.api.get("/api/units", headers={"Authorization": f"Bearer {forged}"}), 401, "token_invalid")
