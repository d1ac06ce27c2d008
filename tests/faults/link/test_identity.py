"""Two agents with one identity, and credentials that run out in the middle of a frame."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.frames import CloseCode
from tests.faults.link.conftest import UNIT_TOKEN_SECONDS, Scene
from tests.faults.link.resident import own_keys, resident_agents
from tests.kit.lines import Limits
from tests.kit.waiting import eventually
from unit_agent.credential import Credential

pytestmark = pytest.mark.timeout(240)

TOKEN_SECONDS = 6
TURNED_AWAY = f"closed_{CloseCode.CONTESTED:d}"


async def test_two_agents_with_one_identity_do_everything_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site tells repeats by the command's id, as any site has to that two agents work for."""
    monkeypatch.setattr("unit_agent.reconnect.LONGEST", 1.0)
    async with resident_agents(scene) as ours:
        await scene.linked()
        async with scene.busy(repeats=True):
            async with resident_agents(scene, folder=scene.folder / "twin") as twins:
                await eventually(
                    lambda: all(one.state.why == TURNED_AWAY for one in twins.values()),
                    within=60,
                    what="the twins are turned away for good",
                )
                await eventually(lambda: all(one.state.connected for one in ours.values()), what="the first keep it")
                contested = scene.database.execute(
                    "SELECT count(*) FROM unit_sessions WHERE unit_id = ANY(%s) AND contested_until > now()",
                    (scene.units,),
                ).fetchone()
                assert contested == (len(scene.units),)
                await scene.executed(10)
            await scene.executed(5)


async def test_a_token_that_runs_out_in_the_middle_of_a_frame_loses_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit_agent.reconnect.LONGEST", 1.0)
    credentials = {unit_id: scene.folder / f"{unit_id}.token" for unit_id in scene.units}
    for unit_id, file in credentials.items():
        file.write_text(scene.token(unit_id))
    given = {unit_id: Credential(f"@{file}") for unit_id, file in credentials.items()}
    async with resident_agents(scene, credentials=given) as agents:
        await scene.linked()
        async with scene.busy():
            for unit_id, file in credentials.items():
                file.write_text(scene.token(unit_id, ttl=TOKEN_SECONDS))
            over = datetime.now(UTC).timestamp() + TOKEN_SECONDS
            scene.line.limits = lambda: Limits(up=2500, hold=True)
            scene.line.cut()
            await eventually(
                lambda: scene.line.held >= len(agents), what="a frame of each unit stands half on the wire"
            )
            await eventually(lambda: datetime.now(UTC).timestamp() > over, what="the tokens have run out")
            scene.line.limits = Limits
            scene.line.release()
            scene.line.cut()
            await eventually(
                lambda: all(agent.state.why == "http_401" for agent in agents.values()),
                what="nobody is let in with what has run out",
            )
            for unit_id, file in credentials.items():
                file.write_text(scene.token(unit_id))
            await scene.executed(10)


async def test_links_outlive_their_tokens_though_renewals_are_held_up_in_the_middle_of_a_frame(scene: Scene) -> None:
    credentials = await own_keys(scene)
    scene.line.limits = lambda: Limits(up=4000, hold=True)
    async with resident_agents(scene, credentials=credentials) as agents:
        await scene.linked()
        async with scene.busy():
            await eventually(
                lambda: scene.line.held >= len(agents), what="a frame of each unit stands half on the wire"
            )
            over = datetime.now(UTC).timestamp() + UNIT_TOKEN_SECONDS
            await eventually(lambda: datetime.now(UTC).timestamp() > over, what="every token has run out")
            scene.line.limits = Limits
            scene.line.release()
            await scene.executed(10)
            over = datetime.now(UTC).timestamp() + UNIT_TOKEN_SECONDS
            await eventually(lambda: datetime.now(UTC).timestamp() > over, what="and has run out again")
        assert [agent.state.sessions for agent in agents.values()] == [1] * len(agents), "renewed in the link itself"
