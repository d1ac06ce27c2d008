"""The agent's HTTP API for the site's own software, on loopback only.

Every path but `/health` and `/metrics` wants the token in `<data>/local-token` as a bearer token, since other accounts
of the machine reach loopback too. Answers come from this disk and are as old as `lastContact` in `/status` says; what
was done here since and the centre has yet to confirm is in them, marked as provisional.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.envelope import Json
from contracts.ids import Department
from infra.telemetry.metrics import Metrics
from unit_agent import conflicts, local_commands, local_views, mailbox, outbox, site_queues
from unit_agent.link_state import LinkState, Shared
from unit_agent.room import Room

BODY_LIMIT: Final = 64 * 1024
LISTED: Final = 200
DISK_FULL: Final = "The agent's disk is full or nearly so; nothing was taken. Make room and send it again."
_DEPARTMENT: Final[TypeAdapter[str]] = TypeAdapter(Department)

Answering = Callable[[Request], Awaitable[Response]]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: str = Field(max_length=100)
    payload: Json = Field(default_factory=dict)
    subject: str = Field("agent", max_length=100)
    """Account id of whoever acts at the site."""


def local_token(folder: Path) -> str:
    """The token of this agent's local API, made at the first start, readable by this account only."""
    path = folder / "local-token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32), encoding="ascii")
    return path.read_text(encoding="ascii").strip()


def problem(status: int, code: str, detail: str, about: dict[str, str] | None = None) -> Response:
    """RFC 9457."""
    title = HTTPStatus(status).phrase
    body = {"type": f"urn:carespine:problem:{code}", "title": title, "status": status, "code": code, "detail": detail}
    if about:
        body |= {"about": about}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


