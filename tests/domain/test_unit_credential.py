"""A code registers one key; a key may be replaced, and what was revoked lets nobody in any more."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import hypothesis
import pytest
from hypothesis import strategies as st

from command_handlers.domain.unit_credential import MOST_KEYS, REMEMBERED_CODES
from contracts.catalogue import AnyCommand
from contracts.model import Refusal
from contracts.unit import UnitIsRetired, UnitRetired
from contracts.unit_credential import (
    EnrolmentCodeExpired,
    EnrolmentCodeIssued,
    EnrolmentCodeNotValid,
    EnrolmentCodeUsed,
    EnrolUnit,
    IssueEnrolmentCode,
    RevokeUnitCredential,
    RotateUnitKey,
    TooManyUnitKeys,
    UnitCredentialRevoked,
    UnitEnrolled,
    UnitKeyNotFound,
    UnitKeyReplaced,
    UnitKeyRevoked,
    UnitKeyRotated,
)
from tests.domain.examples import clinic
from tests.kit.deciding import MORNING, UNIT_ID, given

CODE, OTHER_CODE = "c0" * 32, "0c" * 32
OLD, NEW = "0" * 32, "1" * 32
PUBLIC = "A" * 43 + "="
TOMORROW = MORNING + timedelta(days=1)

issue = IssueEnrolmentCode(code_hash=CODE, expires_at=TOMORROW)
issued = EnrolmentCodeIssued(unit_id=UNIT_ID, code_hash=CODE, expires_at=TOMORROW)
enrol = EnrolUnit(code_hash=CODE, key_id=OLD, public_key=PUBLIC)
enrolled = UnitEnrolled(unit_id=UNIT_ID, code_hash=CODE, key_id=OLD, public_key=PUBLIC)
rotate = RotateUnitKey(replaces=OLD, key_id=NEW, public_key=PUBLIC, grace_seconds=3600)
AN_HOUR_ON = MORNING + timedelta(hours=1)
rotated = UnitKeyRotated(unit_id=UNIT_ID, key_id=NEW, public_key=PUBLIC, replaces=OLD, replaced_until=AN_HOUR_ON)


def revoked(key_id: str | None = None) -> UnitCredentialRevoked:
    return UnitCredentialRevoked(unit_id=UNIT_ID, key_id=key_id, not_before=MORNING, reason="stolen")


def key(number: int) -> EnrolUnit:
    return EnrolUnit(code_hash=f"{number:064x}", key_id=f"{number:032x}", public_key=PUBLIC)


def many(keys: int) -> list[EnrolmentCodeIssued | UnitEnrolled]:
    return [
        event
        for one in (key(number) for number in range(1, keys + 1))
        for event in (
            EnrolmentCodeIssued(unit_id=UNIT_ID, code_hash=one.code_hash, expires_at=TOMORROW),
            UnitEnrolled(unit_id=UNIT_ID, code_hash=one.code_hash, key_id=one.key_id, public_key=PUBLIC),
        )
    ]


def test_a_code_is_issued_once_and_tells_when_it_ends() -> None:
    given(clinic).when(issue).then(issued)
    given(clinic).when(issue).answers(id=UNIT_ID, status="active", expiresAt=TOMORROW.isoformat())
    given(clinic, issued).when(issue).then()


def test_a_code_registers_a_key() -> None:
    given(clinic, issued).when(enrol).then(enrolled)
    given(clinic, issued).when(enrol).answers(id=UNIT_ID, status="active", keyId=OLD)


def test_the_same_key_with_the_same_code_again_is_an_answer_that_was_lost() -> None:
    given(clinic, issued, enrolled).when(enrol).then()
    given(clinic, issued, enrolled).at(timedelta(days=30)).when(enrol).then()


def test_a_code_that_was_used_registers_no_other_key() -> None:
    another = EnrolUnit(code_hash=CODE, key_id=NEW, public_key=PUBLIC)
    given(clinic, issued, enrolled).when(another).then_refused(EnrolmentCodeUsed)


def test_a_code_ends() -> None:
    given(clinic, issued).at(timedelta(days=1)).when(enrol).then_refused(EnrolmentCodeExpired)
    given(clinic, issued).at(timedelta(days=1, seconds=-1)).when(enrol).then(enrolled)


def test_a_code_nobody_issued_registers_nothing() -> None:
    guessed = EnrolUnit(code_hash=OTHER_CODE, key_id=OLD, public_key=PUBLIC)
    given(clinic, issued).when(guessed).then_refused(EnrolmentCodeNotValid)


def test_only_the_latest_codes_are_good() -> None:
    later = [
        EnrolmentCodeIssued(unit_id=UNIT_ID, code_hash=f"{number:064x}", expires_at=TOMORROW)
        for number in range(REMEMBERED_CODES)
    ]
    given(clinic, issued, *later[1:]).when(enrol).then(enrolled)
    given(clinic, issued, *later).when(enrol).then_refused(EnrolmentCodeNotValid)


def test_a_unit_has_only_so_many_keys_that_are_good() -> None:
    eighth = [*many(MOST_KEYS), issued]
    given(clinic, *eighth).when(enrol).then_refused(TooManyUnitKeys)
    given(clinic, *eighth, revoked(key(1).key_id)).when(enrol).then(enrolled)
    to_be_replaced = RotateUnitKey(replaces=key(1).key_id, key_id=NEW, public_key=PUBLIC)
    given(clinic, *many(MOST_KEYS)).when(to_be_replaced).then_refused(TooManyUnitKeys)


def test_a_key_is_replaced_and_good_for_a_while_yet() -> None:
    given(clinic, issued, enrolled).when(rotate).then(rotated)
    given(clinic, issued, enrolled).when(rotate).answers(
        id=UNIT_ID, status="active", keyId=NEW, replaces=OLD, replacedUntil=AN_HOUR_ON.isoformat()
    )
    given(clinic, issued, enrolled, rotated).when(rotate).then()


def test_the_time_of_a_replaced_key_ends_and_is_not_made_longer() -> None:
    history = given(clinic, issued, enrolled, rotated)
    third = RotateUnitKey(replaces=OLD, key_id="2" * 32, public_key=PUBLIC)
    history.at(timedelta(minutes=59)).when(third).then(
        UnitKeyRotated(
            unit_id=UNIT_ID, key_id="2" * 32, public_key=PUBLIC, replaces=OLD, replaced_until=rotated.replaced_until
        )
    )
    history.at(timedelta(hours=1)).when(third).then_refused(UnitKeyReplaced)


def test_what_is_not_a_key_of_the_unit_is_neither_replaced_nor_revoked() -> None:
    given(clinic).when(rotate).then_refused(UnitKeyNotFound)
    given(clinic).when(RevokeUnitCredential(key_id=OLD)).then_refused(UnitKeyNotFound, keyId=OLD)


def test_one_key_is_revoked_and_the_others_are_not() -> None:
    history = given(clinic, issued, enrolled, rotated)
    history.when(RevokeUnitCredential(key_id=OLD, reason="stolen")).then(revoked(OLD))
    given(clinic, issued, enrolled, rotated, revoked(OLD)).when(RevokeUnitCredential(key_id=OLD)).then()
    after = RotateUnitKey(replaces=NEW, key_id="2" * 32, public_key=PUBLIC)
    assert given(clinic, issued, enrolled, rotated, revoked(OLD)).history.decide(after)


def test_a_revoked_key_is_never_good_again() -> None:
    history = given(clinic, issued, enrolled, revoked(OLD))
    history.when(rotate).then_refused(UnitKeyRevoked, keyId=OLD)
    history.when(enrol).then_refused(UnitKeyRevoked, keyId=OLD)
    given(clinic, issued, enrolled, rotated, revoked(NEW)).when(rotate).then_refused(UnitKeyRevoked, keyId=NEW)


def test_all_is_revoked_at_once_with_the_codes_nobody_has_used() -> None:
    open_code = EnrolmentCodeIssued(unit_id=UNIT_ID, code_hash=OTHER_CODE, expires_at=TOMORROW)
    history = given(clinic, issued, enrolled, open_code, revoked())
    history.when(rotate).then_refused(UnitKeyRevoked)
    history.when(EnrolUnit(code_hash=OTHER_CODE, key_id=NEW, public_key=PUBLIC)).then_refused(EnrolmentCodeNotValid)
    again = IssueEnrolmentCode(code_hash="ab" * 32, expires_at=TOMORROW)
    history.when(again).then(EnrolmentCodeIssued(unit_id=UNIT_ID, code_hash="ab" * 32, expires_at=TOMORROW))


def test_revoking_all_again_shuts_out_what_was_issued_since() -> None:
    history = given(clinic, issued, enrolled, revoked()).at(timedelta(hours=2))
    again = UnitCredentialRevoked(unit_id=UNIT_ID, not_before=MORNING + timedelta(hours=2), reason="revoked")
    history.when(RevokeUnitCredential()).then(again)


def test_a_second_revocation_in_the_same_second_reaches_beyond_the_tokens_that_the_first_has_left_good() -> None:
    # A token that is issued between the two says the next whole second, so that the first does not refuse it.
    first = UnitCredentialRevoked(unit_id=UNIT_ID, not_before=MORNING + timedelta(milliseconds=100), reason="stolen")
    history = given(clinic, issued, enrolled, first).at(timedelta(milliseconds=700))
    beyond = MORNING + timedelta(seconds=1, microseconds=1)
    again = UnitCredentialRevoked(unit_id=UNIT_ID, not_before=beyond, reason="revoked")
    history.when(RevokeUnitCredential()).then(again)


@pytest.mark.parametrize("command", [issue, enrol, rotate, RevokeUnitCredential()], ids=lambda one: type(one).__name__)
def test_a_retired_unit_has_no_credentials_any_more(command: AnyCommand) -> None:
    retired = UnitRetired(unit_id=UNIT_ID, reason="closed")
    given(clinic, issued, enrolled, retired).when(command).then_refused(UnitIsRetired)


hashes = st.sampled_from([f"{number:064x}" for number in range(3)])
key_ids = st.sampled_from([f"{number:032x}" for number in range(4)])
anything = st.lists(
    st.one_of(
        st.builds(lambda code: IssueEnrolmentCode(code_hash=code, expires_at=TOMORROW), hashes),
        st.builds(lambda code, key: EnrolUnit(code_hash=code, key_id=key, public_key=PUBLIC), hashes, key_ids),
        st.builds(
            lambda old, new: RotateUnitKey(replaces=old, key_id=new, public_key=PUBLIC, grace_seconds=60),
            key_ids,
            key_ids,
        ),
        st.builds(lambda key: RevokeUnitCredential(key_id=key), st.none() | key_ids),
    ),
    max_size=40,
)


@hypothesis.given(anything)
def test_whatever_is_asked_a_code_is_used_once_and_what_was_revoked_stays_so(commands: list[AnyCommand]) -> None:
    history = given(clinic).history
    void: set[str] = set()
    for minute, command in enumerate(commands):
        history.at = MORNING + timedelta(minutes=minute)
        with suppress(Refusal):
            history.carry_out(command)
        keys = history.unit.credentials.keys
        void |= {key_id for key_id, known in keys.items() if known.is_revoked}
        assert not any(keys[key_id].is_good(history.at) for key_id in void), "never good again"
    enrolled_with = [event.code_hash for event in history.events if isinstance(event, UnitEnrolled)]
    registered = [event.key_id for event in history.events if isinstance(event, UnitEnrolled | UnitKeyRotated)]
    issued_codes = [event.code_hash for event in history.events if isinstance(event, EnrolmentCodeIssued)]
    assert all(enrolled_with.count(code) <= issued_codes.count(code) for code in enrolled_with)
    assert set(registered) == set(history.unit.credentials.keys)
