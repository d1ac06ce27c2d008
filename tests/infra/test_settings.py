"""Settings: complete or refused, and silent about secrets."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from infra.settings import Mode, Settings, SettingsError
from infra.tokens import generate_key_pair

URLS = {
    "CARESPINE_POSTGRES_URL": "postgresql://u:pg-secret@h/d",
    "CARESPINE_RABBITMQ_URL": "amqp://u:mq-secret@h/",
}


def problems(**environment: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment(environment)
    return refused.value.problems


def test_two_addresses_are_enough_and_production_is_the_default() -> None:
    settings = Settings.from_environment(URLS, package="gateway")
    assert settings.identity.mode is Mode.PRODUCTION
    assert settings.identity.instance == f"gateway-{os.getpid()}"
    assert (settings.work.partitions, settings.work.lease_seconds, settings.work.batch_limit) == (16, 6.0, 256)
    assert settings.work.body_limit == 65536
    assert settings.health.port == 0


def test_everything_missing_is_named_at_once_with_its_remedy() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({})
    message = str(refused.value)
    for name in URLS:
        assert f"{name} is missing: " in message


def test_everything_wrong_is_named_at_once() -> None:
    wrong = problems(
        CARESPINE_RABBITMQ_URL="amqp://h/",
        CARESPINE_MODE="staging",
        CARESPINE_HTTP_PORT="70000",
        CARESPINE_PARTITIONS="0",
        CARESPINE_LEASE_SECONDS="nan",
        CARESPINE_BATCH_LIMIT="-1",
        CARESPINE_BODY_LIMIT="many",
        CARESPINE_LOG_LEVEL="loud",
        CARESPINE_MASTER_KEY="dG9vIHNob3J0",
        CARESPINE_TOKEN_PUBLIC_KEY="/no/such/file",
        CARESPINE_TOKEN_PRIVATE_KEY="-----BEGIN NONSENSE-----",
    )
    assert set(wrong) == {
        "POSTGRES_URL", "MODE", "HTTP_PORT", "PARTITIONS", "LEASE_SECONDS", "BATCH_LIMIT", "BODY_LIMIT", "LOG_LEVEL",
        "MASTER_KEY", "TOKEN_PUBLIC_KEY", "TOKEN_PRIVATE_KEY",
    }  # fmt: skip


def test_secrets_have_no_default_and_asking_for_one_not_given_says_what_to_do() -> None:
    keys = Settings.from_environment({**URLS, "CARESPINE_MODE": "development"}).keys
    for ask in (keys.sealing, keys.signing, keys.verifying):
        with pytest.raises(SettingsError, match="openssl"):
            ask()


def test_secrets_do_not_print(tmp_path: Path) -> None:
    private, public = generate_key_pair()
    path = tmp_path / "private.pem"
    path.write_text(private)
    key = bytes(range(32))
    environment = {
        **URLS,
        "CARESPINE_MASTER_KEY": base64.b64encode(key).decode(),
        "CARESPINE_TOKEN_PRIVATE_KEY": str(path),
        "CARESPINE_TOKEN_PUBLIC_KEY": public,
    }
    settings = Settings.from_environment(environment)
    assert settings.keys.sealing() == key
    assert settings.keys.signing() == private
    assert settings.keys.verifying() == public.strip()
    shown = f"{settings!r} {settings} {settings.model_dump()!r} {settings.model_dump_json()}"
    for secret in ("pg-secret", "mq-secret", environment["CARESPINE_MASTER_KEY"], repr(key), private.split("\n")[1]):
        assert secret not in shown


def test_a_wrong_secret_is_not_quoted() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({**URLS, "CARESPINE_MASTER_KEY": "hunter2", "CARESPINE_TOKEN_PRIVATE_KEY": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_settings_do_not_change() -> None:
    settings = Settings.from_environment(URLS)
    with pytest.raises(ValueError, match="frozen"):
        settings.work.partitions = 8  # type: ignore[misc]


def test_a_bridge_lets_its_units_go_before_its_process_has_to_end() -> None:
    assert Settings.from_environment(URLS).links.drain_seconds == 10
    with pytest.raises(SettingsError, match="from 0 to 18"):
        Settings.from_environment({**URLS, "CARESPINE_DRAIN_SECONDS": "19"})


def test_how_units_are_let_in_is_read_and_checked() -> None:
    quiet = Settings.from_environment(URLS).units
    assert (quiet.token_seconds, quiet.urls, quiet.certificate_header) == (600, (), None)
    told = URLS | {
        "CARESPINE_UNIT_TOKEN_SECONDS": "60",
        "CARESPINE_UNIT_URLS": "wss://a.example.org/unit, wss://b.example.org/unit",
        "CARESPINE_CLIENT_CERTIFICATE_HEADER": "X-Carespine-Certificate-Unit",
    }
    units = Settings.from_environment(told).units
    assert units.urls == ("wss://a.example.org/unit", "wss://b.example.org/unit")
    assert (units.token_seconds, units.certificate_header) == (60, "X-Carespine-Certificate-Unit")
    for name, wrong in (
        ("UNIT_TOKEN_SECONDS", "86400"),
        ("UNIT_URLS", "https://a.example.org"),
        ("CLIENT_CERTIFICATE_HEADER", "X Header: no"),
    ):
        with pytest.raises(SettingsError) as refused:
            Settings.from_environment(URLS | {f"CARESPINE_{name}": wrong})
        assert set(refused.value.problems) == {name}
