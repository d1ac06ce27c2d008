"""Which aggregate decides a command: the one whose context the command's name begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from command_handlers.domain.decider import Aggregate
from command_handlers.domain.encounter import ENCOUNTER
from command_handlers.domain.patient import PATIENT
from command_handlers.domain.queue import QUEUE
from command_handlers.domain.staff import STAFF
from command_handlers.domain.task import TASK
from command_handlers.domain.unit import UNIT
from command_handlers.domain.unit_command import MAILBOX
from contracts.model import Command

AnyAggregate = Aggregate[Any, Any, Any]  # Any: state, commands and events belong together in each, whatever they are

AGGREGATES: Final[Mapping[str, AnyAggregate]] = {
    aggregate.context: aggregate for aggregate in (UNIT, PATIENT, ENCOUNTER, QUEUE, MAILBOX, TASK, STAFF)
}


def aggregate_for(of: Command | type[Command] | str) -> AnyAggregate:
    """The aggregate of a command, a class of commands, or a context's name."""
    return AGGREGATES[of if isinstance(of, str) else of.context]


def aggregate_of_stream(stream: str) -> AnyAggregate:
    """The aggregate whose history a stream is: a stream's name begins with the context."""
    return AGGREGATES[stream.partition("-")[0]]
