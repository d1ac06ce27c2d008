"""Every word by its name, derived from the aggregates' unions: standing in a union is all the registration there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, cast, get_args

from contracts.encounter import EncounterCommands, EncounterEvents
from contracts.model import Command, Event
from contracts.patient import PatientCommands, PatientEvents
from contracts.queue import CallNext, QueueCommands, QueueEvents
from contracts.staff import StaffCommands, StaffEvents
from contracts.task import TaskCommands, TaskEvents
from contracts.unit import UnitCommands, UnitEvents
from contracts.unit_command import (
    ExpireUnitCommand,
    MailboxCommands,
    MailboxEvents,
    QueueUnitCommand,
    ReportUnitCommand,
    UnitCommandQueued,
)

AnyCommand = (
    UnitCommands | PatientCommands | EncounterCommands | QueueCommands | MailboxCommands | TaskCommands | StaffCommands
)
AnyEvent = UnitEvents | PatientEvents | EncounterEvents | QueueEvents | MailboxEvents | TaskEvents | StaffEvents

COMMANDS: Final[Mapping[str, type[Command]]] = {word.type_name(): word for word in get_args(AnyCommand)}
EVENTS: Final[Mapping[str, type[Event]]] = {word.type_name(): word for word in get_args(AnyEvent)}

Upcast = Callable[[dict[str, Any]], dict[str, Any]]  # Any: JSON objects of an older version
UPCASTS: Final[Mapping[tuple[str, int], Upcast]] = {
    (CallNext.type_name(), 1): lambda old: old,  # version 2 may name the entry; version 1 never did
    (QueueUnitCommand.type_name(), 1): lambda old: old,  # version 2 may have a supersede key
    (UnitCommandQueued.type_name(), 1): lambda old: old,  # likewise
    (ReportUnitCommand.type_name(), 1): lambda old: old,  # version 2 names the attempt; 1 tells of the first
    (ExpireUnitCommand.type_name(), 1): lambda old: old,  # likewise
}
"""From (type name, version) to the payload of version + 1, applied one after the other on read."""


class UnknownWord(Exception):
    """No such command or event in this release: a message of a newer release, or not one of ours."""


def command_named(type_name: str, version: int = 1) -> type[Command]:
    """The class of a command, or `UnknownWord`."""
    word = COMMANDS.get(type_name)
    if word is None or not 1 <= version <= word.version:
        raise UnknownWord(f"unknown command {type_name!r} version {version}")
    return word


def command_from(type_name: str, version: int, payload: dict[str, Any]) -> AnyCommand:  # Any: JSON object
    """The command sent under this name and version, upcast to what the code knows today, or `UnknownWord`."""
    word = command_named(type_name, version)
    return cast(AnyCommand, word.model_validate(_upcast(word, version, payload)))


def event_from(type_name: str, version: int, payload: dict[str, Any]) -> AnyEvent:  # Any: JSON object
    """The event stored under this name and version, upcast to what the code knows today, or `UnknownWord`."""
    word = EVENTS.get(type_name)
    if word is None or not 1 <= version <= word.version:
        raise UnknownWord(f"unknown event {type_name!r} version {version}")
    return cast(AnyEvent, word.model_validate(_upcast(word, version, payload)))


def _upcast(word: type[Command] | type[Event], version: int, payload: dict[str, Any]) -> dict[str, Any]:
    while version < word.version:
        payload = UPCASTS[word.type_name(), version](payload)
        version += 1
    return payload


@cache
def contexts() -> frozenset[str]:
    """The aggregates by their names in type names and routing keys."""
    return frozenset(word.context for word in COMMANDS.values())
