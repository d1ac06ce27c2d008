"""How far the read side is: checkpoints against the log's heads, who owns what, which facts could not be applied."""

from __future__ import annotations

from pydantic import AwareDatetime
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    select,
)

from contracts.model import Model
from projections.questions import Connection, Number, Question

_elsewhere = MetaData()
"""Not read tables: `projections.read_model.metadata` is what a rebuild may empty."""

heads = Table("log_partitions", _elsewhere, Column("partition", Integer), Column("head", BigInteger))
checkpoints = Table(
    "projection_checkpoints",
    _elsewhere,
    Column("partition", Integer),
    Column("position", BigInteger),
    Column("epoch", BigInteger),
    Column("projected_at", TIMESTAMP(timezone=True)),
)
leases = Table(
    "leases",
    _elsewhere,
    Column("role", Text),
    Column("partition", Integer),
    Column("owner", Text),
    Column("expires_at", TIMESTAMP(timezone=True)),
)
faults = Table(
    "projection_faults",
    _elsewhere,
    Column("read_model", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("found_at", TIMESTAMP(timezone=True), nullable=False),
)


class PartitionProgress(Model):
    """How far the read models are behind one partition of the log."""

    partition: int
    head: int
    position: int
    lag_events: int
    projected_at: AwareDatetime
    """When the last batch became visible."""
    owner: str | None
    """The process whose lease is in force; None: nobody projects this partition right now."""


class Fault(Model):
    """A fact that a read model could not apply: it was left out there. A rebuild of the read model tries again."""

    read_model: str
    partition: int
    position: int
    event_type: str
    error_type: str
    found_at: AwareDatetime


_PARTITIONS = Question(
    select(
        checkpoints.c.partition,
        heads.c.head,
        checkpoints.c.position,
        (heads.c.head - checkpoints.c.position).label("lag_events"),
        checkpoints.c.projected_at,
        case((leases.c.expires_at > func.now(), leases.c.owner)).label("owner"),
    )
    .select_from(
        checkpoints.join(heads, heads.c.partition == checkpoints.c.partition).outerjoin(
            leases, and_(leases.c.role == "projections", leases.c.partition == checkpoints.c.partition)
        )
    )
    .order_by(checkpoints.c.partition),
    PartitionProgress,
)
_FAULTS = Question(
    select(*(faults.c[name] for name in Fault.model_fields))
    .order_by(faults.c.found_at.desc(), faults.c.read_model, faults.c.partition, faults.c.position)
    .limit(bindparam("limit")),
    Fault,
)
_POSITION = Number(select(checkpoints.c.position).where(checkpoints.c.partition == bindparam("partition")))


async def partitions(connection: Connection) -> list[PartitionProgress]:
    """Every partition, in order."""
    return await _PARTITIONS.all(connection)


async def latest_faults(connection: Connection, *, limit: int = 100) -> list[Fault]:
    """Facts that could not be applied, the latest first."""
    return await _FAULTS.all(connection, limit=limit)


async def position(connection: Connection, partition: int) -> int:
    """Up to where the read models know a partition (0: nothing yet, or no such partition)."""
    return await _POSITION.ask(connection, partition=partition)