class LocalApi:
    """Answers for one unit."""

    def __init__(self, shared: Shared, token: str, metrics: Metrics) -> None:
        self._shared = shared
        self._store = shared.store
        self._token = token
        self._metrics = metrics
        self._conflicts_told: dict[str, int] = {}
        """How many of each code the metrics have counted."""

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/metrics", self._exposition),
                Route("/status", self._locked(self._status)),
                Route("/patients", self._locked(self._patients)),
                Route("/patients/{patient_id}", self._locked(self._patient)),
                Route("/queues/{department}", self._locked(self._queue)),
                Route("/commands", self._locked(self._submit), methods=["POST"]),
                Route("/commands/{command_id}", self._locked(self._command)),
                Route("/conflicts", self._locked(self._conflicts)),
                Route("/conflicts/{command_id}/seen", self._locked(self._seen), methods=["POST"]),
                Route("/unit-commands", self._locked(self._unit_commands)),
            ]
        )

    def _locked(self, answer: Answering) -> Answering:
        async def locked(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                return problem(401, "token_invalid", "Send the token in the file local-token as a bearer token.")
            try:
                return await answer(request)
            except sqlite3.Error as trouble:
                if self._shared.room.noticed(trouble):
                    return problem(507, "disk_full", DISK_FULL)
                return problem(507, "store_unusable", "The agent's disk cannot be used; nothing was taken.")

        return locked

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "link": self._shared.state.state})

    async def _status(self, request: Request) -> Response:
        figures = await self._store.run(self._store.figures)
        counts = await self._store.run(conflicts.counts, self._store.db)
        link = link_report(self._shared.state)
        told: Json = {"unit": self._shared.unit_id, "link": link, "store": figures, "conflicts": counts}
        told["disk"] = disk_report(self._shared.room)
        reports = self._shared.reports
        return JSONResponse(told | await self._store.run(lambda: {name: report() for name, report in reports.items()}))

    async def _patients(self, request: Request) -> Response:
        text = request.query_params.get("search", "")
        return JSONResponse({"items": await self._store.run(local_views.search_patients, self._store.db, text)})

    async def _patient(self, request: Request) -> Response:
        patient_id = request.path_params["patient_id"]
        found = await self._store.run(local_views.patient_summary, self._store.db, patient_id)
        if found is None:
            return problem(404, "patient_not_found", "This unit's feed has told of no such patient.")
        return JSONResponse(found)

    async def _queue(self, request: Request) -> Response:
        try:
            department = _DEPARTMENT.validate_python(request.path_params["department"])
        except ValidationError:
            return problem(422, "content_invalid", "A department code is letters, digits and dashes.")
        now = self._shared.state.now()
        return JSONResponse(await self._store.run(site_queues.waiting_room, self._store.db, department, now))

    async def _submit(self, request: Request) -> Response:
        if int(request.headers.get("content-length", BODY_LIMIT + 1)) > BODY_LIMIT:
            return problem(413, "body_too_large", f"At most {BODY_LIMIT} bytes, and say how many.")
        try:
            asked = _Asked.model_validate_json(await request.body())
        except ValidationError:
            return problem(400, "validation_failed", "Send {type, payload} as a JSON object.")
        if not self._shared.room.for_new:
            return problem(507, "disk_full", DISK_FULL)
        key = request.headers.get("idempotency-key")
        now = self._shared.state.now()
        try:
            kept = await self._store.run(
                local_commands.keep,
                self._store,
                self._shared.unit_id,
                asked.type,
                asked.payload,
                subject=asked.subject,
                key=key,
                now=now,
                linked=self._shared.state.connected,
            )
        except local_commands.NotNow as wrong:
            return problem(409, wrong.code, wrong.detail, wrong.about)
        except local_commands.NotACommand as wrong:
            return problem(403 if wrong.code == "not_allowed" else 422, wrong.code, wrong.detail)
        except outbox.AnotherCommandHasThisId:
            return problem(422, "idempotency_key_reused", "This Idempotency-Key came with another command.")
        self._shared.outbox_changed.set()
        command_id = str(kept.command_id)
        body: Json = {"commandId": command_id, "status": "waiting", **kept.ids, **kept.place}
        if kept.shown:
            body["provisional"] = True
        return JSONResponse(body, status_code=202, headers={"Location": f"/commands/{command_id}"})

    async def _command(self, request: Request) -> Response:
        found = await self._store.run(outbox.status, self._store.db, request.path_params["command_id"])
        if found is None:
            return problem(404, "command_not_found", "No such command was made at this unit.")
        return JSONResponse(found)

    async def _conflicts(self, request: Request) -> Response:
        before, only_open = request.query_params.get("cursor"), request.query_params.get("open") == "true"
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 18):
            return problem(400, "cursor_not_valid", "Give `cursor` as the answer before had it.")
        items = await self._store.run(
            conflicts.listing,
            self._store.db,
            before=None if before is None else int(before),
            only_open=only_open,
            limit=LISTED,
        )
        body: Json = {"items": items, "counts": await self._store.run(conflicts.counts, self._store.db)}
        if len(items) == LISTED:
            body["nextCursor"] = str(items[-1]["seq"])
        return JSONResponse(body)

    async def _seen(self, request: Request) -> Response:
        command_id, now = request.path_params["command_id"], self._shared.state.now()
        if not await self._store.run(conflicts.seen, self._store.db, command_id, now):
            return problem(404, "conflict_not_found", "No such command is in conflict.")
        return Response(status_code=204)

    async def _unit_commands(self, request: Request) -> Response:
        return JSONResponse({"items": await self._store.run(mailbox.listing, self._store.db, LISTED)})

    async def _exposition(self, request: Request) -> Response:
        figures = await self._store.run(self._store.figures)
        state, metrics = self._shared.state, self._metrics
        metrics.agent_outbox_messages.set(figures["outboxWaiting"])
        metrics.agent_conflicts_open.set((await self._store.run(conflicts.counts, self._store.db))["open"])
        for code, count in (await self._store.run(conflicts.by_code, self._store.db)).items():
            metrics.agent_conflicts.labels(code).inc(count - self._conflicts_told.get(code, 0))
            self._conflicts_told[code] = count
        metrics.agent_journal_bytes.set(figures["bytesOnDisk"])
        metrics.agent_connected.set(state.connected)
        for measure in self._shared.measures:
            await self._store.run(measure, metrics)
        metrics.agent_room_short.set(not self._shared.room.for_new)
        metrics.agent_disk_free_bytes.set(self._shared.room.free_bytes or 0)
        metrics.agent_clock_skew_seconds.set(-state.clock_skew.total_seconds())
        metrics.agent_last_ack_timestamp_seconds.set(state.last_ack.timestamp() if state.last_ack else 0)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def link_report(state: LinkState) -> Json:
    """The link as `/status` tells of it."""

    def said(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return {
        "state": state.state,
        "connected": state.connected,
        "epoch": state.epoch,
        "head": state.head,
        "sessions": state.sessions,
        "why": state.why,
        "remedy": state.remedy,
        "retryAt": said(state.retry_at),
        "connectedAt": said(state.connected_at),
        "lastContact": said(state.last_contact),
        "lastAck": said(state.last_ack),
        "clockSkewSeconds": round(state.clock_skew.total_seconds(), 3),
    }


def disk_report(room: Room) -> Json:
    """The disk as `/status` tells of it."""
    takes_new = room.for_new
    return {
        "state": room.state,
        "takesNew": takes_new,
        "freeBytes": room.free_bytes,
        "since": None if room.since is None else room.since.isoformat(),
    }


def write_address(folder: Path, url: str, pid: int) -> None:
    """Where the site's software finds this API: `<data>/local-api.json`."""
    draft = folder / "local-api.json.new"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({"url": url, "pid": pid, "tokenFile": str(folder / "local-token")}), encoding="utf-8")
    draft.replace(folder / "local-api.json")
