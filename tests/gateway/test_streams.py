"""A gateway that leaves lets go of every stream, also of those that are opened while it does."""

from __future__ import annotations

import asyncio
from typing import cast

from contracts.frames import CloseCode
from contracts.identity import Role
from contracts.portal import Topic
from gateway.streams import Stream, Streams
from infra.portals.hub import Hub
from infra.telemetry.metrics import Metrics
from infra.tokens import Claims


def stream() -> Stream:
    claims = Claims(sub="somebody", role=Role.NURSE, unit="north", exp=2**40, iat=0, nbf=0, jti="j")
    return Stream(claims, "north", frozenset(Topic), None)


async def test_a_stream_that_opens_while_the_gateway_leaves_ends_at_once() -> None:
    streams, stopping = Streams(cast(Hub, None), Metrics()), asyncio.Event()
    early, late = stream(), stream()
    streams.opened(early)
    stopping.set()
    await streams.leave_when(stopping)
    streams.opened(late)
    assert (early.ended, late.ended) == (CloseCode.GOING_AWAY, CloseCode.GOING_AWAY)
    assert b"event: bye" in late.due()
