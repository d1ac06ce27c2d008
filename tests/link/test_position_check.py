"""On quiet links both ends are compared with the log now and then, whatever pushes and sweeps have missed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from contracts.frames import Check, Facts, Hello, Welcome
from contracts.identity import Role
from contracts.ids import partition_of
from infra.database import Pool, pool
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims
from tests.projections.facts import patient, unit
from tests.projections.logbook import PARTITIONS
from tests.projections.readside import ReadSide, read_side
from tests.ws_bridge.facts import NOON, fact
from unit_agent.link import Link as AgentLink
from unit_agent.link import LinkBroken
from ws_bridge.admission import Visitor
from ws_bridge.link import Link
from ws_bridge.links import Links
from ws_bridge.position_check import PositionCheck

UNIT = "north"


class Overheard(Link):
    """A link without a socket: keeps what is said."""

    def __init__(self, unit_id: str, position: int, *, head: int) -> None:
        now = int(time.time())
        claims = Claims.model_validate(
            {
                "sub": f"unit:{unit_id}",
                "role": Role.UNIT,
                "unit": unit_id,
                "jti": "1",
                "iat": now,
                "nbf": now,
                "exp": now + 60,
            }
        )
        super().__init__(cast(Visitor, None), claims, Metrics(), time.monotonic)
        self.said: list[bytes] = []
        self.session.hello(Hello(unit_id=unit_id, position=position, agent_version="1").to_json().decode())
        self.open(epoch=1, partition=partition_of(unit_id, PARTITIONS), head=head, speaks_until=time.monotonic() + 600)

    def say(self, frame: bytes) -> None:
        self.said.append(frame)

    def _waiting(self) -> int:
        return 0


@dataclass
class Bridge:
    side: ReadSide
    database: Pool
    links: Links = field(default_factory=Links)
    behind: list[str] = field(default_factory=list)

    async def looks(self) -> None:
        check = PositionCheck(self.database, self.links, lambda link: self.behind.append(link.unit_id))
        await check.look(list(self.links))

    def holds(self, link: Overheard) -> Overheard:
        self.links.hold(link)
        return link


@pytest.fixture
async def bridge(postgres: str) -> AsyncIterator[Bridge]:
    async with read_side(postgres) as side, pool(postgres, role="bridge", smallest=1, largest=1) as database:
        yield Bridge(side, database)


async def test_a_unit_that_was_told_everything_is_asked_whether_it_has_it(bridge: Bridge) -> None:
    _, head = await bridge.side.write(UNIT, unit(UNIT), patient("Zoraida", "Quillfeather"))
    link = bridge.holds(Overheard(UNIT, head, head=head))
    await bridge.looks()
    assert [Check.model_validate_json(one).position for one in link.said] == [head]
    assert not bridge.behind


async def test_what_neither_push_nor_sweep_has_brought_is_found(bridge: Bridge) -> None:
    _, head = await bridge.side.write(UNIT, unit(UNIT))
    link = bridge.holds(Overheard(UNIT, head, head=head))
    await bridge.side.write(UNIT, patient("Zoraida", "Quillfeather"))
    assert not link.wants_page()
    await bridge.looks()
    assert bridge.behind == [UNIT]
    assert link.wants_page()
    assert not link.said


async def test_what_is_not_visible_yet_is_not_missed(bridge: Bridge) -> None:
    _, head = await bridge.side.write(UNIT, unit(UNIT))
    link = bridge.holds(Overheard(UNIT, head, head=head))
    await bridge.side.log.write(UNIT, patient("Zoraida", "Quillfeather"))
    await bridge.looks()
    assert not bridge.behind
    assert len(link.said) == 1


async def test_a_link_on_which_facts_are_under_way_is_left_alone(bridge: Bridge) -> None:
    _, head = await bridge.side.write(UNIT, unit(UNIT))
    link = bridge.holds(Overheard(UNIT, 0, head=head))
    link.deliver(0, head, [fact(head)])
    link.said.clear()
    await bridge.looks()
    assert not link.said
    assert not bridge.behind


def open_agent(position: int) -> AgentLink:
    link = AgentLink(UNIT, position, agent_version="1")
    welcome = Welcome(epoch=3, head=position, heartbeat_seconds=20, max_frame_bytes=1, server_time=NOON)
    link.hear(welcome.to_json(), NOON)
    return link


def test_an_agent_that_is_where_the_centre_is_stays() -> None:
    link = open_agent(4)
    assert isinstance(link.hear(Check(epoch=3, position=4).to_json(), NOON), Check)
    link.hear(Facts(epoch=3, after=4, through=9, facts=[fact(9)]).to_json(), NOON)
    assert isinstance(link.hear(Check(epoch=3, position=9).to_json(), NOON), Check)


@pytest.mark.parametrize("position", [3, 5])
def test_an_agent_that_is_somewhere_else_leaves_and_comes_back(position: int) -> None:
    with pytest.raises(LinkBroken, match="not_where_the_centre_is"):
        open_agent(4).hear(Check(epoch=3, position=position).to_json(), NOON)
