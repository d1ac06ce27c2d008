"""A gateway whose answers are the test's: as it should be, a proxy's page, nothing at all, or another time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.envelope import Json
from infra.http_server import serving
from infra.unit_keys import SKEW, AssertionRefused, PublicKey, key_id_in, verified

Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class ScriptedGateway:
    """Answers as a gateway would, except where `script` says otherwise: one status an attempt, from the left."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    ahead: timedelta = timedelta()
    """Its clock against the test's."""
    urls: list[str] = field(default_factory=list)
    keys: dict[str, PublicKey] = field(default_factory=dict)
    codes: dict[str, str | None] = field(default_factory=dict)
    """By code: the key that was registered with it."""
    refused: dict[str, str] = field(default_factory=dict)
    """By key id: with which code it is refused."""
    seen: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    lifetime: timedelta = timedelta(minutes=10)

    def now(self) -> datetime:
        """The time here."""
        return datetime.now(UTC) + self.ahead

    async def take(self, request: Request) -> Response:
        """One request."""
        what = request.url.path.rpartition("/")[2]
        self.asked.append(what)
        unit_id, body = request.path_params["unit_id"], await request.json()
        answer = self._answer(what, unit_id, body)  # what is done is done, even where the answer is lost
        if self.script:
            status = self.script.pop(0)
            if status != 200:
                return Response("<html>an error page of a proxy</html>", status, media_type="text/html")
        return answer

    def _answer(self, what: str, unit_id: str, body: Json) -> Response:
        welcome = {"serverTime": self.now().isoformat(), "unitUrls": self.urls}
        if what == "enrol":
            key = PublicKey.read(body["publicKey"])
            if body["code"] not in self.codes:
                return self._no(422, "enrolment_code_not_valid")
            if self.codes[body["code"]] not in (None, key.key_id):
                return self._no(422, "enrolment_code_used")
            self.codes[body["code"]] = key.key_id
            self.keys[key.key_id] = key
            return JSONResponse({"keyId": key.key_id, **welcome}, 201)
        try:
            key_id = self._proved(unit_id, body["assertion"])
        except AssertionRefused as why:
            return self._no(401, why.code)
        if what == "keys":
            key = PublicKey.read(body["publicKey"])
            self.keys[key.key_id] = key
            return JSONResponse({"keyId": key.key_id, "replaces": key_id, **welcome})
        expires_at = self.now() + self.lifetime
        token = f"token-{len(self.asked)}-of-{key_id}"
        return JSONResponse({"token": token, "keyId": key_id, "expiresAt": expires_at.isoformat(), **welcome})

    def _proved(self, unit_id: str, assertion: str) -> str:
        key_id = key_id_in(assertion)
        if key_id not in self.keys:
            raise AssertionRefused("key_unknown")
        signed = verified(assertion, unit_id, self.keys[key_id], self.now().timestamp())
        if key_id in self.refused:
            raise AssertionRefused(self.refused[key_id])
        if signed.jti in self.seen:
            raise AssertionRefused("assertion_replayed")
        self.seen.add(signed.jti)
        return key_id

    def _no(self, status: int, code: str) -> Response:
        body = {"code": code, "status": status, "serverTime": self.now().isoformat()}
        return JSONResponse(body, status, media_type="application/problem+json")


FAR_OFF = timedelta(seconds=20 * SKEW)


@asynccontextmanager
async def scripted_gateway() -> AsyncIterator[ScriptedGateway]:
    """One, while the block runs."""
    gateway = ScriptedGateway()
    app = Starlette(routes=[Route("/api/units/{unit_id}/{what}", gateway.take, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0, grace=1) as gateway.url:
        yield gateway
