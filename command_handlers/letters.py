"""Writing a dead letter and handing it to the broker's fallback queue, before anything else is settled.

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

from contracts.dead_letter import MESSAGE_TYPE, DeadLetter, Reason, letter_id_for
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
