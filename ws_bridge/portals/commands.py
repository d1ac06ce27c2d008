"""Commands that portals give: the same rules, the same envelope and the same answers as over HTTP.

`queue-update` and `patient-status-update` name an action as the HTTP path does; the payload is the command's own
fields. The answer is the outcome; while it is not known, `pending` first.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

import orjson
from pydantic import ValidationError

from contracts import encounter, ids, patient, queue, routing
from contracts.envelope import CommandEnvelope, Json, Outcome
from contracts.model import Command
from contracts.portal import OutcomeOf, PatientStatusUpdate, QueueUpdate
from contracts.text import holds_nul
from infra.broker.errors import BrokerUnavailable, ReplyLost, Unroutable
from infra.broker.publisher import Publisher
from infra.broker.replies import ReplyBox
from infra.telemetry.metrics import Metrics
from ws_bridge.portals.session import PortalSession

CONFIRM_TIMEOUT: Final = 5.0
WAIT_SECONDS: Final = 5.0
"""After that the portal is told that the outcome is not known yet."""
WAIT_LONGEST: Final = 30.0
AT_ONCE: Final = 8
"""Commands of one portal under way."""
RETRY_SECONDS: Final = 2.0

Update = PatientStatusUpdate | QueueUpdate

QUEUE_ACTIONS: Final[Mapping[str, type[Command]]] = {
    "call-next": queue.CallNext,
    "recall": queue.Recall,
    "start": queue.StartService,
    "complete": queue.CompleteService,
    "no-show": queue.MarkNoShow,
    "requeue": queue.Requeue,
    "priority": queue.ChangePriority,
    "leave": queue.Leave,
    "transfer": queue.TransferEntry,
}
PATIENT_ACTIONS: Final[Mapping[str, type[Command]]] = {
    "triage": encounter.Triage,
    "location": encounter.AssignLocation,
    "start": encounter.StartConsultation,
    "discharge": encounter.Discharge,
    "cancel": encounter.CancelVisit,
    "deactivate": patient.DeactivatePatient,
    "reactivate": patient.ReactivatePatient,
    "deceased": patient.MarkDeceased,
}
FILLED: Final[Mapping[type[Command], tuple[str, str]]] = {queue.TransferEntry: ("newEntryId", "entry")}
"""Fields that are not the caller's to give: id of what, by which purpose."""


class Declined(Exception):
    """This is not taken as it is. `detail` names fields, never their values."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class PortalCommands:
    """Takes updates in."""

    def __init__(
        self,
        publisher: Publisher,
        replies: ReplyBox,
        metrics: Metrics,
        *,
        partitions: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._publisher = publisher
        self._replies = replies
        self._metrics = metrics
        self._partitions = partitions
        self._clock = clock

    async def take(self, session: PortalSession, update: Update) -> None:
        """Take one update in and answer it; returns when there is no more to say."""
        try:
            envelope = self._envelope(session, update)
            await self._submitted(session, update, envelope)
        except Declined as why:
            session.decline(why.code, why.detail, request_id=update.request_id)
        except (BrokerUnavailable, Unroutable):
            session.decline(
                "broker_unavailable",
                "Nothing is known to have come of it; repeat it with its key.",
                request_id=update.request_id,
                retry_after=RETRY_SECONDS,
            )

    async def _submitted(self, session: PortalSession, update: Update, envelope: CommandEnvelope) -> None:
        if self._replies.queue is None:
            await self._publish(envelope)
            session.say(_pending(update, envelope.command_id))
            return
        with self._replies.expect(str(envelope.command_id)) as answer:
            await self._publish(envelope.model_copy(update={"reply_to": self._replies.queue}))
            for seconds in (WAIT_SECONDS, WAIT_LONGEST - WAIT_SECONDS):
                try:
                    async with asyncio.timeout(seconds):
                        outcome = Outcome.model_validate_json(await asyncio.shield(answer))
                except TimeoutError:
                    if seconds == WAIT_SECONDS:
                        session.say(_pending(update, envelope.command_id))
                except ReplyLost:
                    session.say(_pending(update, envelope.command_id))
                    return
                else:
                    session.say(_told(update, outcome))
                    return

    def _envelope(self, session: PortalSession, update: Update) -> CommandEnvelope:
        actions = QUEUE_ACTIONS if isinstance(update, QueueUpdate) else PATIENT_ACTIONS
        word = actions.get(update.action)
        if word is None:
            raise Declined("command_unknown", f"The actions of {update.type}: {', '.join(sorted(actions))}.")
        actor = session.actor
        if actor.role not in word.may:
            allowed = ", ".join(sorted(role.value for role in word.may))
            raise Declined("not_allowed", f"The role {actor.role.value} may not do that; allowed: {allowed}.")
        if holds_nul(update.payload):
            raise Declined("content_invalid", "No text may hold the character U+0000.")
        now = self._clock()
        if update.idempotency_key is None:
            command_id = ids.fresh_command_id(now, os.urandom(10))
        else:
            command_id = ids.keyed_command_id(actor.subject, session.unit_id, update.idempotency_key)
        payload = _checked(word, update.payload, command_id, now).to_dict()
        return CommandEnvelope(
            command_id=command_id,
            type=word.type_name(),
            type_version=word.version,
            unit_id=session.unit_id,
            payload=payload,
            actor=actor,
            issued_at=now,
            request_hash=_request_hash(update),
            correlation_id=uuid4().hex,
        )

    async def _publish(self, envelope: CommandEnvelope) -> None:
        partition = ids.partition_of(envelope.unit_id, self._partitions)
        await self._publisher.publish(
            routing.COMMANDS,
            routing.command_key(envelope.unit_id, partition, envelope.type),
            envelope.to_json(),
            message_id=str(envelope.command_id),
            deadline=CONFIRM_TIMEOUT,
            reply_to=envelope.reply_to,
            type=envelope.type,
        )
        self._metrics.commands_accepted.labels(envelope.type.partition(".")[0], envelope.type).inc()


def _checked(word: type[Command], payload: Json, command_id: UUID, now: datetime) -> Command:
    """The command asked for. Raises Declined."""
    filled = FILLED.get(word)
    if filled is not None:
        name, purpose = filled
        if name in payload:
            raise Declined("content_invalid", f"Not valid: {name}")
        payload = {**payload, name: ids.derived(command_id, purpose, now)}
    try:
        return word.model_validate(payload)
    except ValidationError as wrong:
        known = {"payload", *(info.alias for info in word.model_fields.values())}
        fields = sorted({str(error["loc"][0]) if error["loc"] else "payload" for error in wrong.errors()} & known)
        raise Declined("content_invalid", "Not valid: " + ", ".join(map(str, fields or ["(unknown)"]))) from None


def _request_hash(update: Update) -> str:
    """The same for the same request, however often it is sent."""
    body = orjson.dumps([update.type, update.action, update.payload], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()


def _pending(update: Update, command_id: UUID) -> OutcomeOf:
    return OutcomeOf(request_id=update.request_id, command_id=command_id, status="pending")


def _told(update: Update, outcome: Outcome) -> OutcomeOf:
    return OutcomeOf(
        request_id=update.request_id,
        command_id=outcome.command_id,
        status="unchanged" if outcome.repeated and outcome.status == "accepted" else outcome.status.value,
        code=outcome.code,
        detail=outcome.detail,
        about=outcome.about,
        result=outcome.result,
        position=outcome.position,
    )
