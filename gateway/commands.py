"""Every command that can be asked for by a path of its own: the rows that `gateway.command_routes` makes routes of."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from contracts import encounter, patient, portal_access, queue, staff, task, unit, unit_command, unit_credential
from contracts.envelope import Json
from gateway.command_routes import CommandRoute, new

PATIENT: Final = "01996a2e-3c40-7a51-8b1e-5d2f7c9e0a11"
ENCOUNTER: Final = "01996a2f-1a02-7c3d-9e77-0b4a6f2d8c55"
ENTRY: Final = "01996a2f-1a02-7e90-8d21-6c0f3b7a9e42"
OTHER_ENTRY: Final = "01996a31-77b0-7d14-a3c8-2e9f5b1d6078"
UNIT_COMMAND: Final = "01996a33-0d5e-7f02-b6a4-91c3e7d80b2f"
TASK: Final = "01996a35-5c21-7b66-9f0a-3d8e1a7c4b90"
ACCOUNT: Final = "01996a37-2b84-7c19-8e53-7f0d4c6a1b25"
HOLD: Final = "01996a37-2f40-7c1a-9d55-7e2b4c6f8a03"
DEADLINE: Final = timedelta(hours=24)
"""Until when a unit may take up a durable command, where the caller says nothing."""

_PERSON: Final[Json] = {
    "firstName": "Ana",
    "lastName": "Example",
    "dateOfBirth": "1984-02-29",
    "gender": "female",
    "contact": {"phone": "+49 30 0000000", "city": "Berlin", "country": "DE"},
    "roomNumber": "12A",
}
SETTINGS: Final[Json] = {
    "zone": "Europe/Berlin",
    "currency": "EUR",
    "mrnPattern": unit.DEFAULT_MRN_PATTERN,
    "ageingMinutes": 30,
}

PATIENTS: Final = (
    CommandRoute(
        command=patient.RegisterPatient,
        path="/api/patients",
        fills={"patient_id": new("patient")},
        created="/api/patients/{id}",
        example={**_PERSON, "medicalRecordNumber": "MRN-20481"},
        result={"id": PATIENT},
    ),
    CommandRoute(
        command=patient.UpdateDemographics,
        method="PUT",
        path="/api/patients/{patient_id}",
        example={**_PERSON, "roomNumber": "14"},
        result={"id": PATIENT},
    ),
    CommandRoute(
        command=patient.AssignMrn,
        path="/api/patients/{patient_id}/mrn",
        example={"medicalRecordNumber": "MRN-20482"},
        result={"id": PATIENT},
    ),
    CommandRoute(
        command=patient.DeactivatePatient,
        method="DELETE",
        path="/api/patients/{patient_id}",
        example={"reason": "registered twice"},
        result={"id": PATIENT, "status": "inactive"},
    ),
    CommandRoute(
        command=patient.ReactivatePatient,
        path="/api/patients/{patient_id}/reactivate",
        example={},
        result={"id": PATIENT, "status": "active"},
    ),
    CommandRoute(
        command=patient.MarkDeceased,
        path="/api/patients/{patient_id}/deceased",
        example={"deceasedAt": "2026-11-20T04:30:00Z"},
        result={"id": PATIENT, "status": "deceased"},
    ),
    CommandRoute(
        command=patient.RequestErasure,
        path="/api/patients/{patient_id}/erasure",
        example={"basis": "person-asked"},
        result={"id": PATIENT, "status": "erased"},
    ),
    CommandRoute(
        command=patient.PlaceLegalHold,
        path="/api/patients/{patient_id}/legal-holds",
        example={"holdId": HOLD, "reason": "a case is open"},
        result={"id": PATIENT, "status": "active"},
    ),
    CommandRoute(
        command=patient.LiftLegalHold,
        path="/api/patients/{patient_id}/legal-holds/{hold_id}/lift",
        example={},
        result={"id": PATIENT, "status": "active"},
    ),
)

ENCOUNTERS: Final = (
    CommandRoute(
        command=encounter.CheckIn,
        path="/api/check-in",
        fills={"encounter_id": new("encounter"), "queue_entry_id": new("entry")},
        created="/api/encounters/{encounterId}",
        example={
            "patientId": PATIENT,
            "department": "general-medicine",
            "priority": "urgent",
            "reason": "persistent cough",
        },
        result={"encounterId": ENCOUNTER, "queueEntryId": ENTRY, "ticket": 17},
    ),
    CommandRoute(
        command=encounter.Triage,
        path="/api/encounters/{encounter_id}/triage",
        example={"acuity": 3, "note": "stable"},
        result={"id": ENCOUNTER, "status": "triaged"},
    ),
    CommandRoute(
        command=encounter.AssignLocation,
        path="/api/encounters/{encounter_id}/location",
        example={"room": "3"},
        result={"id": ENCOUNTER},
    ),
    CommandRoute(
        command=encounter.StartConsultation,
        path="/api/encounters/{encounter_id}/start",
        example={},
        result={"id": ENCOUNTER, "status": "in-progress"},
    ),
    CommandRoute(
        command=encounter.Discharge,
        path="/api/encounters/{encounter_id}/discharge",
        example={"note": "follow-up in two weeks"},
        result={"id": ENCOUNTER, "status": "finished"},
    ),
    CommandRoute(
        command=encounter.CancelVisit,
        path="/api/encounters/{encounter_id}/cancel",
        example={"reason": "came on the wrong day"},
        result={"id": ENCOUNTER, "status": "cancelled"},
    ),
)

_ENTRY_PATH: Final = "/api/queues/{department}/entries/{entry_id}"


def _entry(command: type[queue.QueueCommands], action: str, status: str, example: Json | None = None) -> CommandRoute:
    return CommandRoute(
        command=command,
        path=f"{_ENTRY_PATH}/{action}",
        example=example or {},
        result={"entryId": ENTRY, "status": status, "ticket": 17},
    )


QUEUES: Final = (
    CommandRoute(
        command=queue.CallNext,
        path="/api/queues/{department}/call-next",
        example={"counter": "Room 3"},
        result={
            "entryId": ENTRY,
            "ticket": 17,
            "patientId": PATIENT,
            "encounterId": ENCOUNTER,
            "counter": "Room 3",
        },
    ),
    _entry(queue.Recall, "recall", "called"),
    _entry(queue.StartService, "start", "in-service"),
    _entry(queue.CompleteService, "complete", "done"),
    _entry(queue.MarkNoShow, "no-show", "no-show"),
    _entry(queue.Requeue, "requeue", "waiting"),
    _entry(queue.ChangePriority, "priority", "waiting", {"priority": "stat"}),
    _entry(queue.Leave, "leave", "left"),
    CommandRoute(
        command=queue.TransferEntry,
        path=f"{_ENTRY_PATH}/transfer",
        fills={"new_entry_id": new("entry")},
        example={"toDepartment": "radiology"},
        result={"entryId": OTHER_ENTRY, "ticket": 4, "status": "waiting"},
    ),
)

UNITS: Final = (
    CommandRoute(
        command=unit.RegisterUnit,
        path="/api/units",
        created="/api/units/{unitId}",
        example={"unitId": "clinic-001", "name": "Example Clinic", "settings": SETTINGS},
        result={"id": "clinic-001"},
    ),
    CommandRoute(
        command=unit.ConfigureUnit,
        method="PUT",
        path="/api/units/{unit_id}/settings",
        into="settings",
        example=SETTINGS,
        result={"id": "clinic-001"},
    ),
    CommandRoute(
        command=unit.AddDepartment,
        path="/api/units/{unit_id}/departments",
        created="/api/units/{unitId}",
        example={"department": "general-medicine", "display": "General Medicine"},
        result={"id": "clinic-001", "department": "general-medicine"},
    ),
    CommandRoute(
        command=unit.SuspendUnit,
        path="/api/units/{unit_id}/suspend",
        example={"reason": "renovation"},
        result={"id": "clinic-001", "status": "suspended"},
    ),
    CommandRoute(
        command=unit.ResumeUnit,
        path="/api/units/{unit_id}/resume",
        example={},
        result={"id": "clinic-001", "status": "active"},
    ),
    CommandRoute(
        command=unit.RetireUnit,
        path="/api/units/{unit_id}/retire",
        example={"reason": "closed for good"},
        result={"id": "clinic-001", "status": "retired"},
    ),
    CommandRoute(
        command=portal_access.RevokePortals,
        path="/api/units/{unit_id}/portals/revoke",
        example={"roles": ["nurse"], "reason": "tablets were lost"},
        result={"id": "clinic-001", "status": "active"},
    ),
    CommandRoute(
        command=unit_credential.RevokeUnitCredential,
        path="/api/units/{unit_id}/credentials/revoke",
        example={"reason": "the machine was stolen"},
        result={"id": "clinic-001", "status": "active", "keyId": None},
    ),
)

MAILBOX: Final = (
    CommandRoute(
        command=unit_command.QueueUnitCommand,
        path="/api/units/{unit_id}/commands",
        # A durable command to a unit has one id, as a command and in the mailbox: one address tells all of it.
        fills={"unit_command_id": lambda order: order.command_id},
        defaults={"deadline": lambda order: order.issued_at + DEADLINE},
        created="/api/commands/{id}",
        example={
            "type": "orders.place",
            "payload": {"code": "24323-8"},
            "patientId": PATIENT,
            "deadline": "2026-11-21T09:00:00Z",
            "onReconnect": "revalidate",
            "supersedeKey": "blood-count",
        },
        result={"id": UNIT_COMMAND, "status": "queued"},
    ),
    CommandRoute(
        command=unit_command.CancelUnitCommand,
        path="/api/units/{unit_id}/commands/{unit_command_id}/cancel",
        example={"reason": "ordered by mistake"},
        result={"id": UNIT_COMMAND, "status": "cancelled"},
    ),
    CommandRoute(
        command=unit_command.RetryUnitCommand,
        path="/api/units/{unit_id}/commands/{unit_command_id}/retry",
        example={"deadline": "2026-11-22T09:00:00Z"},
        result={"id": UNIT_COMMAND, "status": "queued", "attempt": 2, "deadline": "2026-11-22T09:00:00+00:00"},
    ),
)


def _task(
    command: type[task.TaskCommands], action: str, status: str, example: Json | None = None, assignee: str = "nurse-4"
) -> CommandRoute:
    return CommandRoute(
        command=command,
        path=f"/api/tasks/{{task_id}}/{action}",
        example=example or {},
        result={"id": TASK, "status": status, **({"assignee": assignee} if assignee else {})},
    )


TASKS: Final = (
    CommandRoute(
        command=task.CreateTask,
        path="/api/tasks",
        fills={"task_id": new("task")},
        created="/api/tasks/{id}",
        example={
            "kind": "call-back",
            "title": "Call back about the cough",
            "patientId": PATIENT,
            "department": "general-medicine",
            "priority": "urgent",
            "dueAt": "2026-11-21T09:00:00Z",
        },
        result={"id": TASK, "status": "requested"},
    ),
    _task(task.AssignTask, "assign", "received", {"assignee": "nurse-4"}),
    _task(task.ClaimTask, "claim", "accepted"),
    _task(task.AcceptTask, "accept", "accepted"),
    _task(task.RejectTask, "reject", "rejected", {"reason": "off duty from noon"}, assignee=""),
    _task(task.StartTask, "start", "in-progress"),
    _task(task.HoldTask, "hold", "on-hold", {"reason": "no answer", "businessStatus": "waiting-for-patient"}),
    _task(task.ResumeTask, "resume", "in-progress"),
    _task(task.CompleteTask, "complete", "completed", {"outcome": "reached", "notes": "feels better"}),
    _task(task.FailTask, "fail", "failed", {"reason": "the number does not exist"}),
    _task(task.CancelTask, "cancel", "cancelled", {"reason": "came by in person"}),
    _task(task.MarkTaskEnteredInError, "entered-in-error", "entered-in-error", {"reason": "another patient was meant"}),
)

STAFF: Final = (
    CommandRoute(
        command=staff.GrantRole,
        path="/api/staff/{account_id}/roles",
        example={"role": "nurse", "endsAt": "2026-12-31T23:00:00Z"},
        result={"id": ACCOUNT, "status": "active", "roles": ["nurse"]},
    ),
    CommandRoute(
        command=staff.RevokeRole,
        path="/api/staff/{account_id}/revoke-role",
        example={"role": "nurse", "reasonCode": "changed-duties"},
        result={"id": ACCOUNT, "status": "active", "roles": []},
    ),
    CommandRoute(
        command=staff.SuspendStaff,
        path="/api/staff/{account_id}/suspend",
        example={"reasonCode": "left"},
        result={"id": ACCOUNT, "status": "suspended", "roles": ["nurse"]},
    ),
    CommandRoute(
        command=staff.ReinstateStaff,
        path="/api/staff/{account_id}/reinstate",
        example={},
        result={"id": ACCOUNT, "status": "active", "roles": ["nurse"]},
    ),
)

HOT: Final = (ENCOUNTERS[0], QUEUES[0], PATIENTS[0])
"""Asked for most; they stand first where the router looks."""
ROWS: Final = (
    *HOT,
    *(row for row in (*ENCOUNTERS, *QUEUES, *PATIENTS, *UNITS, *MAILBOX, *TASKS, *STAFF) if row not in HOT),
)
