"""What a site's system can count on: idempotency keys, signatures, and being left alone when it asks for it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from infra.http_server import serving
from tests.unit_agent.test_program import ORDER
from unit_agent.connectors import Done, Unsure
from unit_agent.webhook import SecretUnusable, Webhook, secret

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@asynccontextmanager
async def answering(say: Callable[[bytes, Request], Response], **options: object) -> AsyncIterator[Webhook]:
    """A site's system that says this, and its webhook."""

    async def answer(request: Request) -> Response:
        return say(await request.body(), request)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    async with serving(app, host="127.0.0.1", port=0, grace=1) as url:
        webhook = Webhook(f"{url}/orders", now=lambda: NOW, **options)  # type: ignore[arg-type]  # a test's options
        yield webhook
        await webhook.close()


async def test_every_request_is_signed_so_that_the_site_can_check_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    seen: list[tuple[bytes, Request]] = []

    def say(body: bytes, request: Request) -> Response:
        seen.append((body, request))
        return Response('{"applied": true}', media_type="application/json")

    async with answering(say, secret_file=file) as webhook:
        assert await webhook.run(ORDER) == Done({"applied": True})
        assert await webhook.ask(ORDER) == Done()
        assert await webhook.still_wanted(ORDER) is True
    for body, request in seen:
        moment, signed = (part.split("=")[1] for part in request.headers["carespine-signature"].split(","))
        text = f"{moment}.{request.method}.{request.url.path}.".encode() + body
        assert signed == hmac.new(b"0123456789abcdef", text, hashlib.sha256).hexdigest()
        assert int(moment) == int(NOW.timestamp())
    assert seen[0][1].headers["idempotency-key"] == str(ORDER.id)


async def test_without_its_secret_nothing_is_sent(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def say(body: bytes, request: Request) -> Response:
        seen.append(body)
        return Response()

    async with answering(say, secret_file=tmp_path / "missing") as webhook:
        assert await webhook.run(ORDER) == Unsure("SecretUnusable")
    assert seen == []
    (tmp_path / "short").write_text("short")
    with pytest.raises(SecretUnusable, match="openssl rand"):
        secret(tmp_path / "short")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7.0),
        ((NOW + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT"), 90.0),
        ("999999999", 3600.0),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
async def test_a_site_that_wants_to_be_left_alone_is(told: str, seconds: float) -> None:
    async with answering(lambda body, request: Response(status_code=503, headers={"Retry-After": told})) as webhook:
        assert await webhook.run(ORDER) == Unsure("http_503", after=seconds)


async def test_an_answer_from_elsewhere_decides_nothing() -> None:
    async with answering(lambda body, request: Response(status_code=302, headers={"Location": "/login"})) as webhook:
        assert await webhook.run(ORDER) == Unsure("http_302")


async def test_a_site_that_does_not_answer_in_time_leaves_it_open() -> None:
    async with answering(lambda body, request: Response(), timeout=0.000001) as webhook:
        answer = await webhook.run(ORDER)
        assert isinstance(answer, Unsure)
        assert answer.why in ("ConnectTimeout", "ReadTimeout", "WriteTimeout")


async def test_a_site_that_never_comes_to_the_end_of_its_answer_is_not_listened_to_for_ever() -> None:
    async def on_and_on() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    async with answering(lambda body, request: StreamingResponse(on_and_on()), timeout=0.2) as webhook:
        async with asyncio.timeout(5):
            assert await webhook.run(ORDER) == Unsure("TimeoutError")
