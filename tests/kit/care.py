"""Commands of a clinic day, with ids that fit together."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from contracts.encounter import CheckIn
from contracts.ids import EncounterId, PatientId, QueueEntryId
from contracts.patient import RegisterPatient, UpdateDemographics
from contracts.unit import RegisterUnit
from tests.kit.commands import new_id

REGISTER_UNIT = RegisterUnit(name="A clinic")


def registration(
    patient_id: UUID | None = None, *, mrn: str | None = None, first_name: str = "Zoraida"
) -> RegisterPatient:
    """A patient nobody has seen before."""
    patient_id = patient_id or new_id()
    return RegisterPatient(
        patient_id=PatientId(patient_id),
        medical_record_number=mrn or f"MRN-{patient_id.hex}",
        first_name=first_name,
        last_name="Quillfeather",
        date_of_birth=date(1984, 2, 29),
    )


def check_in(patient_id: UUID, department: str = "general") -> CheckIn:
    """The patient arrives."""
    return CheckIn(
        encounter_id=EncounterId(new_id()),
        patient_id=PatientId(patient_id),
        queue_entry_id=QueueEntryId(new_id()),
        department=department,
        reason="a cough that stays",
    )


def new_name(patient_id: UUID, first_name: str) -> UpdateDemographics:
    """The patient's name is corrected."""
    return UpdateDemographics(
        patient_id=PatientId(patient_id),
        first_name=first_name,
        last_name="Quillfeather",
        date_of_birth=date(1984, 2, 29),
    )
