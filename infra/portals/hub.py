"""Units that somebody here follows: bound at the broker, kept up with, told to each follower once and in order.

Bound for the feed alone (`unit.<id>.feed.batch`): a live call to a unit must not find its way to a process that merely
watches it. Pushes are hints: whatever is lost, late or doubled is made good from the log, at the latest by a sweep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog
from pydantic import ValidationError

from contracts import routing
from contracts.envelope import Fact, FeedBatch
from contracts.frames import CloseCode
from contracts.unit import UnitStatus
from infra.broker.consumer import Delivery
from infra.broker.errors import BrokerUnavailable
from infra.broker.inbox import Inbox
from infra.database import DatabaseUnavailable
from infra.portals.channel import Channel, needed
from infra.portals.following import Follower, ResetReason
from infra.portals.log import PortalLog
from infra.portals.views import Shown, Views
from infra.telemetry.metrics import Metrics

PAGE: Final = 500
RESUME_AT_MOST: Final = 1_000
"""Facts told to one that comes back; who missed more reads anew over HTTP."""
READERS: Final = 2
SWEEP_SECONDS: Final = 2.0
TROUBLE_PAUSE: Final = 1.0
BIND_PATIENCE: Final = 3.0
LINGER_SECONDS: Final = 30.0
"""A unit nobody follows any more is kept this long: pages are reloaded, bridges change."""

log = structlog.get_logger()


class UnitNotKnown(Exception):
    """There is no such unit, or it was retired."""


class Revoked(Exception):
    """The token was revoked by its role or account."""


def _not_shown(fact: Fact, why: Exception) -> None:
    log.error("fact_not_shown", type=fact.type, position=fact.position, error_type=type(why).__name__)


class Hub:
    """Everything followed by this process."""

    def __init__(self, source: PortalLog, broker_url: str, *, instance: str, metrics: Metrics) -> None:
        self._log = source
        self.inbox = Inbox(
            broker_url,
            instance=instance,
            on_delivery=self.arrived,
            on_gap=self.look_now,
            kind="portals",
            binding=routing.feed_key,
        )
        self._metrics = metrics
        self._views = Views(fault=_not_shown)
        self._channels: dict[str, Channel] = {}
        self._opening: dict[str, asyncio.Task[Channel]] = {}
        self._noted: dict[str, int] = {}
        """Through where batches came for units that are being opened."""
        self._behind: deque[Channel] = deque()
        self._work = asyncio.Semaphore(0)
        self._at_once = asyncio.Event()
        self._seen: dict[int, int] = {}
        """The checkpoints of one sweep ago: pushes of what became visible since may still be under way."""
        self._trouble: str | None = "log not read yet"

    def ready(self) -> str | None:
        """None when the log could be read the last time, else why not."""
        return self._trouble

    @property
    def units(self) -> int:
        """How many units are followed, or were a moment ago."""
        return len(self._channels)

    async def run(self) -> None:
        """Keep up, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(READERS):
                tasks.create_task(self._read())
            tasks.create_task(self._sweep())

    async def attach(self, follower: Follower, after: int | None) -> None:
        """Let it follow its unit, after that position (None: from now on); `follower.begin` was called on return.

        Raises UnitNotKnown, Revoked, DatabaseUnavailable.
        """
        channel = await self._opened(follower.unit_id)
        channel.joining += 1
        try:
            self._admit(channel, follower)
            missed: list[Shown] = []
            reset: ResetReason | None = None
            if after is not None:
                missed, reset = await self._missed(channel, after)
                self._admit(channel, follower)
            # From here on without a wait: what is shown next goes to the follower.
            channel.followers.add(follower)
            follower.begin(channel.partition, channel.position, missed, reset)
        finally:
            channel.joining -= 1
            self._note_empty(channel)

    def detach(self, follower: Follower) -> None:
        """It follows no longer; harmless when it never did."""
        channel = self._channels.get(follower.unit_id)
        if channel is not None:
            channel.followers.discard(follower)
            self._note_empty(channel)

    def position(self, unit_id: str) -> int:
        """Through where everything of the unit was shown."""
        return self._channels[unit_id].position

    def may_go_on(self, follower: Follower) -> bool:
        """Whether what the follower now says of itself was not revoked (after a renewal)."""
        channel = self._channels.get(follower.unit_id)
        return channel is None or not channel.revocations.forbid(follower.role, follower.subject, follower.since)

    def arrived(self, delivery: Delivery) -> None:
        """One batch from the broker."""
        try:
            batch = FeedBatch.model_validate_json(delivery.body)
        except ValidationError:
            log.error("message_not_understood", queue="portals")  # its facts are in the log all the same
            return
        self.batch(batch.unit_id, batch.after, batch.through, batch.facts)

    def batch(self, unit_id: str, after: int, through: int, facts: Sequence[Fact]) -> None:
        """Everything of a unit in (after, through]."""
        channel = self._channels.get(unit_id)
        if channel is None:
            if unit_id in self._opening:
                self._noted[unit_id] = max(through, self._noted.get(unit_id, 0))
            return
        self._offer(channel, after, through, facts)

    def look_now(self) -> None:
        """Pushes may have been lost for any unit: sweep at once."""
        self._at_once.set()

    # Opening and closing

    async def _opened(self, unit_id: str) -> Channel:
        channel = self._channels.get(unit_id)
        if channel is not None:
            return channel
        task = self._opening.get(unit_id)
        if task is None:
            task = self._opening[unit_id] = asyncio.create_task(self._open(unit_id), name="portals.open")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asked may have left
        return await asyncio.shield(task)

    async def _open(self, unit_id: str) -> Channel:
        try:
            with suppress(BrokerUnavailable, TimeoutError):  # bound as soon as it can be; until then sweeps bring all
                async with asyncio.timeout(BIND_PATIENCE):
                    await self.inbox.bind(unit_id)
            standing = await self._log.standing(unit_id)
            if standing is None or standing.status == UnitStatus.RETIRED:
                raise UnitNotKnown
            channel = Channel(unit_id, standing.partition, standing.visible, self._views)
            for fact in standing.history:
                channel.notice(fact)
            channel.learn(standing.history, {f"unit-{unit_id}": 2**31})
            channel.exists(self._noted.pop(unit_id, 0))
            channel.empty_since = asyncio.get_running_loop().time()
            self._channels[unit_id] = channel
            self._push(channel)
            return channel
        except BaseException:
            self.inbox.unbind(unit_id)
            raise
        finally:
            self._noted.pop(unit_id, None)
            self._opening.pop(unit_id, None)

    def _admit(self, channel: Channel, follower: Follower) -> None:
        if channel.is_retired:
            raise UnitNotKnown
        if channel.revocations.forbid(follower.role, follower.subject, follower.since):
            raise Revoked

    def _note_empty(self, channel: Channel) -> None:
        channel.empty_since = None if channel.is_needed else asyncio.get_running_loop().time()

    def _close_unneeded(self) -> None:
        now = asyncio.get_running_loop().time()
        for unit_id, channel in list(self._channels.items()):
            if channel.is_needed or channel.empty_since is None:
                continue
            if now - channel.empty_since > LINGER_SECONDS:
                del self._channels[unit_id]
                self.inbox.unbind(unit_id)

    # Telling

    def _offer(self, channel: Channel, after: int, through: int, facts: Sequence[Fact]) -> None:
        shown = channel.offer(after, through, facts)
        if shown is None:
            self._push(channel)
            return
        for follower in list(channel.followers):
            follower.take(shown, channel.position)
        now = datetime.now(UTC)
        for one in shown:
            self._metrics.portal_events.labels(one.event.event.value).inc()
            self._metrics.portal_delivery_duration_seconds.observe(max(0.0, (now - one.event.at).total_seconds()))
        if any(fact.type.startswith("unit.") for fact in facts):
            self._turn_out(channel)

    def _turn_out(self, channel: Channel) -> None:
        """Those who may not follow any more, now that this happened."""
        for follower in list(channel.followers):
            if channel.is_retired:
                follower.end(CloseCode.UNIT_NOT_FOUND, "the unit was retired")
            elif not self.may_go_on(follower):
                follower.end(CloseCode.CREDENTIAL_REVOKED, "portals of this role or account were revoked")

    # The log

    async def _missed(self, channel: Channel, after: int) -> tuple[list[Shown], ResetReason | None]:
        """What was shown after a position, up to where the channel stands at the moment of return."""
        if after > channel.position:  # told by a process that is a moment ahead of us, or by another installation
            await self._read_page(channel)
            if after > channel.position:
                return [], "unknown_position"
        views, missed, read, at = Views(), list[Shown](), 0, after
        while at < channel.position:
            recent = channel.recent(at)
            if recent is not None:
                missed += recent
                break
            page = await self._log.page(channel.unit_id, channel.partition, at, PAGE)
            if before := needed(views, page.facts):
                views.learn(await self._log.streams(channel.unit_id, channel.partition, before), before)
            read += len(page.facts)
            if read > RESUME_AT_MOST:
                return [], "too_far_back"
            if page.through <= at:
                return [], "unknown_position"
            through = min(page.through, channel.position)  # beyond it, it is told as it is shown
            for fact in page.facts:
                if fact.position <= through and (one := views.show(channel.unit_id, fact)) is not None:
                    missed.append(one)
            at = through
        return missed, None

    def _push(self, channel: Channel) -> None:
        """If the channel is behind, it gets its turn at the log."""
        if channel.is_behind and not channel.queued:
            channel.queued = True
            self._behind.append(channel)
            self._work.release()

    async def _read(self) -> None:
        while True:
            await self._work.acquire()
            channel = self._behind.popleft()
            try:
                moved = await self._read_page(channel)
            except DatabaseUnavailable:
                log.warning("portals_wait", reason="database_unavailable")
                await asyncio.sleep(TROUBLE_PAUSE)
                moved = True
            finally:
                channel.queued = False
            if moved:
                self._push(channel)

    async def _read_page(self, channel: Channel) -> bool:
        """Show what the log has beyond the channel's position; whether there was anything."""
        after = channel.position
        page = await self._log.page(channel.unit_id, channel.partition, after, PAGE)
        if before := channel.misses(page.facts):
            channel.learn(await self._log.streams(channel.unit_id, channel.partition, before), before)
        self._offer(channel, after, page.through, page.facts)
        return channel.position > after

    async def _sweep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._at_once.wait()
            hurried = self._at_once.is_set()
            self._at_once.clear()
            self._close_unneeded()
            try:
                await self._look(hurried=hurried)
                self._trouble = None
            except DatabaseUnavailable:
                self._trouble = "database unavailable"
                if hurried:
                    await asyncio.sleep(TROUBLE_PAUSE)
                    self._at_once.set()

    async def _look(self, *, hurried: bool) -> None:
        visible = await self._log.visible()
        through = visible if hurried else self._seen
        self._seen = visible
        spans = [
            (channel.unit_id, channel.partition, channel.position, through[channel.partition])
            for channel in self._channels.values()
            if through.get(channel.partition, 0) > channel.position
        ]
        if not spans:
            return
        for found in await self._log.reached(spans):
            channel = self._channels.get(found.unit_id)
            if channel is None:
                continue
            if found.position is None:
                channel.nothing_until(found.through)
            else:
                channel.exists(found.position)
                self._push(channel)
