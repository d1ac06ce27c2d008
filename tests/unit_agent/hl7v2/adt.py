"""ADT messages as a hospital's own system sends them, and an agent without a link to take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.envelope import Json
from unit_agent.hl7v2 import inbox
from unit_agent.link_state import LinkState, Shared
from unit_agent.store import Store

UNIT = "north"
PID = "PID|1||4711^^^SITE^MR||Nyberg^Ottoline||19800229|F|||Mill Lane 4^^Ystad^^27140^SE||+46411000000^PRN^PH"
PV1 = "PV1|1|O|INTAKE^^^||||||||||||||||V-17^^^SITE^VN"


def adt(event: str, *segments: str, control_id: str = "1", msh: str = "", version: str = "2.5") -> bytes:
    """A message; `msh` is what stands after the version."""
    header = f"MSH|^~\\&|HIS|SITE|CARESPINE|NORTH|20260302120000||ADT^{event}|{control_id}|P|{version}{msh}"
    return "\r".join([header, f"EVN|{event}|20260302120000", *segments, ""]).encode()


@contextmanager
def agent(folder: Path) -> Iterator[Shared]:
    """What an agent's parts share, on a fresh disk, its link down."""
    with Store(folder, UNIT) as store:
        inbox.prepare(store)
        yield Shared(UNIT, "0", store, LinkState(), runnable=lambda: None)


def outbox_of(shared: Shared) -> list[tuple[str, Json]]:
    """The commands that wait to go up, in their order."""
    from unit_agent import outbox

    return [(one.type, one.payload) for one in outbox.waiting(shared.store.db, after=0, limit=1000)]
