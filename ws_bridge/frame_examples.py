"""One example of every frame of the unit link, for its document. Nobody in them exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from contracts import frames
from contracts.envelope import Fact, Outcome, Status
from contracts.model import Model
from contracts.queue import PatientCalled

_MORNING: Final = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
_COMMAND: Final = UUID("01996a2e-3c40-7a51-8b1e-5d2f7ce71119")
_CALL: Final = UUID("01996a2e-3c41-7f02-9a6d-1c0b5e7d8f22")
_ENTRY: Final = UUID("01996a2e-3c42-7c13-8d5c-2b1a4f6e7d33")
_PATIENT: Final = UUID("01996a2e-3c43-7d24-9e4b-3a29605f6c44")
_TOKEN: Final = "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl"  # noqa: S105 - an example

_CALLED: Final = Fact(
    position=1042,
    type=PatientCalled.type_name(),
    version=1,
    stream="queue-north.intake.2026-03-02",
    stream_version=17,
    command_id=_COMMAND,
    occurred_at=_MORNING,
    recorded_at=_MORNING,
    payload={
        "department": "intake",
        "serviceDay": "2026-03-02",
        "entryId": str(_ENTRY),
        "patientId": str(_PATIENT),
        "ticket": 17,
        "counter": "Room 3",
    },
)
_PLACE: Final = {
    "entryId": str(_ENTRY),
    "department": "intake",
    "serviceDay": "2026-03-02",
    "patientId": str(_PATIENT),
    "ticket": 17,
    "status": "called",
}

_ALL: Final[Sequence[Model]] = (
    frames.Hello(unit_id="north", position=1040, agent_version="1.0.0", instance=_CALL, snapshot_beyond=50_000),
    frames.Ack(epoch=7, position=1042),
    frames.Submit(
        epoch=7,
        command_id=_COMMAND,
        command="queue.CallNext",
        payload={"department": "intake", "counter": "Room 3"},
        issued_at=_MORNING,
        subject="desk-1",
    ),
    frames.Answer(epoch=7, call_id=_CALL, ok=True, body={"position": 1042}),
    frames.Ask(epoch=7, command_ids=[_COMMAND]),
    frames.Renew(epoch=7, assertion=_TOKEN),
    frames.Ping(),
    frames.Pong(),
    frames.Welcome(
        epoch=7,
        head=1042,
        heartbeat_seconds=20,
        max_frame_bytes=frames.MAX_FRAME_BYTES,
        server_time=_MORNING,
        credential_expires_at=_MORNING + timedelta(minutes=10),
    ),
    frames.Facts(epoch=7, after=1040, through=1042, facts=[_CALLED]),
    frames.Snapshot(
        epoch=7,
        position=1042,
        part=0,
        last=True,
        records=[frames.SnapshotRecord(kind="queue_entry", body=_PLACE)],
    ),
    frames.Check(epoch=7, position=1042),
    frames.Renewed(epoch=7, expires_at=_MORNING + timedelta(minutes=20), token=_TOKEN),
    frames.Accepted(epoch=7, command_id=_COMMAND),
    frames.Refused(epoch=7, command_id=_COMMAND, code="not_allowed", detail="A unit does not give this command."),
    frames.Retry(epoch=7, command_id=_COMMAND, after_seconds=2),
    frames.Outcomes(
        epoch=7,
        outcomes=[
            Outcome(
                command_id=_COMMAND,
                type="queue.CallNext",
                unit_id="north",
                status=Status.ACCEPTED,
                result={"entryId": str(_ENTRY), "ticket": 17},
                partition=3,
                position=1042,
            )
        ],
    ),
    frames.Call(
        epoch=7,
        call_id=_CALL,
        name="waiting-room",
        body={"department": "intake"},
        deadline=_MORNING + timedelta(seconds=5),
    ),
    frames.Bye(code=int(frames.CloseCode.GOING_AWAY), reason="the bridge is leaving", retry_after_seconds=2.5),
)

EXAMPLES: Final[Mapping[type[Model], Model]] = {type(frame): frame for frame in _ALL}
"""By class of frame."""
