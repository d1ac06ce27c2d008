"""Tasks as their readers see them: from being asked for to the end; by unit, by assignee, by patient."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.ids import PatientId, TaskId
from contracts.task import (
    Cause,
    TaskAccepted,
    TaskAssigned,
    TaskCancelled,
    TaskClaimed,
    TaskCompleted,
    TaskCreated,
    TaskEnteredInError,
    TaskFailed,
    TaskHeld,
    TaskOverdue,
    TaskRejected,
    TaskResumed,
    TaskStarted,
    TaskStatus,
)
from projections import tasks
from tests.projections.facts import MORNING, NORTH, SOUTH, new_id, patient
from tests.projections.readside import ReadSide


def asked(unit_id: str = NORTH, **fields: Any) -> TaskCreated:  # Any: whatever a task has
    about = {"task_id": TaskId(new_id()), "unit_id": unit_id, "kind": "call-back", "status": TaskStatus.REQUESTED}
    return TaskCreated(**{**about, "title": "Call back", **fields})


def about(task: TaskCreated) -> dict[str, Any]:  # Any: ids
    return {"task_id": task.task_id, "unit_id": task.unit_id, "patient_id": task.patient_id}


async def shown(side: ReadSide, task_id: UUID) -> tasks.Task:
    async with side.asking(NORTH) as connection:
        found = await tasks.by_id(connection, task_id)
    assert found is not None
    return found


async def test_a_task_is_followed_to_its_end(side: ReadSide) -> None:
    task = asked(patient_id=PatientId(new_id()), due_at=MORNING, description="about the cough")
    its = about(task)
    _, position = await side.write(NORTH, task)
    now = await shown(side, task.task_id)
    assert (now.status, now.open, now.assignee, now.created_position) == ("requested", True, None, position)
    assert (now.title, now.description, now.due_at) == ("Call back", "about the cough", MORNING)
    await side.write(NORTH, TaskAssigned(**its, assignee="nurse-4", business_status="new"))
    assert (await shown(side, task.task_id)).assignee == "nurse-4"
    await side.write(NORTH, TaskAccepted(**its), TaskStarted(**its), TaskOverdue(**its, due_at=MORNING))
    now = await shown(side, task.task_id)
    assert (now.status, now.overdue, now.business_status) == ("in-progress", True, "new")
    assert now.started_at is not None
    await side.write(NORTH, TaskHeld(**its, reason="no answer", business_status="waiting"))
    now = await shown(side, task.task_id)
    assert (now.status, now.last_words, now.business_status) == ("on-hold", "no answer", "waiting")
    await side.write(
        NORTH,
        TaskResumed(**its, status=TaskStatus.IN_PROGRESS),
        TaskCompleted(**its, outcome="reached", notes="she is well"),
    )
    now = await shown(side, task.task_id)
    assert (now.status, now.open, now.outcome, now.last_words) == ("completed", False, "reached", "she is well")
    assert (now.version, now.business_status) == (8, "waiting")
    assert now.ended_at is not None


async def test_every_other_way_is_told_too(side: ReadSide) -> None:
    rejected, failed, cancelled, error, claimed = (asked() for _ in range(5))
    await side.write(
        NORTH,
        *(rejected, failed, cancelled, error, claimed),
        TaskAssigned(**about(rejected), assignee="nurse-4"),
        TaskRejected(**about(rejected), reason="off duty"),
        TaskFailed(**about(failed), reason="no such number"),
        TaskCancelled(**about(cancelled), reason="came by"),
        TaskEnteredInError(**about(error), reason="another patient"),
        TaskClaimed(**about(claimed), assignee="nurse-5"),
    )
    found = [await shown(side, one.task_id) for one in (rejected, failed, cancelled, error, claimed)]
    assert [(one.status, one.open, one.assignee, one.last_words) for one in found] == [
        ("rejected", True, None, "off duty"),
        ("failed", False, None, "no such number"),
        ("cancelled", False, None, "came by"),
        ("entered-in-error", False, None, "another patient"),
        ("accepted", True, "nurse-5", None),
    ]


async def test_the_task_of_a_conflict_says_which_command_and_why(side: ReadSide) -> None:
    cause = Cause(command_id=new_id(), command_type="queue.CallNext", code="queue_empty", issued_at=MORNING)
    task = asked(kind="conflict", title=None, cause=cause)
    await side.write(NORTH, task)
    now = await shown(side, task.task_id)
    assert (now.kind, now.cause, now.title) == ("conflict", cause, None)


async def test_lists_are_by_unit_status_assignee_kind_and_department_and_page_by_cursor(side: ReadSide) -> None:
    mine = [asked(assignee="nurse-4", department="er") for _ in range(5)]
    conflict, done, theirs = asked(kind="conflict"), asked(assignee="nurse-4"), asked(SOUTH)
    await side.write(SOUTH, theirs)
    await side.write(NORTH, *mine, conflict, done, TaskCompleted(**about(done), outcome="done"))

    async def listed(**which: Any) -> list[UUID]:  # Any: conditions
        async with side.asking(NORTH) as connection:
            found: list[UUID] = []
            cursor = None
            while True:
                page = await tasks.of_unit(connection, NORTH, limit=2, cursor=cursor, **which)
                found += [one.id for one in page.items]
                if (cursor := page.next_cursor) is None:
                    return found

    newest_first = [one.task_id for one in reversed([*mine, conflict, done])]
    assert await listed() == newest_first
    assert await listed(only_open=True) == newest_first[1:]
    assert await listed(assignee="nurse-4") == [done.task_id, *newest_first[2:]]
    assert await listed(assignee="nurse-4", only_open=True, department="er") == newest_first[2:]
    assert await listed(kind="conflict") == [conflict.task_id]
    assert await listed(status="completed") == [done.task_id]
    assert await listed(status="completed", kind="conflict") == []


async def test_tasks_about_a_patient_are_that_unit_s_alone(side: ReadSide) -> None:
    somebody = patient("Ana", "Lund")
    who = somebody.patient_id
    task, other = asked(patient_id=who, assignee="nurse-4"), asked(patient_id=PatientId(new_id()))
    await side.write(NORTH, somebody, task, other)
    async with side.asking(NORTH) as connection:
        assert [one.id for one in (await tasks.of_patient(connection, who)).items] == [task.task_id]
        assert not (await tasks.of_patient(connection, who, assignee="lab-1")).items
    async with side.asking(SOUTH) as connection:
        assert not (await tasks.of_patient(connection, who)).items
        assert await tasks.by_id(connection, task.task_id) is None
        assert not (await tasks.of_unit(connection, NORTH)).items


async def test_of_somebody_who_was_erased_no_words_stay(side: ReadSide) -> None:
    somebody = patient("Ana", "Lund")
    task = asked(patient_id=somebody.patient_id, due_at=MORNING + timedelta(hours=1))
    await side.log.write(NORTH, somebody, task)
    await side.log.erase(somebody.patient_id)
    await side.catch_up()
    now = await shown(side, task.task_id)
    assert (now.title, now.erased, now.kind) == (None, True, "call-back")
