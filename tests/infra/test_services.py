"""The launcher of local services, tried on real ones."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiormq
import psycopg
import pytest

from infra.services.answers import why_postgres_is_silent, why_rabbitmq_is_silent
from infra.services.detached import Identity, ServiceTrouble, wait_until
from infra.services.launcher import Services, ensure_services, running_urls, stop_services
from infra.services.ports import LOOPBACK
from infra.services.postgres import PrivatePostgres
from tests.kit.leash import leashed_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose services end with the test."""
    with leashed_folder() as path:
        yield path


@pytest.fixture(scope="module")
def postgres_of_ours() -> Iterator[PrivatePostgres]:
    """A running Postgres with one table of one row; a test may do what it likes and leaves it running."""
    with leashed_folder() as path:
        server = PrivatePostgres(path / "postgres")
        with psycopg.connect(server.start(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        yield server


def kept(url: str) -> tuple[int, ...] | None:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT number FROM kept").fetchone()


def test_both_services_let_us_in(services: Services) -> None:
    assert why_postgres_is_silent(services.postgres_url) is None
    assert why_rabbitmq_is_silent(services.rabbitmq_url) is None


def test_a_test_database_is_migrated(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


async def test_two_virtual_hosts_know_nothing_of_each_other(services: Services, rabbitmq: str) -> None:
    if services.management_url is None:
        pytest.skip("the given broker has no management interface: tests share its virtual host")
    async with aiormq.connect(rabbitmq) as here, aiormq.connect(services.rabbitmq_url) as there:
        await (await here.channel()).queue_declare("only-here", durable=True)
        with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
            await (await there.channel()).queue_declare("only-here", passive=True)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_postgres_comes_back_on_its_port_with_its_data(postgres_of_ours: PrivatePostgres, kill: bool) -> None:
    url, pid = postgres_of_ours.url, postgres_of_ours.pid
    assert postgres_of_ours.restart(kill=kill) == url
    assert postgres_of_ours.pid != pid
    assert kept(url or "") == (7,)


async def test_rabbitmq_comes_back_on_its_ports_with_its_messages(breakable_services: Services) -> None:
    url = breakable_services.rabbitmq_url
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.basic_publish(b"7", routing_key="kept", timeout=10)
    # In this order: RabbitMQ writes down the name of a new quorum queue late, so killed within a second of its
    # declaration it comes back with a queue that never answers.
    breakable_services.restart_rabbitmq()
    breakable_services.restart_rabbitmq(kill=True)
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        assert (await channel.basic_get("kept", no_ack=True)).body == b"7"
        await channel.queue_delete("kept")


def test_what_runs_already_is_found_and_not_started_twice(
    postgres_of_ours: PrivatePostgres, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARESPINE_POSTGRES_URL", raising=False)
    monkeypatch.delenv("CARESPINE_SERVICES", raising=False)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", services.rabbitmq_url)
    pid, var = postgres_of_ours.pid, postgres_of_ours.home.parent
    found = ensure_services(var)
    assert found.postgres_url == postgres_of_ours.url
    assert postgres_of_ours.pid == pid
    assert found.rabbitmq_origin == "environment"


def test_two_that_start_at_once_start_one_server(
    folder: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARESPINE_POSTGRES_URL", raising=False)
    monkeypatch.delenv("CARESPINE_SERVICES", raising=False)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", services.rabbitmq_url)
    with ThreadPoolExecutor() as threads:
        one, other = threads.map(lambda _: ensure_services(folder).postgres_url, range(2))
    assert one == other


def test_a_stale_process_id_does_no_harm(postgres_of_ours: PrivatePostgres) -> None:
    postgres_of_ours.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        stale = json.dumps({"pid": stranger.pid, "started": 1.0})
        (postgres_of_ours.home / "process.json").write_text(stale)
        assert postgres_of_ours.pid is None
        postgres_of_ours.stop()
        assert stranger.poll() is None, "a stranger was ended"
        (postgres_of_ours.home / "process.json").write_text(stale)
        assert kept(postgres_of_ours.start()) == (7,)
        stranger.communicate(b"\n")


def test_a_lock_file_that_names_a_stranger_does_no_harm(postgres_of_ours: PrivatePostgres) -> None:
    postgres_of_ours.kill()
    lock = (
        postgres_of_ours.home
        / json.loads((postgres_of_ours.home / "keeping.json").read_text())["data"]
        / "postmaster.pid"
    )
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        lock.write_text(f"{stranger.pid}\n")
        assert kept(postgres_of_ours.start()) == (7,)
        stranger.communicate(b"\n")


def test_a_port_somebody_else_took_is_given_up_and_the_data_kept(postgres_of_ours: PrivatePostgres) -> None:
    before = postgres_of_ours.url or ""
    postgres_of_ours.stop()
    with socket.create_server((LOOPBACK, int(before.rsplit(":", 1)[1].split("/")[0]))):
        after = postgres_of_ours.start()
    assert after != before
    assert kept(after) == (7,)


def test_a_server_whose_record_was_lost_is_taken_on(postgres_of_ours: PrivatePostgres) -> None:
    pid = postgres_of_ours.pid
    (postgres_of_ours.home / "process.json").unlink()
    assert kept(postgres_of_ours.start()) == (7,)
    assert postgres_of_ours.pid == pid


def test_a_folder_that_was_moved_is_found_whole(folder: Path) -> None:
    server = PrivatePostgres(folder / "before")
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server.stop()
    (folder / "before").rename(folder / "postgres")
    assert kept(PrivatePostgres(folder / "postgres").start()) == (7,)


def test_data_whose_password_was_lost_are_moved_aside_and_not_deleted(folder: Path) -> None:
    server = PrivatePostgres(folder / "postgres")
    server.start()
    server.stop()
    (server.home / "keeping.json").unlink()
    server.start()
    assert len(list(server.home.glob("data*/PG_VERSION"))) == 2


def test_a_given_url_that_is_silent_is_named_with_the_remedies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("CARESPINE_POSTGRES_URL", f"postgresql://somebody:secret@{LOOPBACK}:{port}/nothing")
    with pytest.raises(ServiceTrouble, match="CARESPINE_POSTGRES_URL") as trouble:
        ensure_services(folder)
    assert "secret" not in str(trouble.value)


def test_where_nothing_works_the_message_names_every_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARESPINE_POSTGRES_URL", raising=False)
    monkeypatch.setenv("CARESPINE_SERVICES", "containers")
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ServiceTrouble) as trouble:
        ensure_services(folder)
    for remedy in ("CARESPINE_POSTGRES_URL", "install postgresql", "Docker or Podman", "no container engine answers"):
        assert remedy in str(trouble.value)
    assert not (folder / "containers").exists(), "something was recorded that was never started"


def test_stopping_where_nothing_runs_is_no_trouble(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARESPINE_POSTGRES_URL", "CARESPINE_RABBITMQ_URL"):
        monkeypatch.delenv(name, raising=False)
    assert stop_services(folder) == []
    assert running_urls(folder).postgres is None


def test_services_of_a_test_run_end_with_it_even_if_it_is_killed() -> None:
    program = (
        "from tests.kit.leash import leashed_folder; from infra.services.postgres import PrivatePostgres\n"
        "with leashed_folder() as folder:\n"
        "    server = PrivatePostgres(folder / 'postgres'); server.start()\n"
        "    print(folder, server.pid, flush=True); input()"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    folder, pid = run.stdout.readline().split()
    server = Identity.of(int(pid))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    wait_until(lambda: not Path(folder).exists(), timeout=20, what="the removal of the folder")
    assert server.process() is None
