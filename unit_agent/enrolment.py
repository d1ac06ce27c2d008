"""Enrolling an agent with the network: its key is made here, its public half is registered once, with a code.

And replacing the key by another, which the present one vouches for. Where keys lie is `unit_agent.keys`'; how tokens
are got with them is `unit_agent.credential`'s.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from contracts.envelope import Json
from contracts.ids import UNIT_ID
from infra.unit_keys import SigningKey
from unit_agent.keys import Enrolment, KeyFileUnusable, KeyFolder
from unit_agent.network import Gateway, NetworkAway, NetworkRefused

PATIENCE: Final = 30.0
"""Seconds for which the network is asked again when it does not answer."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0

REMEDIES: Final = {
    "enrolment_code_not_valid": "check the unit's id and the code, or ask the network for another code",
    "enrolment_code_expired": "ask the network for another code",
    "enrolment_code_used": "ask the network for another code, and who used this one",
    "too_many_attempts": "too many codes were wrong; wait a minute, then try the right one",
    "too_many_unit_keys": "ask the network to revoke keys of this unit that are not in use",
    "unit_key_revoked": "run it once more: a new key is made",
    "unit_is_retired": "the unit has left the network",
    "unit_keys_not_served": "the network's gateway was not given its signing key; tell its operators",
    "certificate_not_this_unit": "use the client certificate that was issued for this unit",
    "key_unknown": "the network does not know this agent's key: enrol again",
    "key_revoked": "the key was revoked: ask the network for a code and enrol again",
    "key_replaced": "the key was replaced: enrol again",
    "unit_retired": "the unit has left the network",
}

Body = Callable[[float], Json]
"""What is asked, made anew for each attempt from the centre's time in seconds, as far as we know it."""

log = structlog.get_logger()


class EnrolmentRefused(Exception):
    """The network did not take this enrolment. Shows neither code nor key.

    `code` is for programs, `remedy` says what somebody has to do, `status` is HTTP's (None: no answer came).
    """

    def __init__(self, code: str, remedy: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {remedy}")
        self.code = code
        self.remedy = remedy
        self.status = status


@dataclass(frozen=True)
class Enrolled:
    """An agent that the network knows by its key."""

    unit_id: str
    key_id: str
    """Which key: the beginning of the SHA-256 of its public half, as operators see it."""
    gateway_url: str
    key_file: Path
    """The private key, readable by its owner alone; it never leaves the machine."""


async def enrol(
    *, gateway_url: str, unit_id: str, code: str, folder: Path, tls: ssl.SSLContext | None = None
) -> Enrolled:
    """Make the agent's key in `folder` and register its public half with the code. Raises EnrolmentRefused.

    Doing it again with the same code is harmless when only the answer was lost: the same key is offered again. An agent
    that is enrolled already gets another key; the one it had stays registered until somebody revokes it.
    """
    if not UNIT_ID.fullmatch(unit_id):
        raise EnrolmentRefused("unit_not_valid", "a unit's id has 1 to 40 characters: a to z, 0 to 9 and dashes")
    keys = KeyFolder(folder)
    try:
        key = keys.begin()
    except (KeyFileUnusable, OSError) as why:
        raise EnrolmentRefused("key_not_written", _about(why)) from why
    try:
        await _asked(
            Gateway(gateway_url, tls=tls),
            f"/api/units/{unit_id}/enrol",
            lambda now: {"code": code, "publicKey": key.public.text},
        )
    except EnrolmentRefused as no:
        if no.code == "unit_key_revoked":
            keys.give_up_next()
        raise
    return _adopted(keys, key, unit_id, gateway_url)


async def rotate(
    folder: Path, *, gateway_url: str | None = None, grace_seconds: int | None = None, tls: ssl.SSLContext | None = None
) -> Enrolled:
    """Replace the agent's key by a new one. Raises EnrolmentRefused.

    The replaced one stays good for `grace_seconds` (None: as long as the network allows, a day). Doing it again after a
    crash goes on with the key that was made then. A running agent uses the new one from its next connection on.
    """
    keys = KeyFolder(folder)
    try:
        old, enrolment = keys.key(), keys.enrolment()
        if old is None or enrolment is None:
            raise EnrolmentRefused("not_enrolled", "enrol with a code first")
        new = keys.begin()
    except (KeyFileUnusable, OSError) as why:
        raise EnrolmentRefused("key_not_written", _about(why)) from why
    unit_id, gateway = enrolment.unit_id, gateway_url or enrolment.gateway_url

    def signed(now: float) -> Json:
        body: Json = {
            "assertion": old.assertion(unit_id, now, other_key=new.public.key_id),
            "proof": new.assertion(unit_id, now, other_key=old.public.key_id),
            "publicKey": new.public.text,
        }
        return body if grace_seconds is None else {**body, "graceSeconds": grace_seconds}

    try:
        await _asked(Gateway(gateway, tls=tls), f"/api/units/{unit_id}/keys", signed)
    except EnrolmentRefused as no:
        if no.code == "unit_key_revoked":
            keys.give_up_next()
        raise
    return _adopted(keys, new, unit_id, gateway)


async def _asked(gateway: Gateway, path: str, body: Body) -> None:
    """Ask until there is an answer or patience is over. Raises EnrolmentRefused."""
    loop = asyncio.get_running_loop()
    end_by, pause, ahead, corrected = loop.time() + PATIENCE, FIRST_PAUSE, 0.0, False
    while True:
        try:
            await gateway.post(path, body(time.time() + ahead))
            return
        except NetworkRefused as no:
            if no.code in ("assertion_expired", "assertion_early") and no.server_time is not None and not corrected:
                ahead, corrected = datetime.fromisoformat(no.server_time).timestamp() - time.time(), True
                continue
            remedy = REMEDIES.get(no.code, f"tell the network's operators: {no.code}")
            raise EnrolmentRefused(no.code, remedy, no.status) from None
        except NetworkAway as away:
            if away.why == "http_429":
                raise EnrolmentRefused("too_many_attempts", REMEDIES["too_many_attempts"], 429) from None
            if loop.time() + pause > end_by:
                remedy = f"no answer from {gateway.url} ({away.why}): check the address and the connection, then repeat"
                raise EnrolmentRefused("network_away", remedy) from None
            log.info("enrolment_waits", reason=away.why)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _adopted(keys: KeyFolder, key: SigningKey, unit_id: str, gateway_url: str) -> Enrolled:
    key_id = key.public.key_id
    try:
        keys.adopt(Enrolment(unit_id=unit_id, key_id=key_id, gateway_url=gateway_url))
    except OSError as why:
        raise EnrolmentRefused("key_not_written", f"{_about(why)}; then run it once more with the same code") from why
    log.info("enrolled", unit_id=unit_id)
    return Enrolled(unit_id, key_id, gateway_url, keys.key_file)


def _about(why: Exception) -> str:
    return str(why) if isinstance(why, KeyFileUnusable) else f"the data folder cannot be written: {type(why).__name__}"
