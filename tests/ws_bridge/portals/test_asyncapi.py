"""The portal protocol's document is what the code speaks, and every frame and event fits its schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import jsonschema
import pytest

from contracts import portal
from contracts.catalogue import COMMANDS
from contracts.frames import CloseCode
from contracts.identity import Role
from contracts.model import Model
from contracts.portal import EventName, Topic
from tests.infra.portals.test_views import busy_day, shown_of
from tests.kit.asyncapi import leading_nowhere, used_messages
from ws_bridge.portals.asyncapi import SHOWS, document, main

ROOT = Path(__file__).parents[3]
ID = UUID("01996a2e-3c40-7a51-8b1e-5d2f7c9e0a11")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOPICS = frozenset(Topic)

SAID: list[Model] = [
    portal.Hello(topics=TOPICS, unit_id="north", departments=frozenset({"radiology"}), position=5),
    portal.Subscribe(topics=TOPICS, departments=None),
    portal.Unsubscribe(topics=frozenset({Topic.UNITS})),
    portal.Renew(token="a.b.c"),
    portal.QueueUpdate(request_id="1", action="call-next", payload={"department": "general"}, idempotency_key="k"),
    portal.PatientStatusUpdate(request_id="1", action="triage", payload={"acuity": 2}),
    portal.Ping(position=5, server_time=NOON),
    portal.Pong(),
    portal.Welcome(
        unit_id="north", partition=3, position=5, topics=[Topic.UNITS], denied=[Topic.RESULTS], subject="dr-7",
        role=Role.OPS, expires_at=NOON, heartbeat_seconds=20, server_time=NOON,
    ),
    portal.Event(
        event=EventName.UNIT_CHANGED, topic=Topic.UNITS, position=5, unit_id="north", at=NOON,
        data=portal.UnitChanged(status="active", reachable=True, change="UnitRegistered"),
    ),
    portal.Reset(position=5, reason="too_far_back"),
    portal.Subscribed(topics=[Topic.UNITS], denied=[], position=5),
    portal.Renewed(expires_at=NOON, role=Role.NURSE, topics=[Topic.UNITS]),
    portal.OutcomeOf(request_id="1", command_id=ID, status="accepted", result={"ticket": 1}, position=5),
    portal.Declined(request_id="1", code="not_allowed", detail="No."),
    portal.Bye(code=1001, reason="leaving", may_reconnect=True, retry_after_seconds=2),
]  # fmt: skip


def validator(schema: str) -> jsonschema.protocols.Validator:
    return jsonschema.Draft202012Validator({**document(), "$ref": f"#/components/schemas/{schema}"})


def test_the_document_in_docs_is_the_one_the_code_writes(tmp_path: Path) -> None:
    assert main([str(ROOT / "docs/protocol/portal.asyncapi.json"), "--check"]) == 0
    stale = tmp_path / "stale.json"
    stale.write_text("{}")
    assert main([str(stale), "--check"]) == 7
    assert main([str(stale)]) == 0
    assert main([str(stale), "--check"]) == 0


@pytest.mark.parametrize("frame", SAID, ids=lambda frame: frame.type)
def test_every_frame_fits_its_schema_and_nothing_else_does(frame: Model) -> None:
    said = json.loads(frame.to_json())
    check = validator(type(frame).__name__)
    check.validate(said)
    assert not check.is_valid({**said, "type": "else"})
    assert not check.is_valid({**said, "unheardOf": 1})
    assert not check.is_valid({name: value for name, value in said.items() if name != "type"})


def test_every_event_of_a_day_fits_what_the_document_says_of_it() -> None:
    whole = document()
    for shown in shown_of(busy_day()):
        event = json.loads(shown.frame)
        validator("Event").validate(event)
        about = whole["x-events"][event["event"]]
        assert about["topic"] == event["topic"]
        validator(about["data"]["$ref"].rpartition("/")[2]).validate(event["data"])


def test_every_frame_stands_in_the_document_and_belongs_to_an_operation() -> None:
    whole = document()
    messages = set(whole["components"]["messages"])
    assert messages == {frame.type for frame in SAID}  # type: ignore[attr-defined]  # frames have a type
    assert used_messages(whole) == messages


def test_every_reference_leads_somewhere() -> None:
    assert leading_nowhere(document()) == set()


def test_every_topic_event_action_and_close_code_stands_there_and_on_the_page() -> None:
    whole = document()
    page = (ROOT / "docs/portals.md").read_text(encoding="utf-8")
    assert set(SHOWS) == set(EventName)
    for name in [*Topic, *EventName]:
        assert f"`{name.value}`" in page
    for actions in whole["x-actions"].values():
        for action, command in actions.items():
            assert command in COMMANDS
            assert f"`{action}`" in page
    for code in portal.CLOSINGS:
        yes = "yes" if portal.CLOSINGS[code].may_reconnect else "no"
        assert f"| {int(code)} {code.name} |" in page
        assert any(line.startswith(f"| {int(code)} ") and f"| {yes}" in line for line in page.splitlines())
    assert {int(code) for code in CloseCode} >= {closing["code"] for closing in whole["x-close-codes"]}
