"""The operator's way with the `carespine dead-letters` command: see what failed, repair, replay in order, give up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contracts.identity import Role
from infra.api import Api, Ended
from tests.flows.importing import CARESPINE, Network, network
from tests.kit.processes import installation
from tests.kit.waiting import eventually

pytestmark = pytest.mark.timeout(300)

DEFECT = "CARESPINE_REHEARSE_DEFECT"
UNIT, SECRET = "north", "Zaphodina"
PATIENTS = [str(UUID(int=number)) for number in (1, 2)]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    said: str

    @property
    def json(self) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = json.loads(self.out)  # Any: JSON
        return found


class Operator:
    """Somebody at a terminal with an ops token."""

    def __init__(self, center: Network) -> None:
        self._center = center

    async def does(self, *words: str, role: Role = Role.OPS) -> Answer:
        environment = os.environ | {"CARESPINE_VAR": str(self._center.folder), "CARESPINE_URL": self._center.url}
        environment["CARESPINE_TOKEN"] = self._center.installation.token(role)
        command = [*CARESPINE, "dead-letters", *words]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    async def open_letters(self) -> list[dict[str, Any]]:  # Any: JSON
        letters: list[dict[str, Any]] = (await self.does("list", "--json")).json["items"]  # Any: JSON
        return letters


@pytest.fixture
async def center(postgres: str, rabbitmq: str, tmp_path: Path) -> AsyncIterator[Network]:
    with installation(postgres, rabbitmq, tmp_path) as installed:
        defect = {DEFECT: "patient.UpdateDemographics"}
        async with network(installed, tmp_path / "var", **defect) as center:
            async with Api(center.url, installed.token()) as api:
                await api.command("unit.RegisterUnit", UNIT, {"name": "North"}, key="north")
                for number, patient_id in enumerate(PATIENTS):
                    person = {"patientId": patient_id, "medicalRecordNumber": f"MRN-{number}", **who(SECRET)}
                    await api.command("patient.RegisterPatient", UNIT, person, key=patient_id)
            yield center


def who(family: str) -> dict[str, str]:
    return {"firstName": "Ana", "lastName": family, "dateOfBirth": "1984-02-29"}


async def poison(center: Network, patient_id: str) -> Ended:
    """A command that the handlers' release cannot handle."""
    async with Api(center.url, center.installation.token()) as api:
        update = {"patientId": patient_id, **who(SECRET)}
        return await api.command("patient.UpdateDemographics", UNIT, update, key=f"poison-{patient_id}")


async def follow(center: Network, patient_id: str) -> Ended:
    """A command about the same patient that nothing is wrong with."""
    async with Api(center.url, center.installation.token()) as api:
        return await api.command("patient.DeactivatePatient", UNIT, {"patientId": patient_id}, key=f"then-{patient_id}")


async def repair(center: Network) -> None:
    """Handlers of a release without the defect."""
    handlers = center.installation.started["command-handlers-1"]
    handlers.stop()
    del handlers.environment[DEFECT]
    handlers.start()
    await handlers.ready(within=60)


async def test_from_the_failure_to_the_replay_in_order(center: Network) -> None:
    operator = Operator(center)
    assert (await poison(center, PATIENTS[0])).code == "poison"
    assert (await follow(center, PATIENTS[0])).code == "parked"
    letters = await eventually(operator.open_letters, what="letters at the desk")
    assert [letter["reason"] for letter in letters] == ["bug", "parked"]
    first, second = (letter["letterId"] for letter in letters)

    shown = await operator.does("show", first)
    assert "RehearsedDefect" in shown.out
    assert SECRET not in shown.out
    planned = await operator.does("replay", first, "--dry-run", "--json")
    assert [item["letterId"] for item in planned.json["items"]] == [first, second]
    failed_again = await operator.does("replay", first, "--reason", "too early")
    assert failed_again.code == 7

    await repair(center)
    letters = await eventually(operator.open_letters, what="letters at the desk again")
    replayed = await operator.does("replay", first, "--reason", "repaired", "--json")

    assert replayed.code == 0, replayed
    assert [(item["letterId"], item["status"]) for item in replayed.json["items"]] == [
        (first, "applied"),
        (second, "applied"),
    ]
    assert await operator.open_letters() == []


async def test_a_look_at_the_payload_needs_a_reason(center: Network) -> None:
    operator = Operator(center)
    await poison(center, PATIENTS[1])
    ((letter),) = await eventually(operator.open_letters, what="the letter at the desk")

    without = await operator.does("show", letter["letterId"], "--reveal")
    with_reason = await operator.does("show", letter["letterId"], "--reveal", "--reason", "asked by the unit", "--json")

    assert without.code == 2
    assert with_reason.json["payload"]["lastName"] == SECRET


async def test_what_is_given_up_lets_its_followers_go_and_every_no_has_its_exit_code(center: Network) -> None:
    operator = Operator(center)
    await poison(center, PATIENTS[0])
    ((letter),) = await eventually(operator.open_letters, what="the letter at the desk")
    letter_id = letter["letterId"]

    assert (await operator.does("list", role=Role.NURSE)).code == 4
    assert (await operator.does("show", str(UUID(int=9)))).code == 5
    assert (await operator.does("replay", letter_id)).code == 2
    assert (await operator.does("discard", letter_id, "--reason", "a test system sent it")).code == 0
    assert (await operator.does("discard", letter_id, "--reason", "once more")).code == 6
    assert await operator.open_letters() == []
    assert (await follow(center, PATIENTS[0])).done
