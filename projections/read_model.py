"""What a read model is: tables, and per kind of fact one statement that takes a whole batch of such facts.

A handler (`@waiting_room.on(PatientEnqueued)`) is called once per process with the facts as a relation, whose columns
follow from the event's fields, and returns the statement. Per event nothing is built or compiled: the facts of a batch
go to Postgres as one JSON document per statement. Who reads the log and keeps the checkpoint is `projections.runner`'s;
which statements a batch needs, and in which order, is `projections.batch`'s.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Any, Final, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from pydantic.alias_generators import to_camel
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    Update,
    Uuid,
    bindparam,
    column,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, Insert, insert, psycopg
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.types import TypeEngine

from contracts.model import Event

Json = dict[str, Any]  # Any: a JSON object
SqlType = type[TypeEngine[Any]] | TypeEngine[Any]  # Any: the Python type differs by column

metadata = MetaData()
"""The read tables as the code knows them; `migrations` makes them."""

_DIALECT = psycopg.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy

_PLAIN: Final[dict[type, SqlType]] = {
    UUID: Uuid(),
    datetime: DateTime(timezone=True),
    AwareDatetime: DateTime(timezone=True),
    date: Date(),
    bool: Boolean(),
    int: Integer(),
    str: Text(),
    dict: JSONB(),
}

ENVELOPE: Final[Mapping[str, SqlType]] = {
    "unit_id": Text(),
    "partition": Integer(),
    "position": BigInteger(),
    "stream_version": Integer(),
    "occurred_at": DateTime(timezone=True),
    "recorded_at": DateTime(timezone=True),
    "erased": Boolean(),
}
"""What every fact carries besides its own fields."""


@dataclass(frozen=True)
class Computed:
    """Columns that need Python: `of` gets a fact's payload (camelCase) and returns them by their camelCase names."""

    columns: Mapping[str, SqlType]
    of: Callable[[Json], Json]


class Facts:
    """The facts of one kind in a batch, as a relation: `facts.patient_id` is the column of that field."""

    def __init__(self, event: type[Event], computed: Computed | None) -> None:
        own = {name: sql_type(info.annotation) for name, info in event.model_fields.items()}
        known = {**own, **(computed.columns if computed else {}), **ENVELOPE}
        relation = (
            func.json_to_recordset(bindparam("facts", type_=JSON))
            .table_valued(*(column(to_camel(name), kind) for name, kind in known.items()), name="facts")
            .render_derived(name="facts", with_types=True)
        )
        self._event = event.__name__
        self._columns = {name: relation.c[to_camel(name)] for name in known}

    def __getattr__(self, name: str) -> ColumnElement[Any]:  # Any: the field decides
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(f"{self._event} has no field {name}")
        return self._columns[name]


def sql_type(annotation: Any) -> SqlType:  # Any: an annotation is any object
    """The SQL type a field of this annotation has when it comes out of JSON."""
    if hasattr(annotation, "__supertype__"):  # NewType
        return sql_type(annotation.__supertype__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return sql_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        (kind,) = (each for each in get_args(annotation) if each is not type(None))
        return sql_type(kind)
    plain = origin or annotation
    if issubclass(plain, BaseModel):
        return _PLAIN[dict]
    return next(_PLAIN[base] for base in plain.__mro__ if base in _PLAIN)


def added(table: Table, **values: object) -> Insert:
    """One new row per fact; values are columns of the facts, or constants."""
    chosen = (value if isinstance(value, ColumnElement) else literal(value) for value in values.values())
    return insert(table).from_select(list(values), select(*chosen))


def changed(table: Table, *same: ColumnElement[bool], **values: object) -> Update:
    """The row each fact is about (`same` says which), with these values from now on."""
    return update(table).where(*same).values(**values)


class Compiled:
    """A statement as psycopg takes it: built and compiled at its first use, and never again."""

    def __init__(self, build: Callable[[], ClauseElement]) -> None:
        self._build = build

    @cached_property
    def _text_and_constants(self) -> tuple[bytes, Json]:
        compiled = self._build().compile(dialect=_DIALECT)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return str(compiled).encode(), constants

    @property
    def text(self) -> bytes:
        """SQL with psycopg's named placeholders."""
        return self._text_and_constants[0]

    def with_values(self, **values: object) -> Json:
        """The values of all placeholders: the statement's own constants and these."""
        return {**self._text_and_constants[1], **values}


@dataclass(frozen=True, eq=False)
class Reaction:
    """What a read model does with one kind of fact."""

    read_model: str
    name: str
    statement: Compiled
    key: str
    """JSON name of the field that says which row is meant: facts of one row are never applied by one statement."""
    computed: Computed | None
    across: bool = False
    """It concerns any number of rows, whatever their key: never earlier than anything that came before it."""


Handler = Callable[[Facts], UpdateBase]


@dataclass(eq=False)
class ReadModel:
    """A place or list people know: its tables, and what it does with the facts it is interested in."""

    name: str
    tables: tuple[Table, ...]
    key: str
    """Field of its facts that says which row is meant, for example `entry_id`."""
    reactions: dict[str, Reaction] = field(default_factory=dict)
    """By the event's type name."""

    def on(
        self, event: type[Event], *, computed: Computed | None = None, across: str | None = None
    ) -> Callable[[Handler], Handler]:
        """Register the statement for a kind of fact; later facts of the same row are applied after it.

        `across` names the field by which a fact concerns many rows: it is applied after all that came before.
        """

        def register(handler: Handler) -> Handler:
            type_name = event.type_name()
            if type_name in self.reactions:
                raise TypeError(f"{self.name} already reacts to {type_name}")
            self.reactions[type_name] = Reaction(
                read_model=self.name,
                name=handler.__name__,
                statement=Compiled(lambda: handler(Facts(event, computed))),
                key=to_camel(across or self.key),
                computed=computed,
                across=across is not None,
            )
            return handler

        return register
