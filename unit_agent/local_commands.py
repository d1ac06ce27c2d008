"""Commands made at the site: checked against the same words as everywhere, given their ids, and kept before the answer.

What is no command at all is refused here and now. While the link is down so is what may not be made offline
(`Command.offline`) and what the centre would surely refuse (`local_rules`); the rest shows at the site at once
(`provisional`), and the centre has the last word.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from contracts.catalogue import UnknownWord, command_named
from contracts.encounter import CheckIn
from contracts.envelope import Json
from contracts.identity import Role
from contracts.ids import Department, derived, fresh_command_id, keyed_command_id
from contracts.model import Command, Offline
from contracts.patient import RegisterPatient
from contracts.queue import CallNext, QueueEmpty, TransferEntry
from contracts.text import holds_nul
from contracts.unit_command import ReportUnitCommand
from unit_agent import local_rules, outbox, provisional, site_queues
from unit_agent.store import Store

_DEPARTMENT: Final[TypeAdapter[str]] = TypeAdapter(Department)

NEW_IDS: Final[dict[type[Command], dict[str, str]]] = {
    RegisterPatient: {"patientId": "patient"},
    CheckIn: {"encounterId": "encounter", "queueEntryId": "entry"},
    TransferEntry: {"newEntryId": "entry"},
}
"""Ids that a command brings into being: chosen here where the caller leaves them out."""


class NotACommand(Exception):
    """The site asked for something that can never be taken; `detail` names fields, never their values."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class NotNow(NotACommand):
    """It cannot be taken as things stand: the link is down, or the centre would surely refuse it."""

    def __init__(self, code: str, detail: str, about: dict[str, str] | None = None) -> None:
        super().__init__(code, detail)
        self.about = about or {}


@dataclass(frozen=True)
class Kept:
    """A command that is on this disk, and the ids it was given."""

    command_id: UUID
    ids: dict[str, str]
    shown: bool = False
    """What it brings about shows at the site already, as provisional."""
    place: Json = field(default_factory=dict)
    """Whom a call made offline has called: the queue entry."""


def keep(
    store: Store,
    unit_id: str,
    type_name: str,
    payload: Json,
    *,
    subject: str,
    key: str | None,
    now: datetime,
    linked: bool = True,
) -> Kept:
    """Put a command in the outbox, durably. Raises NotACommand, NotNow, outbox.AnotherCommandHasThisId.

    With a `key` the same command made again is the same command, with the same ids. `linked`: the centre can be reached
    and decides; without, this site goes by what it knows.
    """
    with store.transaction() as db:
        return keep_within(db, unit_id, type_name, payload, subject=subject, key=key, now=now, linked=linked)


def keep_within(
    db: sqlite3.Connection,
    unit_id: str,
    type_name: str,
    payload: Json,
    *,
    subject: str,
    key: str | None,
    now: datetime,
    linked: bool = True,
) -> Kept:
    """`keep`, inside the caller's transaction: durable when that is."""
    word = _word(type_name)
    if holds_nul(payload) or holds_nul(subject):
        raise NotACommand("content_invalid", "No text may hold the character U+0000.")
    command_id = fresh_command_id(now, os.urandom(10)) if key is None else keyed_command_id("agent", unit_id, key)
    made = outbox.made(db, command_id)
    if made is None and word.offline is Offline.NEVER and not linked:
        raise NotNow("needs_link", "This command is not made while the link is down.")
    at = now if made is None else made.issued_at
    new = {
        name: str(derived(command_id, purpose, at))
        for name, purpose in NEW_IDS.get(word, {}).items()
        if name not in payload
    }
    if word is CallNext and "entryId" not in payload:
        payload = payload | _whom(db, payload, made, now=now, linked=linked)
    command = _checked(word, payload | new)
    outbox.add(db, command_id=command_id, type_name=type_name, payload=command.to_dict(), subject=subject, issued_at=at)
    if made is None:
        _show(db, command_id, command, at=at, linked=linked)
    shown = provisional.shows(db, command_id)
    is_call = isinstance(command, CallNext) and command.entry_id is not None
    return Kept(command_id, new, shown, _place(db, command) if is_call else {})


def _whom(db: sqlite3.Connection, payload: Json, made: outbox.Made | None, *, now: datetime, linked: bool) -> Json:
    """The entry a call names: the one it named before, or while nobody else can say, whose turn it is from here."""
    if made is not None:
        return {"entryId": made.payload["entryId"]} if "entryId" in made.payload else {}
    if linked:
        return {}
    try:
        department = _DEPARTMENT.validate_python(payload.get("department"))
    except ValidationError:
        return {}  # said properly by whoever reads the whole payload
    entry_id = site_queues.next_in_turn(db, department, now)
    if entry_id is None:
        raise NotNow(QueueEmpty.code(), QueueEmpty.message(), {"department": department})
    return {"entryId": entry_id}


def _show(db: sqlite3.Connection, command_id: UUID, command: Command, *, at: datetime, linked: bool) -> None:
    refused = local_rules.refusal(db, command)
    if refused is not None and not linked:
        raise NotNow(refused.code(), refused.message(), refused.about)
    if refused is None and command.offline is Offline.LOCAL:
        provisional.show(db, command_id, command, at=at, zone=site_queues.zone_of(db))


def _place(db: sqlite3.Connection, command: Command) -> Json:
    found = site_queues.place(db, str(getattr(command, "entry_id", ""))) or {}
    told = {"entryId": found.get("id")}
    told |= {name: found.get(name) for name in ("ticket", "patientId", "encounterId", "counter")}
    return {name: value for name, value in told.items() if value is not None}


def _word(type_name: str) -> type[Command]:
    try:
        word = command_named(type_name)
    except UnknownWord:
        raise NotACommand("command_unknown", "There is no command of this type.") from None
    if Role.UNIT not in word.may or word is ReportUnitCommand:
        raise NotACommand("not_allowed", "This command is not made at units.")
    return word


def _checked(word: type[Command], payload: Json) -> Command:
    try:
        return word.model_validate(payload)
    except ValidationError as wrong:
        fields = sorted({".".join(str(part) for part in error["loc"]) or "payload" for error in wrong.errors()})
        raise NotACommand("content_invalid", "Not valid: " + ", ".join(fields)) from None
