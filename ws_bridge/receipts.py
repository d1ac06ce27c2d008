"""Which unit commands a unit has on its disk: the witness for `received` in a command's status.

An acknowledgement says through where the feed is safe; here is kept which commands lay in what was sent, so that the
moment of each is known and not only that it has passed. Written together with acknowledgements (`UnitSessions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from contracts.unit_command import UnitCommandQueued, UnitCommandRetried
from infra.database import Connection, plain_array
from ws_bridge.session import Tellable

_QUEUED: Final = UnitCommandQueued.type_name()
_RETRIED: Final = UnitCommandRetried.type_name()

_WRITE: Final = """
INSERT INTO unit_command_deliveries (unit_id, unit_command_id, attempt, epoch, sent_at, received_at)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::int[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""


class _Sent(NamedTuple):
    position: int
    unit_command_id: str
    attempt: int
    at: datetime


class _Received(NamedTuple):
    """A row of the table."""

    unit_id: str
    unit_command_id: str
    attempt: int
    epoch: int
    sent_at: datetime
    received_at: datetime


class OnTheirWay:
    """One link's unit commands that were sent and not acknowledged yet."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: list[_Sent] = []  # a deque costs ten times as much where it is empty, as with most of ten thousand

    def sent(self, facts: Sequence[Tellable], *, after: int, through: int, at: datetime) -> None:
        """Of these facts, those in (after, through] have been sent."""
        for fact in facts:
            if fact.type in (_QUEUED, _RETRIED) and after < fact.position <= through:
                told = fact.payload
                attempt = told["attempt"] if fact.type == _RETRIED else 1
                self._sent.append(_Sent(fact.position, told["unitCommandId"], attempt, at))

    def arrived(self, acked: int) -> list[_Sent]:
        """Those that are on the unit's disk now and were not before."""
        if not self._sent or self._sent[0].position > acked:
            return []
        found = [one for one in self._sent if one.position <= acked]
        del self._sent[: len(found)]
        return found


class Receipts:
    """What units have acknowledged of their commands and is still to be written."""

    def __init__(self) -> None:
        self._received: list[_Received] = []

    def note(self, unit_id: str, epoch: int, arrived: Sequence[_Sent], at: datetime) -> None:
        """These are on the unit's disk; written soon."""
        self._received += [_Received(unit_id, one.unit_command_id, one.attempt, epoch, one.at, at) for one in arrived]

    async def write(self, connection: Connection) -> None:
        """Write what there is; what was noted meanwhile stays for the next time, and all of it where this fails."""
        rows = list(self._received)
        if rows:
            await connection.execute(_WRITE, [plain_array(column) for column in zip(*rows, strict=True)])
            del self._received[: len(rows)]
