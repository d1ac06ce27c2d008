"""Writing a dead letter; and handing it to the broker's fallback queue, before anything else is settled.

No value of a message and no exception text goes into a letter's description: only types and places in the code.
"""

from __future__ import annotations

import base64
import hashlib
import traceback
from datetime import datetime
from importlib.metadata import version
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson

from command_handlers.domain.decider import Notice
from contracts.dead_letter import MESSAGE_TYPE, OF_A_UNIT, DeadLetter, Reason, letter_id_for
from contracts.envelope import CommandEnvelope, Origin
from contracts.identity import SYSTEM
from contracts.ids import keyed_command_id
from contracts.routing import DEAD, commands_queue
from infra.broker.publisher import Publisher

LONGEST_STACK = 8_000
CODE_VERSION = version("carespine")


def describe(bug: BaseException | None) -> tuple[str | None, str | None]:
    """(type, stack as file:line function) of an exception, without any value."""
    if bug is None:
        return None, None
    frames = traceback.extract_tb(bug.__traceback__)
    lines = [f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    return type(bug).__qualname__, "\n".join(lines)[-LONGEST_STACK:]


def letter(
    body: bytes,
    *,
    command_id: UUID | None,
    command_type: str | None,
    reason: Reason,
    partition: int,
    at: datetime,
    bug: BaseException | None = None,
    stream: str | None = None,
    block_id: UUID | None = None,
    seq: int = 0,
) -> DeadLetter:
    """The letter for one message."""
    error_type, stack = describe(bug)
    message, is_base64 = as_text(body)
    place = stack.rsplit("\n", 1)[-1] if stack else ""
    return DeadLetter(
        letter_id=letter_id_for(command_id) if command_id else undecodable_id(body),
        reason=reason,
        error_type=error_type,
        error_stack=stack,
        fingerprint=fingerprint(reason, error_type, command_type, place),
        origin=commands_queue(partition),
        code_version=CODE_VERSION,
        failed_at=at,
        partition=partition,
        stream=stream,
        block_id=block_id,
        seq=seq,
        message=message,
        base64=is_base64,
    )


def notice_letter(notice: Notice, *, cause: CommandEnvelope, partition: int, at: datetime) -> DeadLetter:
    """The letter for a unit command that ended otherwise than asked; its message is the command that tries again."""
    type_name = notice.again.type_name()
    again = CommandEnvelope(
        command_id=keyed_command_id("desk", cause.unit_id, str(notice.id)),
        type=type_name,
        type_version=notice.again.version,
        unit_id=cause.unit_id,
        payload=notice.again.to_dict(),
        actor=SYSTEM,
        issued_at=at,
        request_hash=f"notice:{notice.id}",
        origin=Origin.PROCESS,
        correlation_id=cause.correlation_id,
        causation_id=cause.command_id,
    )
    return DeadLetter(
        letter_id=letter_id_for(notice.id),
        reason=notice.reason,
        error_type=notice.about,
        fingerprint=fingerprint(notice.reason, notice.about),
        origin=OF_A_UNIT,
        code_version=CODE_VERSION,
        failed_at=at,
        partition=partition,
        stream=notice.stream,
        message=again.to_json().decode(),
        resolution=notice.resolution,
    )


def as_text(body: bytes) -> tuple[str, bool]:
    """(text, whether it is base64) of a message of any bytes."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


def undecodable_id(body: bytes) -> UUID:
    """The letter id of a message nobody can read: the same bytes have one letter, and sent again they keep it."""
    try:
        return UUID(orjson.loads(body)["replay"]["letterId"])
    except (orjson.JSONDecodeError, AttributeError, LookupError, TypeError, ValueError):
        return uuid5(NAMESPACE_OID, "carespine.message:" + hashlib.sha256(body).hexdigest())


def fingerprint(*parts: str | None) -> str:
    """Eight characters that are equal for equal causes."""
    return hashlib.sha256("\x1f".join(part or "" for part in parts).encode()).hexdigest()[:8]


async def hand_over(publisher: Publisher, dead: DeadLetter) -> None:
    """Have the broker keep the letter; raises `BrokerUnavailable` when it does not confirm."""
    await publisher.publish(
        DEAD,
        f"commands.{dead.reason.value}",
        dead.to_json(),
        message_id=str(dead.letter_id),
        type=MESSAGE_TYPE,
    )


def _module(filename: str) -> str:
    parts = filename.replace("\\", "/").split("/")
    return "/".join(parts[-2:])
