"""A snapshot is exact: whoever took one, and then facts, knows what whoever took every fact knows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contracts.frames import Facts, Snapshot, Welcome
from contracts.ids import partition_of
from contracts.queue import ACTIVE
from contracts.unit import UnitRegistered, UnitSettings
from infra.database import Pool, connected, pool
from tests.link.histories import Clinic
from tests.projections.logbook import PARTITIONS
from tests.projections.readside import ReadSide, read_side
from tests.ws_bridge.facts import NOON
from unit_agent import mailbox
from unit_agent.link import Link
from unit_agent.store import Store
from ws_bridge.pages import read_page
from ws_bridge.session import Session
from ws_bridge.snapshot import State, Wanted, read_state

UNIT = "north"
PARTITION = partition_of(UNIT, PARTITIONS)


@dataclass
class Centre:
    """A unit's log and read tables, and what a bridge reads of them."""

    side: ReadSide
    bridge: Pool

    async def state(self, *, epoch: int, after: int, beyond: int) -> State | None:
        async with connected(self.bridge) as connection:
            wanted = Wanted(UNIT, PARTITION, epoch, after, beyond)
            return await read_state(connection, self.side.sealer, wanted)

    async def head(self) -> int:
        return (await self.side.positions())[PARTITION]


@pytest.fixture
async def centre(postgres: str) -> AsyncIterator[Centre]:
    async with read_side(postgres) as side, pool(postgres, role="bridge", smallest=1, largest=2) as bridge:
        yield Centre(side, bridge)


@dataclass
class Agent:
    """A store, and one connection after the other to a bridge, in memory."""

    folder: Path
    epoch: int = 0
    frames: list[str] = field(default_factory=list)
    """Types of what came, in order."""

    async def connects(self, centre: Centre, *, beyond: int | None = None, cut_after: int | None = None) -> None:
        """Take all there is, or be cut off after so many frames."""
        with Store(self.folder, UNIT) as store:
            self.epoch += 1
            link = Link(UNIT, store.position, agent_version="1", window=200, snapshot_beyond=beyond)
            session = Session(UNIT)
            session.hello(link.hello().decode())
            head = await centre.head()
            session.open(epoch=self.epoch, head=head)
            welcome = Welcome(epoch=self.epoch, head=head, heartbeat_seconds=20, max_frame_bytes=1, server_time=NOON)
            link.hear(welcome.to_json(), NOON)
            left = cut_after
            async for frames in self._told(centre, session):
                for frame in frames[:left]:
                    heard = link.hear(frame, NOON)
                    assert isinstance(heard, (Facts, Snapshot))
                    self.frames.append(heard.type)
                    position = store.take([heard], head=head, now=NOON).position
                    session.hear(link.stored(position).decode())
                if left is not None:
                    left -= len(frames)
                    if left <= 0:
                        return
            assert not session.feed.is_behind
            assert store.position == session.feed.told

    async def _told(self, centre: Centre, session: Session) -> AsyncIterator[list[bytes]]:
        if session.snapshot_due:
            session.snapshot_under_way()
            state = await centre.state(epoch=self.epoch, after=session.feed.told, beyond=session.snapshot_beyond)
            if state is None:
                session.without_snapshot()
            else:
                frames = list(state)
                # What happens meanwhile waits for its turn.
                assert session.tell(session.feed.covered, session.feed.covered + 1, []) == []
                session.feed.jump(state.position)
                yield frames
        while (page := session.feed.page()) is not None:
            after, limit = page
            async with connected(centre.bridge) as connection:
                read = await read_page(connection, centre.side.sealer, PARTITION, UNIT, after, limit)
            frames = session.tell(after, read.through, read.facts)
            if not frames and read.through <= after:
                return
            yield frames

    def knows(self) -> dict[str, Any]:  # Any: rows
        """Everything its answers are made of: records, open visits, places that are not over, commands to be done."""
        with closing(sqlite3.connect(self.folder / "agent.db")) as db:
            db.row_factory = sqlite3.Row

            def rows(query: str, *values: str) -> list[dict[str, Any]]:  # Any: columns
                return [dict(row) for row in db.execute(query, values)]

            patients = rows("SELECT * FROM patients ORDER BY patient_id")
            for row in patients:
                row["contact"] = row["contact"] and json.loads(row["contact"])
            marks = ", ".join("?" * len(ACTIVE))
            return {
                "unit": rows("SELECT * FROM unit"),
                "patients": patients,
                "visits": rows(
                    "SELECT * FROM encounters WHERE status NOT IN ('finished', 'cancelled') ORDER BY encounter_id"
                ),
                "places": rows(
                    f"SELECT * FROM queue_entries WHERE status IN ({marks}) ORDER BY entry_id",  # noqa: S608
                    *sorted(ACTIVE),
                ),
                "commands": rows(
                    "SELECT unit_command_id, type, payload, deadline, attempt, state, runnable FROM unit_commands "
                    "WHERE state = 'received' ORDER BY unit_command_id"
                ),
                "position": rows("SELECT value FROM state WHERE key = 'position'"),
            }

    def applied(self) -> int:
        """Facts it has taken."""
        with closing(sqlite3.connect(self.folder / "agent.db")) as db:
            return int(db.execute("SELECT count(*) FROM facts").fetchone()[0])


