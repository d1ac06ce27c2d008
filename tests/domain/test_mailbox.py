"""A mailbox as a whole: newer words take the place of older ones, what failed is tried again, and it can be full."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from command_handlers.domain.decider import Timer
from command_handlers.domain.processes import notices, timers, timers_over
from command_handlers.domain.unit_command import MAILBOX, OPEN_COMMANDS, attempt_key, unit_command_stream
from contracts.catalogue import AnyEvent
from contracts.dead_letter import Reason
from contracts.ids import UnitCommandId
from contracts.patient import RecordErased
from contracts.unit_command import (
    DeadlineInPast,
    ExpireUnitCommand,
    MailboxFull,
    NewerUnitCommand,
    OutcomeUnknown,
    ReportUnitCommand,
    RetryUnitCommand,
    SupersedeUnitCommand,
    UnitCommandApplied,
    UnitCommandCancelled,
    UnitCommandExpired,
    UnitCommandFinal,
    UnitCommandNotFound,
    UnitCommandQueued,
    UnitCommandRejected,
    UnitCommandRetried,
    UnitCommandSuperseded,
)
from tests.domain.examples import ANABA, ORDER, anaba_erased, clinic, moment, order_queued, queue_order
from tests.kit.deciding import UNIT_ID, given

NEWER = UnitCommandId(UUID(int=77))
keyed = queue_order.model_copy(update={"supersede_key": "price-list"})
keyed_queued = order_queued.model_copy(update={"supersede_key": "price-list"})
newer = keyed.model_copy(update={"unit_command_id": NEWER})
newer_queued = keyed_queued.model_copy(update={"unit_command_id": NEWER, "supersedes": ORDER})
superseded = UnitCommandSuperseded(unit_command_id=ORDER, unit_id=UNIT_ID, by=NEWER)

applied = UnitCommandApplied(unit_command_id=ORDER, unit_id=UNIT_ID)
applied_late = applied.model_copy(update={"late": True})
late = UnitCommandRejected(unit_command_id=ORDER, unit_id=UNIT_ID, code="no_bed", late=True)
rejected = UnitCommandRejected(unit_command_id=ORDER, unit_id=UNIT_ID, code="no_bed")
in_doubt = rejected.model_copy(update={"code": "outcome_unknown"})
expired = UnitCommandExpired(unit_command_id=ORDER, unit_id=UNIT_ID)
cancelled = UnitCommandCancelled(unit_command_id=ORDER, unit_id=UNIT_ID)
retry = RetryUnitCommand(unit_command_id=ORDER)
retried = UnitCommandRetried(unit_command_id=ORDER, unit_id=UNIT_ID, attempt=2, deadline=moment(60))
HOUR = timedelta(hours=1)


def report(*, applied: bool, attempt: int = 1) -> ReportUnitCommand:
    return ReportUnitCommand(
        unit_command_id=ORDER, applied=applied, code=None if applied else "no_bed", attempt=attempt
    )


def test_a_newer_command_takes_the_place_of_an_open_one_with_its_key() -> None:
    history = given(clinic, keyed_queued).history
    assert history.carry_out(newer) == [newer_queued, superseded]
    given(clinic, keyed_queued, newer_queued, superseded).when(newer).then()


@pytest.mark.parametrize("end", [applied, rejected, expired, cancelled])
def test_what_has_ended_is_not_superseded(end: AnyEvent) -> None:
    given(clinic, keyed_queued, end).when(newer).then(newer_queued.model_copy(update={"supersedes": None}))


def test_commands_with_another_key_or_none_leave_one_another_alone() -> None:
    for key in ("rota", None):
        other = newer.model_copy(update={"supersede_key": key})
        queued = newer_queued.model_copy(update={"supersede_key": key, "supersedes": None})
        given(clinic, keyed_queued).when(other).then(queued)


def test_the_third_supersedes_the_second_and_not_the_first_again() -> None:
    third_id = UnitCommandId(UUID(int=78))
    third = keyed.model_copy(update={"unit_command_id": third_id})
    given(clinic, keyed_queued, newer_queued, superseded).when(third).then(
        newer_queued.model_copy(update={"unit_command_id": third_id, "supersedes": NEWER})
    )


def test_what_a_superseded_command_did_all_the_same_is_told_as_late() -> None:
    given(clinic, keyed_queued, newer_queued, superseded).when(report(applied=True)).then(applied_late)
    given(clinic, keyed_queued, newer_queued, superseded).when(report(applied=True)).answers(
        id=str(ORDER), status="superseded"
    )
    follow = SupersedeUnitCommand(unit_command_id=ORDER, by=NEWER)
    given(clinic, keyed_queued, applied).when(follow).then()


@pytest.mark.parametrize("end", [rejected, expired])
def test_what_failed_is_tried_again_for_as_long_as_it_had_at_first(end: AnyEvent) -> None:
    later = given(clinic, order_queued, end).at(5 * HOUR)
    again = retried.model_copy(update={"deadline": moment(6 * 60)})
    later.when(retry).then(again)
    later.when(retry).answers(id=str(ORDER), status="queued", attempt=2, deadline=moment(6 * 60).isoformat())


def test_a_further_attempt_can_be_given_its_own_deadline() -> None:
    given(clinic, order_queued, expired).at(5 * HOUR).when(retry.model_copy(update={"deadline": moment(10 * 60)})).then(
        retried.model_copy(update={"deadline": moment(10 * 60)})
    )
    past = retry.model_copy(update={"deadline": moment(60)})
    given(clinic, order_queued, expired).at(5 * HOUR).when(past).then_refused(DeadlineInPast)


def test_what_was_queued_before_the_time_was_noted_gets_a_day() -> None:
    old = order_queued.model_copy(update={"decided_at": None})
    given(clinic, old, expired).at(HOUR).when(retry).then(retried.model_copy(update={"deadline": moment(25 * 60)}))


def test_trying_again_what_is_open_or_done_changes_nothing() -> None:
    for history in ([], [applied], [expired, applied_late], [expired, retried], [expired, retried, applied]):
        given(clinic, order_queued, *history).when(retry).then()


@pytest.mark.parametrize("end", [cancelled, UnitCommandSuperseded(unit_command_id=ORDER, unit_id=UNIT_ID, by=NEWER)])
def test_what_nobody_wants_any_more_is_not_tried_again(end: AnyEvent) -> None:
    given(clinic, order_queued, end).when(retry).then_refused(UnitCommandFinal, unitCommandId=str(ORDER))
    given(clinic).when(retry).then_refused(UnitCommandNotFound)


def test_what_a_newer_word_has_overtaken_is_not_tried_again_even_when_that_one_has_ended() -> None:
    newer_alone = newer_queued.model_copy(update={"supersedes": None})
    done = applied.model_copy(update={"unit_command_id": NEWER})
    for after in ([], [done]):
        given(clinic, keyed_queued, expired, newer_alone, *after).when(retry).then_refused(
            NewerUnitCommand, unitCommandId=str(NEWER)
        )


def test_what_may_have_been_done_is_tried_again_only_if_somebody_says_so() -> None:
    sure = retry.model_copy(update={"confirm": True})
    again = retried.model_copy(update={"confirmed": True})
    late = in_doubt.model_copy(update={"late": True})
    for history in ([in_doubt], [expired, late]):
        given(clinic, order_queued, *history).when(retry).then_refused(OutcomeUnknown)
        given(clinic, order_queued, *history).when(sure).then(again)
    given(clinic, order_queued, rejected).when(sure).then(retried)


def test_a_doubt_stays_through_later_attempts_until_it_is_known_to_be_done() -> None:
    sure = retry.model_copy(update={"confirm": True})
    second = retried.model_copy(update={"confirmed": True})
    for end in (expired, rejected):
        doubtful = given(clinic, order_queued, in_doubt, second, end)
        doubtful.when(retry).then_refused(OutcomeUnknown)
        doubtful.when(sure).then(second.model_copy(update={"attempt": 3}))
        (notice,) = notices(end, doubtful.history.state(MAILBOX, unit_command_stream(ORDER)))
        assert notice.about.endswith("/outcome_unknown")
    given(clinic, order_queued, in_doubt, second, applied).when(retry).then()


def test_what_was_asked_of_an_erased_patient_is_not_tried_again() -> None:
    about = order_queued.model_copy(update={"patient_id": ANABA, "payload": None})
    given(clinic, anaba_erased, about, expired).when(retry).then_refused(RecordErased)


def test_an_attempt_ends_by_its_own_deadline_and_its_own_reports() -> None:
    second = given(clinic, order_queued, expired, retried)
    second.when(ExpireUnitCommand(unit_command_id=ORDER)).then()
    second.when(ExpireUnitCommand(unit_command_id=ORDER, attempt=2)).then(expired)
    second.when(report(applied=False)).then()
    second.when(report(applied=False, attempt=2)).then(rejected)
    second.when(report(applied=True)).then(applied)  # done is done, whichever attempt it was
    given(clinic, order_queued, expired, retried, applied).when(report(applied=True, attempt=2)).then()


def test_every_attempt_has_its_timer() -> None:
    expire = ExpireUnitCommand(unit_command_id=ORDER, attempt=2)
    (timer,) = timers(retried)
    assert timer == Timer(moment(60), expire, attempt_key(ORDER, 2))


def test_an_attempt_that_has_ended_needs_its_timer_no_more() -> None:
    cause = UUID(int=9)
    (first,), (second,) = timers(order_queued), timers(retried)

    def over(*events: AnyEvent) -> list[UUID]:
        history = given(clinic, *events).history
        return timers_over(events[-1], history.state(MAILBOX, unit_command_stream(ORDER)))

    for end in (applied, rejected, cancelled):
        assert over(order_queued, end) == [first.id(cause)]
        assert over(order_queued, expired, retried, end) == [second.id(cause)]
    assert over(order_queued) == over(order_queued, expired) == over(order_queued, expired, applied_late) == []


def test_a_mailbox_takes_so_many_open_commands_and_no_more() -> None:
    small = clinic.model_copy(update={"settings": clinic.settings.model_copy(update={"mailbox_limit": 1})})
    another = queue_order.model_copy(update={"unit_command_id": NEWER})
    given(small, order_queued).when(another).then_refused(MailboxFull, limit="1")
    for end in (applied, rejected, expired, cancelled):
        given(small, order_queued, end).when(another).then(order_queued.model_copy(update={"unit_command_id": NEWER}))
    full = given(small, order_queued, expired, order_queued.model_copy(update={"unit_command_id": NEWER}))
    full.when(retry).then_refused(MailboxFull)
    given(small, keyed_queued).when(newer).then(newer_queued)  # one goes as one comes


def test_the_usual_mailbox_holds_a_thousand() -> None:
    history = given(clinic, order_queued).history
    history.counts[OPEN_COMMANDS] = 999
    assert history.decide(newer)
    history.counts[OPEN_COMMANDS] = 1000
    with pytest.raises(MailboxFull):
        history.decide(newer)


def test_what_expired_or_was_rejected_is_the_operators_to_see_once_for_each_attempt() -> None:
    def told(*events: AnyEvent) -> list[tuple[Reason, str, UUID]]:
        history = given(clinic, *events).history
        state = history.state(MAILBOX, unit_command_stream(ORDER))
        return [(one.reason, one.about, one.id) for one in notices(events[-1], state)]

    ((first, about, first_id),) = told(order_queued, expired)
    ((second, why, second_id),) = told(order_queued, expired, retried, rejected)
    assert (first, about) == (Reason.UNIT_EXPIRED, "orders.place")
    assert (second, why) == (Reason.UNIT_REJECTED, "orders.place/no_bed")
    assert first_id != second_id
    for quiet in ([order_queued], [order_queued, applied], [order_queued, cancelled], [order_queued, cancelled, late]):
        assert told(*quiet) == []


def test_what_is_told_after_an_expiry_changes_the_operators_notice_or_ends_it() -> None:
    def last(*events: AnyEvent) -> tuple[Reason, str, UUID, str | None]:
        history = given(clinic, order_queued, *events).history
        (one,) = notices(events[-1], history.state(MAILBOX, unit_command_stream(ORDER)))
        return one.reason, one.about, one.id, one.resolution

    *_, first, _ = last(expired)
    doubtful = in_doubt.model_copy(update={"late": True})
    assert last(expired, doubtful) == (Reason.UNIT_REJECTED, "orders.place/outcome_unknown", first, None)
    assert last(expired, applied_late) == (Reason.UNIT_SETTLED, "orders.place", first, "applied late")
    assert last(expired, retried) == (Reason.UNIT_SETTLED, "orders.place", first, "tried again")
    assert last(expired, retried, expired)[2] != first


def test_the_notice_is_the_command_that_tries_again() -> None:
    history = given(clinic, order_queued, expired).history
    (notice,) = notices(expired, history.state(MAILBOX, unit_command_stream(ORDER)))
    assert notice.again == retry
    assert isinstance(history.decide(notice.again)[0], UnitCommandRetried)


def test_queued_twice_is_queued_once_whatever_it_superseded() -> None:
    given(clinic, keyed_queued, newer_queued, superseded).at(HOUR).when(newer).then()
    assert isinstance(newer_queued, UnitCommandQueued)
