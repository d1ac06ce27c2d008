"""Whatever is asked of a unit, in whatever order: what holds of its history then."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_handlers.domain.decider import Claim
from command_handlers.domain.encounter import OPEN, Encounter, open_encounter_claim
from command_handlers.domain.patient import Patient, mrn_claim
from command_handlers.domain.queue import ServiceQueue
from contracts.catalogue import event_from
from contracts.encounter import CancelVisit, CheckIn, Discharge, EncounterClass, StartConsultation
from contracts.ids import EncounterId, PatientId
from contracts.model import Command, Event, Refusal, sealed_fields
from contracts.patient import (
    AssignMrn,
    DeactivatePatient,
    MarkDeceased,
    PatientRegistered,
    ReactivatePatient,
    RegisterPatient,
    UpdateDemographics,
)
from contracts.queue import (
    ACTIVE,
    CallNext,
    CompleteService,
    Leave,
    MarkNoShow,
    Recall,
    Requeue,
    StartService,
    TransferEntry,
)
from contracts.unit_command import (
    CancelUnitCommand,
    ExpireUnitCommand,
    MailboxEvents,
    QueueUnitCommand,
    ReportUnitCommand,
    UnitCommandApplied,
    UnitCommandQueued,
    UnitCommandRejected,
)
from tests.domain.examples import LONG_AGO, ORDER, clinic, entry, moment
from tests.kit.deciding import History


def asked(word: type[Command], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:  # Any: any field
    """The command with any of these in its fields (`st.builds` would look for the JSON names)."""
    return st.fixed_dictionaries(fields).map(lambda drawn: word(**drawn))


people = st.integers(1, 2).map(lambda number: PatientId(UUID(int=number)))
visits = st.integers(11, 13).map(lambda number: EncounterId(UUID(int=number)))
entries = st.integers(1, 3).map(entry)
departments = st.sampled_from(["general", "radiology"])
numbers = st.sampled_from(["MRN-1", "MRN-2", "MRN-3"])
names = st.sampled_from(["Anaba", "Borek"])
born = st.just(date(1980, 2, 29))

patient_commands = st.one_of(
    asked(
        RegisterPatient,
        patient_id=people,
        medical_record_number=numbers,
        first_name=names,
        last_name=names,
        date_of_birth=born,
    ),
    asked(
        UpdateDemographics,
        patient_id=people,
        medical_record_number=st.none() | numbers,
        first_name=names,
        last_name=names,
        date_of_birth=born,
    ),
    asked(AssignMrn, patient_id=people, medical_record_number=numbers),
    asked(DeactivatePatient, patient_id=people, reason=st.none()),
    asked(ReactivatePatient, patient_id=people),
    asked(MarkDeceased, patient_id=people, deceased_at=st.just(LONG_AGO)),
)
visit_commands = st.one_of(
    asked(
        CheckIn,
        encounter_id=visits,
        patient_id=people,
        queue_entry_id=entries,
        department=departments,
        encounter_class=st.sampled_from([EncounterClass.AMBULATORY, EncounterClass.EMERGENCY]),
    ),
    *(asked(command, encounter_id=visits) for command in (StartConsultation, Discharge, CancelVisit)),
)
transfers = asked(
    TransferEntry, department=departments, entry_id=entries, to_department=departments, new_entry_id=entries
)
desk_commands = st.one_of(
    *(
        asked(command, department=departments, entry_id=entries)
        for command in (Recall, StartService, StartService, CompleteService, MarkNoShow, Requeue, Leave)
    ),
)
calls = asked(CallNext, department=departments)
mailbox_commands = st.one_of(
    asked(QueueUnitCommand, unit_command_id=st.just(ORDER), type=st.just("ping"), deadline=st.just(moment(60))),
    asked(ReportUnitCommand, unit_command_id=st.just(ORDER), applied=st.booleans()),
    st.just(ExpireUnitCommand(unit_command_id=ORDER)),
    st.just(CancelUnitCommand(unit_command_id=ORDER)),
)
anything = st.lists(
    st.sampled_from(
        [patient_commands, *[visit_commands] * 3, *[calls] * 2, transfers, *[desk_commands] * 3, mailbox_commands]
    ).flatmap(lambda kind: kind),
    min_size=50,
    max_size=100,
)
thorough = settings(max_examples=60, deadline=None)
pytestmark = pytest.mark.timeout(400)  # a failure is told only after hypothesis has made it small

EACH_IS_ANOTHER = (CallNext, Recall)
"""Asking for these again is asking for something new."""


def opened() -> History:
    """A clinic with the records of two people."""
    return History().note(
        clinic,
        PatientRegistered(patient_id=PatientId(UUID(int=1)), medical_record_number="MRN-1", first_name="Anaba"),
        PatientRegistered(patient_id=PatientId(UUID(int=2)), medical_record_number="MRN-2", first_name="Borek"),
    )


def after(commands: list[Command]) -> History:
    """The clinic's history once all this was asked; what is refused leaves no trace."""
    history = opened()
    for command in commands:
        before = [*history.events], {**history.states}, {**history.holders}
        try:
            history.carry_out(command)
        except Refusal:
            assert (history.events, history.states, history.holders) == before
        history.at = history.issued_at = history.at + timedelta(seconds=20)
    return history