@pytest.mark.parametrize("seed", range(6))
async def test_a_snapshot_and_the_facts_after_it_come_to_what_all_facts_come_to(
    centre: Centre, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    clinic = Clinic(UNIT, random)
    diligent, absent = Agent(tmp_path / "diligent"), Agent(tmp_path / "absent")
    registered = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    await centre.side.write(UNIT, registered, *clinic.lives(random.randint(1, 150)))
    await diligent.connects(centre)
    await absent.connects(centre, beyond=1_000)  # not so far behind
    assert absent.knows() == diligent.knows()
    assert set(absent.frames) == {"facts"}
    for _ in range(3):
        await centre.side.write(UNIT, *clinic.lives(random.randint(60, 200)))
        await diligent.connects(centre)
        if random.random() < 0.5:  # killed in the middle of it, and back
            await absent.connects(centre, beyond=20, cut_after=0)
        absent.frames.clear()
        await absent.connects(centre, beyond=20)
        assert absent.frames[0] == "snapshot"
        assert absent.knows() == diligent.knows()
        await centre.side.write(UNIT, *clinic.lives(random.randint(1, 15)))
        await diligent.connects(centre)
        await absent.connects(centre, beyond=20)
        assert absent.frames[-1] == "facts"
        assert absent.knows() == diligent.knows()
    assert absent.applied() < diligent.applied()


async def test_a_large_snapshot_comes_in_parts_and_one_that_breaks_off_changes_nothing(
    centre: Centre, tmp_path: Path
) -> None:
    random = Random(7)
    clinic = Clinic(UNIT, random)
    registered = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    absent, diligent = Agent(tmp_path / "absent"), Agent(tmp_path / "diligent")
    await centre.side.write(UNIT, registered, *clinic.lives(20))
    await absent.connects(centre)
    before = absent.knows()
    await centre.side.write(UNIT, *clinic.lives(6_000))
    state = await centre.state(epoch=1, after=0, beyond=10)
    assert state is not None
    parts = len(state.frames)
    assert parts > 2
    assert max(map(len, state)) <= 256 * 1024
    for cut in (1, parts - 1):
        await absent.connects(centre, beyond=10, cut_after=cut)
        assert absent.knows() == before
    await absent.connects(centre, beyond=10)
    await diligent.connects(centre)
    assert absent.knows() == diligent.knows()
    with Store(absent.folder, UNIT) as store:
        assert store.db.execute("SELECT count(*) FROM snapshot_parts").fetchone()[0] == 0


async def test_a_unit_command_that_ended_meanwhile_is_not_begun(centre: Centre, tmp_path: Path) -> None:
    random = Random(11)
    clinic = Clinic(UNIT, random)
    registered = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    absent = Agent(tmp_path / "absent")
    await centre.side.write(UNIT, registered, *clinic.lives(120))
    await absent.connects(centre)
    told = {row["unit_command_id"] for row in absent.knows()["commands"]}
    await centre.side.write(UNIT, *clinic.lives(400))
    await absent.connects(centre, beyond=10)
    still = {row["unit_command_id"] for row in absent.knows()["commands"]}
    ended = told - still
    assert ended, "the history ends some of them"
    with Store(absent.folder, UNIT) as store:
        states = {row["id"]: row["state"] for row in mailbox.listing(store.db, 10_000)}
    assert {states[one] for one in ended} == {"called_off"}


async def test_where_a_read_model_has_left_something_out_the_unit_gets_the_events(centre: Centre) -> None:
    registered = UnitRegistered(unit_id=UNIT, name="North", kind="prov", settings=UnitSettings())
    await centre.side.write(UNIT, registered, *Clinic(UNIT, Random(3)).lives(60))
    assert await centre.state(epoch=1, after=0, beyond=10) is not None
    await centre.side.admin.execute(
        "INSERT INTO projection_faults (read_model, partition, position, event_type, error_type) "
        "VALUES ('patients', %s, 3, 'patient.MrnAssigned', 'KeyError')",
        (PARTITION,),
    )
    assert await centre.state(epoch=1, after=0, beyond=10) is None


async def test_a_bridge_sees_no_rows_of_another_unit(centre: Centre) -> None:
    for unit_id in (UNIT, "south"):
        registered = UnitRegistered(unit_id=unit_id, name="A clinic", kind="prov", settings=UnitSettings())
        clinic = Clinic(unit_id, Random(3))
        await centre.side.write(unit_id, registered, *clinic.lives(60))
    async with connected(centre.bridge) as connection, connection.transaction():
        for table in ("read_patients", "read_encounters", "read_waiting_room", "read_unit_commands"):
            rows = await connection.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - a test's own
            assert await rows.fetchone() == (0,), "nothing before a unit is named"
        await connection.execute("SELECT set_config('carespine.unit', 'south', true)")
        rows = await connection.execute(b"SELECT DISTINCT unit_id FROM read_patients")
        assert await rows.fetchall() == [("south",)]
