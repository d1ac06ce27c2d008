"""What every word is made of: frozen models, the three families (command, event, refusal) and the sealed-field marker.

JSON is camelCase everywhere (HTTP, broker, log, frames); Python is snake_case. How sealed fields are encrypted is
`infra.sealing`'s; which fields are sealed is decided here, in the type of the field.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from contracts.identity import Role

T = TypeVar("T")


class SealedField:
    """Marks a field that is written to the log only encrypted, under the key of the person it tells about."""


Sealed = Annotated[T, SealedField()]
"""`Sealed[str]`: clear in memory and in a command, encrypted in the `events` table."""


def _written(how: str) -> BeforeValidator:
    """Refuse a bare number, which would be taken for seconds since 1970 and silently be another day."""

    def check(value: object) -> object:
        if isinstance(value, int | float) or (isinstance(value, str) and value[4:5] != "-"):
            raise ValueError(f"must be {how}")
        return value

    return BeforeValidator(check)


Day = Annotated[date, _written("a date, YYYY-MM-DD")]
"""A date, YYYY-MM-DD."""

Instant = Annotated[
    AwareDatetime,
    Field(ge=datetime(1, 1, 2, tzinfo=UTC), le=datetime(9999, 12, 31, tzinfo=UTC)),
    _written("an instant with a zone, such as 2026-11-20T09:00:00Z"),
]
"""An instant; a naive datetime is refused, and so is one that some zone's calendar has no year for."""


class Model(BaseModel):
    """A frozen value; unknown fields are refused, so a misspelt field is an error and never silence."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, ser_json_timedelta="float"
    )

    def to_json(self) -> bytes:
        """This value as camelCase JSON, without fields that are unset (`None`)."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)

    def to_dict(self) -> dict[str, Any]:  # Any: a JSON object
        """This value as a camelCase JSON object of plain JSON types."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Offline(StrEnum):
    """Whether a unit may give a command while its link is down, and whether it shows there before the centre knows."""

    NEVER = "never"
    """Refused at the unit until the link is back."""
    LATER = "later"
    """Kept in order until the link is back; shows once the centre has told what came of it."""
    LOCAL = "local"
    """Kept likewise, and shows in the unit's own lists at once, marked as provisional."""


class Command(Model):
    """Something asked for. Subclasses set `context` once per aggregate and `may` and `offline` where they differ."""

    context: ClassVar[str]
    version: ClassVar[int] = 1
    may: ClassVar[frozenset[Role]] = frozenset()
    """Roles that may ask for it from outside; empty: only the system itself does."""
    offline: ClassVar[Offline] = Offline.NEVER
    """Whether it may be made at a unit that is cut off; whatever a unit may give says it on its own class."""

    @classmethod
    def type_name(cls) -> str:
        """`patient.RegisterPatient`: what stands in an envelope."""
        return f"{cls.context}.{cls.__name__}"


class Event(Model):
    """Something that happened and is kept for ever; stored under context + class name + version."""

    context: ClassVar[str]
    version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        """`patient.PatientRegistered`: what stands in the log."""
        return f"{cls.context}.{cls.__name__}"

    def subject(self) -> str | None:
        """Whose key seals this event's sealed fields: a patient id as text, or None when nothing is sealed."""
        return None


class Refusal(Exception):
    """A rule says no. An answer, recorded and told, never retried. The docstring is the message."""

    leaves_work: ClassVar[bool] = True
    """Refused of a unit, somebody there has to look at what was done; False: nothing can have been done."""

    def __init__(self, **about: str | int | date | datetime) -> None:
        super().__init__(self.message())
        self.about = {to_camel(key): str(value) for key, value in about.items()}
        """Ids and codes that make the answer useful; never anything identifying a person."""

    @classmethod
    def code(cls) -> str:
        """`QueueNotOpen` -> `queue_not_open`: stable, for programs."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def message(cls) -> str:
        """What stands in the way, for people."""
        return " ".join((cls.__doc__ or cls.__name__).split())


@cache
def sealed_fields(model: type[Model]) -> frozenset[str]:
    """JSON names of the fields of `model` that are sealed."""
    return frozenset(
        field.serialization_alias or field.alias or name
        for name, field in model.model_fields.items()
        if any(isinstance(mark, SealedField) for mark in field.metadata)
    )


@cache
def _sealed_attributes(model: type[Model]) -> tuple[str, ...]:
    return tuple(
        name
        for name, field in model.model_fields.items()
        if any(isinstance(mark, SealedField) for mark in field.metadata)
    )


def has_sealed(word: Model) -> bool:
    """Whether there is anything in `word` that has to be sealed: no key is needed, or made, for what says nothing."""
    return any(getattr(word, name) is not None for name in _sealed_attributes(type(word)))