@thorough
@given(anything)
def test_asking_the_same_again_adds_nothing(commands: list[Command]) -> None:
    history = opened()
    for command in commands:
        try:
            history.carry_out(command)
            again = [] if isinstance(command, EACH_IS_ANOTHER) else history.decide(command)
        except Refusal:
            continue
        assert again == []


@thorough
@given(anything)
def test_a_history_told_again_from_the_log_is_the_same(commands: list[Command]) -> None:
    history = after(commands)
    read_back = [event_from(event.type_name(), event.version, event.to_dict()) for event in history.events]
    again = History().note(*read_back)
    assert again.states == history.states
    assert again.holders == history.holders


@thorough
@given(anything)
def test_an_erased_history_can_still_be_told(commands: list[Command]) -> None:
    erased = [_without_sealed(event) for event in after(commands).events]
    assert not [claim for claim in History().note(*erased).holders if claim.kind == "mrn"]


def _without_sealed(event: Event) -> Event:
    hidden = sealed_fields(type(event))
    payload = {name: value for name, value in event.to_dict().items() if name not in hidden}
    return event_from(event.type_name(), event.version, payload)


@thorough
@given(anything)
def test_each_claim_has_exactly_the_holder_whose_state_says_so(commands: list[Command]) -> None:
    history = after(commands)
    held: list[tuple[Claim, str]] = []
    for stream, state in history.states.items():
        if isinstance(state, Patient) and state.mrn:
            held.append((mrn_claim(state.mrn), stream))
        if isinstance(state, Encounter) and state.arrived and state.status in OPEN:
            held.append((open_encounter_claim(state.arrived.patient_id, state.arrived.encounter_class), stream))
    assert dict(held) == history.holders
    assert len(held) == len(history.holders)


@thorough
@given(anything)
def test_whoever_is_in_a_queue_is_on_an_open_visit_that_knows_the_place(commands: list[Command]) -> None:
    history = after(commands)
    visits = {stream: state for stream, state in history.states.items() if isinstance(state, Encounter)}
    for state in history.states.values():
        for place in state.entries.values() if isinstance(state, ServiceQueue) else ():
            visit = visits[f"encounter-{place.encounter_id}"]
            if place.status in ACTIVE:
                assert visit.status in OPEN
                assert visit.queue_entry_id == place.entry_id


@thorough
@given(st.lists(mailbox_commands, max_size=12))
def test_a_unit_command_ends_once_and_is_told_late_at_most_once(commands: list[Command]) -> None:
    events: list[Any] = [event for event in after(commands).events if event.context == "unit_command"]  # MailboxEvents
    ends: list[MailboxEvents] = [event for event in events if not isinstance(event, UnitCommandQueued)]
    late = [event for event in ends if isinstance(event, UnitCommandApplied | UnitCommandRejected) and event.late]
    assert len(ends) - len(late) <= 1
    assert len(late) <= 1
    assert Counter(type(event) for event in events)[UnitCommandQueued] <= 1
    assert not ends or isinstance(events[0], UnitCommandQueued)
