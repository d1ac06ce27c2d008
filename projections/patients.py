"""Patients: everybody's record at a unit, found by name, medical record number or date of birth.

How the record is kept; how it is searched is `projections.patient_search`'s. Names are kept once more folded
(`projections.names`) in both orders, compared byte by byte: only such comparisons may use an index beneath row-level
security. A record whose person was erased keeps its line, with nothing in it that tells who it was.
"""

from __future__ import annotations

from datetime import date
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import TIMESTAMP, Boolean, Column, Date, Integer, Table, Text, Uuid, bindparam, null, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import UpdateBase

from contracts.model import Model
from contracts.patient import (
    DemographicsUpdated,
    MrnAssigned,
    PatientDeactivated,
    PatientDied,
    PatientErased,
    PatientReactivated,
    PatientRegistered,
)
from projections.names import fold
from projections.questions import Connection, Question
from projections.read_model import Computed, Facts, Json, ReadModel, added, changed, metadata

patients = Table(
    "read_patients",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("unit_id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("medical_record_number", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("last_first", Text(collation="C"), nullable=False),
    Column("first_last", Text(collation="C"), nullable=False),
    Column("date_of_birth", Date),
    Column("gender", Text, nullable=False),
    Column("contact", JSONB),
    Column("room_number", Text),
    Column("source_id", Text),
    Column("status", Text, nullable=False),
    Column("deceased_at", TIMESTAMP(timezone=True)),
    Column("erased", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("registered_at", TIMESTAMP(timezone=True), nullable=False),
    Column("updated_at", TIMESTAMP(timezone=True), nullable=False),
)

SAYS_WHO: Final = (
    "medical_record_number", "first_name", "last_name", "date_of_birth", "contact", "room_number", "source_id",
)  # fmt: skip

model = ReadModel("patients", (patients,), key="patient_id")


def name_keys(payload: Json) -> Json:
    """Both orders of the folded name; empty when the person has been erased."""
    last, first = fold(payload.get("lastName") or ""), fold(payload.get("firstName") or "")
    return {"lastFirst": f"{last} {first}".strip(), "firstLast": f"{first} {last}".strip()}


NAME_KEYS = Computed({"last_first": Text(), "first_last": Text()}, of=name_keys)


@model.on(PatientRegistered, computed=NAME_KEYS)
def opens_a_record(facts: Facts) -> UpdateBase:
    """A new record."""
    return added(
        patients,
        patient_id=facts.patient_id,
        unit_id=facts.unit_id,
        partition=facts.partition,
        medical_record_number=facts.medical_record_number,
        first_name=facts.first_name,
        last_name=facts.last_name,
        last_first=facts.last_first,
        first_last=facts.first_last,
        date_of_birth=facts.date_of_birth,
        gender=facts.gender,
        contact=facts.contact,
        room_number=facts.room_number,
        source_id=facts.source_id,
        status="active",
        erased=facts.erased,
        version=facts.stream_version,
        registered_at=facts.occurred_at,
        updated_at=facts.recorded_at,
    )


@model.on(DemographicsUpdated, computed=NAME_KEYS)
def is_corrected(facts: Facts) -> UpdateBase:
    """All of who the person is, as it stands in the fact."""
    return _record(
        facts,
        first_name=facts.first_name,
        last_name=facts.last_name,
        last_first=facts.last_first,
        first_last=facts.first_last,
        date_of_birth=facts.date_of_birth,
        gender=facts.gender,
        contact=facts.contact,
        room_number=facts.room_number,
        erased=facts.erased,
    )


@model.on(MrnAssigned)
def gets_another_number(facts: Facts) -> UpdateBase:
    """The number by which the record is found from now on."""
    return _record(facts, medical_record_number=facts.medical_record_number, erased=facts.erased)


@model.on(PatientDeactivated)
def goes_out_of_use(facts: Facts) -> UpdateBase:
    """Still there, no longer in use."""
    return _record(facts, status="inactive")


@model.on(PatientReactivated)
def is_in_use_again(facts: Facts) -> UpdateBase:
    """In use again."""
    return _record(facts, status="active", deceased_at=null())


@model.on(PatientDied)
def has_died(facts: Facts) -> UpdateBase:
    """The record of somebody who has died."""
    return _record(facts, status="deceased", deceased_at=facts.deceased_at)


@model.on(PatientErased)
def is_erased(facts: Facts) -> UpdateBase:
    """The line stays, and nothing in it tells who this was."""
    nobody: dict[str, object] = {name: null() for name in SAYS_WHO}
    return _record(facts, **nobody, last_first="", first_last="", erased=true())


def _record(facts: Facts, **values: object) -> UpdateBase:
    return changed(
        patients,
        patients.c.patient_id == facts.patient_id,
        patients.c.unit_id == facts.unit_id,
        **values,
        version=facts.stream_version,
        updated_at=facts.recorded_at,
    )


class Patient(Model):
    """A record as readers see it."""

    id: UUID
    unit_id: str
    medical_record_number: str | None
    first_name: str | None
    last_name: str | None
    date_of_birth: date | None
    gender: str
    contact: Json | None
    room_number: str | None
    source_id: str | None
    status: str
    """active, inactive or deceased."""
    deceased_at: AwareDatetime | None
    erased: bool
    """The person's key is gone: whatever identified them is absent for ever."""
    version: int
    """Of the patient's stream, for If-Match."""
    registered_at: AwareDatetime
    updated_at: AwareDatetime


SHOWN = (patients.c.patient_id.label("id"), *(patients.c[name] for name in Patient.model_fields if name != "id"))

_ONE = Question(select(*SHOWN).where(patients.c.patient_id == bindparam("patient_id")), Patient)


async def by_id(connection: Connection, patient_id: UUID) -> Patient | None:
    """The record, or None when there is none or it is not visible."""
    return await _ONE.first(connection, patient_id=patient_id)
