"""Commands made at the site: checked against the same words as everywhere, given their ids, and kept before the answer.

Whether a rule refuses them, the centre says later; what is no command at all is refused here and now.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from contracts.catalogue import UnknownWord, command_named
from contracts.encounter import CheckIn
from contracts.envelope import Json
from contracts.identity import Role
from contracts.ids import derived, fresh_command_id, keyed_command_id
from contracts.model import Command
from contracts.patient import RegisterPatient
from contracts.queue import TransferEntry
from contracts.text import holds_nul
from contracts.unit_command import ReportUnitCommand
from unit_agent import outbox
from unit_agent.store import Store

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


@dataclass(frozen=True)
class Kept:
    """A command that is on this disk, and the ids it was given."""

    command_id: UUID
    ids: dict[str, str]


def keep(
    store: Store, unit_id: str, type_name: str, payload: Json, *, subject: str, key: str | None, now: datetime
) -> Kept:
    """Put a command in the outbox, durably. Raises NotACommand, outbox.AnotherCommandHasThisId.

    With a `key` the same command made again is the same command, with the same ids.
    """
    word = _word(type_name)
    if holds_nul(payload) or holds_nul(subject):
        raise NotACommand("content_invalid", "No text may hold the character U+0000.")
    command_id = fresh_command_id(now, os.urandom(10)) if key is None else keyed_command_id("agent", unit_id, key)
    with store.transaction() as db:
        first = outbox.issued_at(db, command_id)
        at = first or now
        new = {
            name: str(derived(command_id, purpose, at))
            for name, purpose in NEW_IDS.get(word, {}).items()
            if name not in payload
        }
        command = _checked(word, payload | new)
        outbox.add(
            db, command_id=command_id, type_name=type_name, payload=command.to_dict(), subject=subject, issued_at=at
        )
    return Kept(command_id, new)


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
