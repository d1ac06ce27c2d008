"""Commands made at units: checked, put into envelopes, safe with the broker before the unit hears `accepted`.

One at a time and in order per link: what comes after a command that could not be taken waits until that one has come
again. How commands ended is read from their receipts when the unit asks.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pydantic import ValidationError

from contracts import routing
from contracts.catalogue import UnknownWord, command_named
from contracts.envelope import CommandEnvelope, Origin, Outcome
from contracts.frames import Accepted, Ask, Outcomes, Refused, Retry, Submit
from contracts.identity import Actor, Role
from contracts.ids import is_command_id, partition_of
from contracts.model import Command
from contracts.text import holds_nul
from infra.broker.errors import BrokerUnavailable, Unroutable
from infra.broker.publisher import Publisher
from infra.database import DatabaseUnavailable, Pool, connected
from infra.telemetry.metrics import Metrics
from ws_bridge.link import Link

CONFIRM_TIMEOUT: Final = 5.0
RETRY_SECONDS: Final = 2.0

_RECEIPTS: Final = """
SELECT command_id, type, unit_id, status, code, detail, about, result, partition, position, dead_letter_id
FROM command_receipts WHERE command_id = ANY(%s) AND unit_id = %s
"""


class Declined(Exception):
    """This can never be taken as it is. `detail` names fields, never their values."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class Submissions:
    """What units send up."""

    def __init__(self, publisher: Publisher, pool: Pool, metrics: Metrics, *, partitions: int) -> None:
        self._publisher = publisher
        self._pool = pool
        self._metrics = metrics
        self._partitions = partitions

    async def take(self, link: Link, submit: Submit) -> None:
        """Take one command and answer it; returns when the next may come."""
        session = link.session
        if not session.in_turn(submit):
            link.say(Retry(epoch=link.epoch, command_id=submit.command_id, after_seconds=RETRY_SECONDS).to_json())
            return
        try:
            command = checked(submit)
            await self._publish(self._envelope(link.unit_id, submit, command))
        except Declined as why:
            session.taken()
            refused = Refused(epoch=link.epoch, command_id=submit.command_id, code=why.code, detail=why.detail)
            link.say(refused.to_json())
        except (BrokerUnavailable, Unroutable):  # unroutable: the partition's queue is declared again soon
            session.hold_back(submit)
            link.say(Retry(epoch=link.epoch, command_id=submit.command_id, after_seconds=RETRY_SECONDS).to_json())
        else:
            session.taken()
            self._metrics.commands_accepted.labels(command.context, command.type_name()).inc()
            link.say(Accepted(epoch=link.epoch, command_id=submit.command_id).to_json())

    async def tell(self, link: Link, ask: Ask) -> None:
        """Answer with the outcomes there are; while the database is away there are none."""
        try:
            async with connected(self._pool) as connection:
                cursor = await connection.execute(_RECEIPTS, (ask.command_ids, link.unit_id))
                outcomes = [
                    Outcome(
                        command_id=command_id,
                        type=type_name,
                        unit_id=unit_id,
                        status=status,
                        code=code,
                        detail=detail,
                        about=about,
                        result=result,
                        partition=partition,
                        position=position,
                        dead_letter_id=dead_letter_id,
                    )
                    for (
                        command_id,
                        type_name,
                        unit_id,
                        status,
                        code,
                        detail,
                        about,
                        result,
                        partition,
                        position,
                        dead_letter_id,
                    ) in await cursor.fetchall()
                ]
        except DatabaseUnavailable:
            return
        link.say(Outcomes(epoch=link.epoch, outcomes=outcomes).to_json())

    def _envelope(self, unit_id: str, submit: Submit, command: Command) -> CommandEnvelope:
        payload = command.to_dict()
        return CommandEnvelope(
            command_id=submit.command_id,
            type=command.type_name(),
            type_version=command.version,
            unit_id=unit_id,
            payload=payload,
            actor=Actor(subject=submit.subject, role=Role.UNIT, unit=unit_id),
            issued_at=submit.issued_at,
            request_hash=request_hash(command.type_name(), payload),
            origin=Origin.UNIT,
            correlation_id=str(submit.command_id),
        )

    async def _publish(self, envelope: CommandEnvelope) -> None:
        partition = partition_of(envelope.unit_id, self._partitions)
        await self._publisher.publish(
            routing.COMMANDS,
            routing.command_key(envelope.unit_id, partition, envelope.type),
            envelope.to_json(),
            message_id=str(envelope.command_id),
            deadline=CONFIRM_TIMEOUT,
            type=envelope.type,
        )


def checked(submit: Submit) -> Command:
    """The command a unit sends up. Raises Declined."""
    if not is_command_id(submit.command_id):
        raise Declined("command_id_invalid", "The id's last three bytes are not its checksum; see the protocol's page.")
    if holds_nul(submit.payload) or holds_nul(submit.subject):
        raise Declined("content_invalid", "No text may hold the character U+0000.")
    try:
        word = command_named(submit.command)
    except UnknownWord:
        raise Declined("command_unknown", "This release knows no such command.") from None
    if Role.UNIT not in word.may:
        raise Declined("not_allowed", "Units do not make this command.")
    try:
        return word.model_validate(submit.payload)
    except ValidationError as wrong:
        fields = sorted({".".join(str(part) for part in error["loc"]) or "payload" for error in wrong.errors()})
        raise Declined("content_invalid", ("Not valid: " + ", ".join(fields))[:300]) from None


def request_hash(type_name: str, payload: dict[str, object]) -> str:
    """The same for the same command, however often it is sent."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{type_name}\n{canonical}".encode()).hexdigest()
