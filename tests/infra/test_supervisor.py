"""Local processes: supervised, looked at, stopped; tried with pretending ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import running, supervisor
from infra.installation import Counts, Places, Plan, Program, make_plan
from infra.services.detached import Identity
from infra.services.ports import LOOPBACK, free_ports
from tests.kit.waiting import eventually

Starter = Callable[..., None]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    here = Places(tmp_path)
    yield here
    running.stop(here)


@pytest.fixture
def start(places: Places) -> Starter:
    """Start pretending processes, each with its behaviour."""

    def started(**behaviours: str) -> None:
        programs = [
            Program(
                name=name,
                package="tests.infra.pretending_process",
                health_url=f"http://{LOOPBACK}:{port}",
                environment={
                    "CARESPINE_INSTANCE": name,
                    "CARESPINE_HEALTH_PORT": str(port),
                    "CARESPINE_TEST_JOURNAL": str(places.var / "journal"),
                    "CARESPINE_TEST_BEHAVIOUR": behaviour,
                },
            )
            for (name, behaviour), port in zip(behaviours.items(), free_ports(len(behaviours)), strict=True)
        ]
        running.start(places, Plan(programs=programs, gateway_url="", bridges=[]))

    return started


def only(places: Places) -> running.ProcessStatus:
    (process,) = running.processes(places)
    return process


async def test_a_killed_process_is_started_again(places: Places, start: Starter) -> None:
    start(one="well")
    (before,) = running.wait_until_ready(places, timeout=10)
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    await eventually(lambda: only(places).restarts == 1 and only(places).state == "ready")
    assert only(places).pid != before.pid


def test_processes_stop_in_the_reverse_order_of_their_start(places: Places, start: Starter) -> None:
    start(first="well", second="well", third="well")
    running.wait_until_ready(places, timeout=10)
    assert running.stop(places)
    assert (places.var / "journal").read_text().split() == ["third", "second", "first"]
    assert running.processes(places) == []


def test_stopping_twice_is_no_trouble(places: Places, start: Starter) -> None:
    start(one="well")
    assert running.stop(places)
    assert not running.stop(places)


async def test_what_a_killed_supervisor_leaves_behind_is_stopped(places: Places, start: Starter) -> None:
    start(one="well")
    (process,) = running.wait_until_ready(places, timeout=10)
    identity = running.supervisor(places)
    assert identity
    assert process.pid
    child = Identity.of(process.pid)
    os.kill(identity.pid, signal.SIGKILL)
    await eventually(lambda: running.supervisor(places) is None)
    assert child.process()
    assert running.stop(places)
    assert child.process() is None


def test_a_state_file_that_names_a_stranger_does_no_harm(places: Places) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        places.state.parent.mkdir(parents=True)
        entry = {"pid": stranger.pid, "started": 1.0}
        places.state.write_text(json.dumps({"supervisor": entry, "processes": [entry | {"name": "one"}]}))
        assert running.supervisor(places) is None
        assert not running.stop(places)
        assert stranger.poll() is None, "a stranger was ended"
        stranger.communicate(b"\n")


def test_a_process_that_does_not_get_ready_is_named_with_its_reason(places: Places, start: Starter) -> None:
    start(healthy="well", ailing="unready")
    with pytest.raises(TimeoutError, match=r"(?s)ailing is not ready.*the broker is away") as trouble:
        running.wait_until_ready(places, timeout=2)
    assert "healthy" not in str(trouble.value)


def test_a_process_that_ends_again_and_again_is_not_waited_for(places: Places, start: Starter) -> None:
    start(healthy="well", ailing="crashing")
    with pytest.raises(running.StartFailed, match=r"(?s)ailing is not ready.*the settings are incomplete"):
        running.wait_until_ready(places, timeout=60)


def test_a_log_that_was_copied_aside_goes_on_empty(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with log.open("ab") as writer:
        writer.write(b"before\n")
        writer.flush()
        supervisor.rotate(log)
        writer.write(b"after\n")
    assert (tmp_path / "one.log.1").read_text() == "before\n"
    assert log.read_text() == "after\n"


def test_ports_and_keys_are_those_of_last_time(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODE", "MASTER_KEY", "TOKEN_PRIVATE_KEY", "TOKEN_PUBLIC_KEY"):
        monkeypatch.delenv(f"CARESPINE_{name}", raising=False)
    one = make_plan(places, postgres_url="postgresql:", rabbitmq_url="amqp:", counts=Counts())
    other = make_plan(places, postgres_url="postgresql:", rabbitmq_url="amqp:", counts=Counts())
    assert one == other
    assert [program.name for program in one.programs] == [
        "handlers-1",
        "handlers-2",
        "projections-1",
        "bridge-1",
        "bridge-2",
        "gateway-1",
    ]


def test_secrets_of_an_installation_are_readable_by_their_owner_alone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARESPINE_MODE", raising=False)
    make_plan(places, postgres_url="postgresql:", rabbitmq_url="amqp:", counts=Counts()).write(places.plan)
    for path in (*places.keys.iterdir(), places.plan):
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_in_production_no_key_is_made_up(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARESPINE_MODE", "production")
    for name in ("MASTER_KEY", "TOKEN_PRIVATE_KEY", "TOKEN_PUBLIC_KEY"):
        monkeypatch.delenv(f"CARESPINE_{name}", raising=False)
    plan = make_plan(places, postgres_url="postgresql:", rabbitmq_url="amqp:", counts=Counts())
    assert not places.keys.exists()
    assert "CARESPINE_MASTER_KEY" not in plan.programs[0].environment
