"""A session's credential is renewed long before it runs out, whatever goes wrong on the way. Days in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from contracts.frames import UP, Renew, Renewed, Welcome
from tests.kit.waiting import eventually
from unit_agent import renewal
from unit_agent.credential import Credential, CredentialDelayed, CredentialUnusable
from unit_agent.link import Link
from unit_agent.renewal import Renewal

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Keyed(Credential):
    """An agent's own key, without a key: what it signs is a number."""

    def __init__(self) -> None:
        super().__init__("")
        self.signed = 0
        self.asked = 0
        self.answers: list[Exception | None] = []
        self.kept: list[str | None] = []

    def is_renewable(self) -> bool:
        return True

    def proof(self, now: datetime) -> str | None:
        self.signed += 1
        return f"assertion {self.signed}"

    async def newer(self, expires_at: datetime) -> str | None:
        self.asked += 1
        trouble = self.answers.pop(0) if self.answers else None
        if trouble is not None:
            raise trouble
        return f"token {self.asked}"

    def renewed(self, token: str | None, expires_at: datetime) -> None:
        self.kept.append(token)


class Session:
    """A link whose far end is the test's, and a clock that is only moved by waiting."""

    def __init__(self, credential: Credential, monkeypatch: pytest.MonkeyPatch, *, lifetime: float = 600) -> None:
        self.now = NOW
        self.said: list[Renew] = []
        self.slept: list[float] = []
        self.renewed_at: list[datetime] = []
        self.answer: Callable[[Renew], Renewed | None] = self.renew
        self.link = Link("north", 0, agent_version="test")
        self.link.hear(self._welcome(lifetime).to_json(), NOW)
        self.renewal = Renewal(
            self.link, credential, say=self._say, now=lambda: self.now, unit_id="north", sleep=self._sleep
        )
        self.lifetime = lifetime
        monkeypatch.setattr(renewal, "ANSWER", 0.02)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    def _welcome(self, lifetime: float) -> Welcome:
        return Welcome(
            epoch=1,
            head=0,
            heartbeat_seconds=20,
            max_frame_bytes=1000,
            server_time=NOW,
            credential_expires_at=NOW + timedelta(seconds=lifetime),
        )

    def renew(self, frame: Renew) -> Renewed | None:
        """What a bridge says that is content."""
        return Renewed(epoch=1, expires_at=self.now + timedelta(seconds=self.lifetime), token="next")

    async def _say(self, data: bytes) -> None:
        frame = UP.validate_json(data)
        assert isinstance(frame, Renew)
        self.said.append(frame)
        renewed = self.answer(frame)
        if renewed is not None:
            heard = self.link.hear(renewed.to_json(), self.now)
            assert isinstance(heard, Renewed)
            self.renewed_at.append(self.now)
            self.renewal.heard(heard)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let it run until then."""
        running = asyncio.create_task(self.renewal.run())
        try:
            await eventually(condition, within=10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_it_renews_at_two_thirds_of_the_lifetime_for_days_on_end(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = Keyed()
    session = Session(credential, monkeypatch)
    await session.until(lambda: len(session.said) >= 400)
    assert all(600 * 0.55 < wait <= 400.001 for wait in session.slept)
    assert len({frame.assertion for frame in session.said}) == len(session.said), "each is signed anew"
    assert session.now - NOW > timedelta(days=1)
    assert set(credential.kept) == {"next"}


async def test_a_renewal_without_an_answer_is_tried_again_by_the_other_way_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credential = Keyed()
    session = Session(credential, monkeypatch)
    session.answer = lambda frame: session.renew(frame) if len(session.said) >= 4 else None
    await session.until(lambda: bool(credential.kept))
    assert [bool(frame.assertion) for frame in session.said[:4]] == [True, False, True, False]
    assert session.said[1].token == "token 1"
    assert session.renewed_at[0] < NOW + timedelta(seconds=600), "before the first has run out"


async def test_a_gateway_that_answers_502_a_hundred_times_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = Keyed()
    credential.answers = [CredentialDelayed("http_502") for _ in range(100)]
    session = Session(credential, monkeypatch)
    session.answer = lambda frame: session.renew(frame) if frame.token is not None else None
    await session.until(lambda: bool(credential.kept))
    assert credential.asked >= 101


async def test_a_key_that_is_refused_over_http_is_still_shown_in_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = Keyed()
    credential.answers = [CredentialUnusable("key_revoked")]
    session = Session(credential, monkeypatch)
    session.answer = lambda frame: session.renew(frame) if len(session.said) == 2 else None
    await session.until(lambda: bool(credential.kept))
    assert [bool(frame.assertion) for frame in session.said[:2]] == [True, True]


async def test_a_session_that_is_held_over_is_renewed_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = Keyed()
    session = Session(credential, monkeypatch)

    def held_over(frame: Renew) -> Renewed | None:
        if len(session.said) > 3:
            return session.renew(frame)
        return Renewed(epoch=1, expires_at=session.now + timedelta(seconds=60))

    session.answer = held_over
    await session.until(lambda: "next" in credential.kept)
    assert credential.kept[:4] == [None, None, None, "next"]
    assert all(wait <= 40.001 for wait in session.slept[1:4])


async def test_a_token_that_nobody_renews_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(Credential("e30.e30.x"), monkeypatch)
    await session.renewal.run()
    assert not session.said
