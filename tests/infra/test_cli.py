"""The `carespine` command as a user meets it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contracts.identity import Role
from infra.cli.app import app
from infra.cli.exit_codes import ExitCode
from infra.services.launcher import Services
from infra.tokens import Verifier


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's folder where nothing runs and nothing is given."""
    for name in (
        "POSTGRES_URL",
        "RABBITMQ_URL",
        "MODE",
        "MASTER_KEY",
        "TOKEN_PRIVATE_KEY",
        "TOKEN_PUBLIC_KEY",
        "SERVICES",
    ):
        monkeypatch.delenv(f"CARESPINE_{name}", raising=False)
    monkeypatch.setenv("CARESPINE_VAR", str(tmp_path))
    return tmp_path


def carespine(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_status_where_nothing_runs_says_how_to_start(var: Path) -> None:
    answer = carespine("status", "--json")
    assert answer.exit_code == ExitCode.UNREACHABLE
    assert "carespine up" in answer.stderr
    assert answer.stdout == ""


def test_status_has_every_name_others_rely_on(var: Path, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARESPINE_POSTGRES_URL", services.postgres_url)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", services.rabbitmq_url)
    report = json.loads(carespine("status", "--json").stdout)
    assert report["postgres"] == {"url": services.postgres_url}
    assert report["rabbitmq"] == {"url": services.rabbitmq_url}
    assert report["gateway"] == {"url": None}
    assert report["bridge"] == {"unit_url": None, "portal_url": None}
    assert report["processes"] == []


def test_a_table_for_people_shows_no_password(var: Path, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARESPINE_POSTGRES_URL", services.postgres_url)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", services.rabbitmq_url)
    shown = carespine("status").stdout
    assert "postgres" in shown
    assert services.postgres_url.split("@")[0].rsplit(":", 1)[1] not in shown


def test_services_alone_are_printed_as_lines_for_a_shell(
    var: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARESPINE_POSTGRES_URL", services.postgres_url)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", services.rabbitmq_url)
    answer = carespine("up", "--services-only")
    assert answer.exit_code == ExitCode.DONE
    assert answer.stdout.splitlines() == [
        f"export CARESPINE_POSTGRES_URL={services.postgres_url}",
        f"export CARESPINE_RABBITMQ_URL={services.rabbitmq_url}",
    ]


def test_a_token_is_printed_alone_and_verifies(var: Path) -> None:
    answer = carespine("token", "--role", "unit", "--unit", "north", "--ttl", "60")
    claims = Verifier((var / "keys" / "token_public.pem").read_text()).verify(answer.stdout.strip())
    assert answer.stdout.count("\n") == 1
    assert (claims.role, claims.unit, claims.exp - claims.iat) == (Role.UNIT, "north", 60)


@pytest.mark.parametrize("words", [["--role", "king"], ["--role", "system"], ["--role", "unit"], []])
def test_a_token_for_nobody_is_a_usage_error(var: Path, words: list[str]) -> None:
    answer = carespine("token", *words)
    assert answer.exit_code == ExitCode.USAGE
    assert answer.stdout == ""


def test_in_production_a_token_needs_the_given_key(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARESPINE_MODE", "production")
    answer = carespine("token", "--role", "staff")
    assert answer.exit_code == ExitCode.USAGE
    assert "CARESPINE_TOKEN_PRIVATE_KEY" in answer.stderr


def test_doctor_names_what_is_missing_and_what_to_do(var: Path) -> None:
    answer = carespine("doctor", "--json")
    assert answer.exit_code == ExitCode.CHECK_FAILED
    findings = {finding["id"]: finding for finding in json.loads(answer.stdout)}
    assert set(findings["postgres.reachable"]) == {"id", "state", "seen", "expected", "remedy"}
    assert findings["postgres.reachable"]["state"] == findings["rabbitmq.reachable"]["state"] == "failed"
    assert "CARESPINE_RABBITMQ_URL" in findings["rabbitmq.reachable"]["remedy"]


def test_doctor_is_content_once_migrate_has_run(
    var: Path, postgres: str, rabbitmq: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARESPINE_POSTGRES_URL", postgres)
    monkeypatch.setenv("CARESPINE_RABBITMQ_URL", rabbitmq)
    assert carespine("doctor").exit_code == ExitCode.CHECK_FAILED
    assert carespine("migrate").exit_code == ExitCode.DONE
    answer = carespine("doctor")
    assert answer.exit_code == ExitCode.DONE, answer.stdout
    assert carespine("migrate").exit_code == ExitCode.DONE


def test_logs_show_the_last_lines_of_one_process(var: Path) -> None:
    (var / "log").mkdir()
    (var / "log" / "gateway-1.log").write_text("one\ntwo\nthree\n")
    assert carespine("logs", "gateway-1", "-n", "2").stdout == "two\nthree\n"
    assert carespine("logs", "gateway-9").exit_code == ExitCode.NOT_FOUND


def test_down_where_nothing_runs_is_done(var: Path) -> None:
    assert carespine("down").exit_code == ExitCode.DONE


def test_ctrl_c_ends_a_command_as_interrupted(var: Path) -> None:
    (var / "log").mkdir()
    (var / "log" / "gateway-1.log").write_text("one\n")
    command = [sys.executable, "-c", "from infra.cli.app import main; main()", "logs", "--follow"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={"CARESPINE_VAR": str(var), "PYTHONUNBUFFERED": "1"}
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == b"one\n"
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == ExitCode.INTERRUPTED
