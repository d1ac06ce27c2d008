"""The poison command: dead-lettered, what follows it parked; both shown; the handlers repaired; both replayed.

Everything an operator would do is done with the `carespine` command itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any
from uuid import UUID

from contracts.envelope import Json
from infra.demo.ledger import WritingApi
from infra.demo.network import Network
from infra.demo.view import Say

DEFECT = "patient.UpdateDemographics"
"""What the handlers' first release in the demo cannot handle."""
CLI_SECONDS = 120


class NotAsExpected(Exception):
    """The system did something else than the demo is about; the message says what."""


class Poison:
    """One poison command and one that follows it, on the record of one patient."""

    def __init__(self, network: Network, api: WritingApi, say: Say) -> None:
        self._network = network
        self._api = api
        self._say = say
        self.commands: list[UUID] = []
        """In the order they were given, and must be handled."""
        self._letters: list[UUID] = []

    async def strike(self, unit_id: str, person: Json) -> None:
        """Give both commands; the first meets the defect, the second must wait behind it."""
        patient_id = person["patientId"]
        update = {name: value for name, value in person.items() if name in ("firstName", "lastName", "dateOfBirth")}
        update["roomNumber"] = "12A"
        path = f"/api/patients/{patient_id}"
        first = await self._api.ask(DEFECT, unit_id, path, update, method="PUT")
        number = {"patientId": patient_id, "medicalRecordNumber": person["medicalRecordNumber"] + "-B"}
        second = await self._api.command("patient.AssignMrn", unit_id, number, key="demo-behind-the-poison")
        for ended, wanted in ((first, "poison"), (second, "parked")):
            if (ended.status, ended.code) != ("failed", wanted) or not ended.command_id or not ended.dead_letter_id:
                raise NotAsExpected(
                    f"expected a command to be dead-lettered ({wanted}), it was {ended.status} {ended.code}"
                )
            self.commands.append(ended.command_id)
            self._letters.append(ended.dead_letter_id)
        self._say("a poison command: the handlers' release has a defect; it is dead-lettered, its partition goes on")
        self._say("a second command for the same patient is parked behind it, so that their order is kept")

    async def show(self) -> None:
        """What the desk has."""
        listed = {letter["letterId"]: letter for letter in (await self._carespine("list"))["items"]}
        for letter_id in self._letters:
            letter = listed[str(letter_id)]
            about = f"{letter['errorType']}, " if letter["errorType"] else ""
            self._say(f"$ carespine dead-letters list   {letter_id}  {letter['reason']} ({about}{letter['type']})")
        shown = await self._carespine("show", str(self._letters[0]))
        place = (shown["errorStack"] or "").strip().splitlines()
        self._say(f"$ carespine dead-letters show   {place[-1].strip() if place else shown['fingerprint']}")

    async def repair_and_replay(self) -> None:
        """Roll out handlers without the defect, then replay the first letter; its follower comes along."""
        await asyncio.to_thread(self._network.roll_out_repair)
        self._say("the repaired release is rolled out, one handler after the other, while the traffic goes on")
        reason = "the handlers were repaired"
        run = await self._carespine("replay", str(self._letters[0]), "--reason", reason)
        outcomes = [(item["letterId"], item["status"]) for item in run["items"]]
        if outcomes != [(str(letter_id), "applied") for letter_id in self._letters]:
            raise NotAsExpected(f"expected both letters to be applied in order, the replay says {outcomes}")
        self._say(f"$ carespine dead-letters replay {len(outcomes)} letters applied, in their order")

    async def _carespine(self, *words: str) -> dict[str, Any]:  # Any: JSON
        """Run `carespine dead-letters … --json` against the demo's network."""
        command = [sys.executable, "-c", "from infra.cli.app import main; main()", "dead-letters", *words, "--json"]
        environment = os.environ | {"CARESPINE_VAR": str(self._network.places.var)}
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=CLI_SECONDS
        )
        if done.returncode != 0:
            raise NotAsExpected(
                f"carespine dead-letters {words[0]} ended with {done.returncode}: {done.stderr.strip()}"
            )
        answer: dict[str, Any] = json.loads(done.stdout)  # Any: JSON
        return answer
