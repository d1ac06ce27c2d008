"""The read side without its process: a log to write to, turns to take, questions to ask, and what was published."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import psycopg

from contracts.envelope import FeedBatch
from contracts.model import Event
from contracts.routing import EVENTS, feed_key
from infra.broker.errors import BrokerUnavailable
from infra.broker.publisher import Publisher
from infra.database import Connection, Pool, connected, pool
from infra.master_keys import MasterKey
from infra.sealing import Sealer
from infra.telemetry.metrics import Metrics
from projections.applying import Applying
from projections.batch import Reactions
from projections.catalogue import READ_MODELS
from projections.feed import Feed
from projections.read_model import ReadModel
from projections.runner import Runner
from tests.projections.logbook import MASTER_KEY, PARTITIONS, Logbook


class Overheard(Publisher):
    """A publisher without a broker: keeps what was published, or says that there is no broker."""

    def __init__(self) -> None:
        super().__init__("amqp://nowhere", name="overheard")
        self.batches: list[FeedBatch] = []
        self.hear: Callable[[FeedBatch], None] = self.batches.append
        self.away = False

    def publish_nowait(self, exchange: str, routing_key: str, body: bytes, **properties: object) -> None:
        if self.away:
            raise BrokerUnavailable("not_connected")
        batch = FeedBatch.model_validate_json(body)
        assert (exchange, routing_key) == (EVENTS, feed_key(batch.unit_id))
        assert batch.to_json() == body, "the hand-made JSON is the model's"
        self.hear(batch)

    def of(self, unit_id: str) -> list[FeedBatch]:
        """What was published for a unit."""
        return [batch for batch in self.batches if batch.unit_id == unit_id]


@dataclass
class ReadSide:
    """Everything a test of the read side touches."""

    url: str
    log: Logbook
    admin: Connection
    """As the database's owner: sees everything."""
    pool: Pool
    gateway: Pool
    sealer: Sealer
    heard: Overheard
    metrics: Metrics = field(default_factory=Metrics)
    models: tuple[ReadModel, ...] = READ_MODELS

    def runner(self, owned: Mapping[int, int] | None = None, *, limit: int = 500, feed: Feed | None = None) -> Runner:
        """A runner that owns these partitions (all of them at epoch 0 if not said otherwise)."""
        mine = dict.fromkeys(range(PARTITIONS), 0) if owned is None else owned
        return Runner(
            pool=self.pool,
            applying=Applying(self.sealer, Reactions(self.models)),
            feed=feed or Feed(self.heard, self.metrics),
            metrics=self.metrics,
            owned=lambda: mine,
            limit=limit,
        )

    async def write(self, unit_id: str, *facts: Event) -> tuple[int, int]:
        """Facts into the log, and on into the read tables; partition and position of the last one."""
        place = await self.log.write(unit_id, *facts)
        await self.catch_up()
        return place

    async def catch_up(self, runner: Runner | None = None) -> None:
        """Take turns until nothing is new."""
        runner = runner or self.runner()
        async with connected(self.pool) as connection:
            while await runner.turn(connection):
                pass

    @asynccontextmanager
    async def asking(self, unit: str = "*") -> AsyncIterator[Connection]:
        """A connection as the gateway has it while it answers a caller of this unit."""
        async with connected(self.gateway) as connection, connection.transaction():
            await connection.execute("SELECT set_config('carespine.unit', %s, true)", (unit,))
            yield connection

    async def count(self, table: str) -> int:
        """Rows of a table."""
        cursor = await self.admin.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - a test's own
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def positions(self) -> dict[int, int]:
        """The checkpoints that have moved."""
        cursor = await self.admin.execute("SELECT partition, position FROM projection_checkpoints WHERE position > 0")
        return dict(await cursor.fetchall())


@asynccontextmanager
async def read_side(url: str) -> AsyncIterator[ReadSide]:
    """A read side on a fresh database."""
    async with AsyncExitStack() as closing:
        admin: Connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        closing.push_async_callback(admin.close)
        ours = pool(url, role="projections", smallest=1, largest=3)
        gateway = pool(url, role="gateway", smallest=1, largest=3)
        await closing.enter_async_context(ours)
        await closing.enter_async_context(gateway)
        yield ReadSide(
            url=url,
            log=Logbook(admin),
            admin=admin,
            pool=ours,
            gateway=gateway,
            sealer=Sealer(MasterKey(MASTER_KEY)),
            heard=Overheard(),
        )
