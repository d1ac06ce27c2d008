"""The read models of this release, in the order in which a batch is applied to them."""

from __future__ import annotations

from typing import Final

from projections import (
    encounters,
    notifications,
    patients,
    queue_entries,
    staff,
    tasks,
    unit_commands,
    unit_credentials,
    units,
)
from projections.read_model import ReadModel

READ_MODELS: Final[tuple[ReadModel, ...]] = (
    units.model,
    patients.model,
    encounters.model,
    queue_entries.model,
    notifications.model,
    unit_commands.model,
    unit_credentials.model,
    tasks.model,
    staff.model,
)


class UnknownReadModel(LookupError):
    """This release has no read model of that name."""


def read_model_named(name: str) -> ReadModel:
    """The read model, or `UnknownReadModel`."""
    for model in READ_MODELS:
        if model.name == name:
            return model
    raise UnknownReadModel(f"no read model {name!r}; there are: {', '.join(model.name for model in READ_MODELS)}")
