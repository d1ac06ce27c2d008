"""What an agent is told: which source wins, and what is said of what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit_agent.configuration import Configuration, ConfigurationError, configured, told

FILE = """
url = "wss://file.example/unit"
unit = "from-file"
http_port = 8070

[webhook]
url = "http://127.0.0.1:9000/orders"
secret_file = "/etc/carespine-agent/webhook.secret"

[programs."orders.place"]
run = ["/opt/site/place-order", "--now"]
ask = ["/opt/site/was-it-placed"]

[hl7.listen]
port = 2575
department = "Intake Desk"
departments = { ER = "emergency" }

[hl7.send]
host = "10.0.0.7"
port = 6661
facts = { "patient.PatientRegistered" = "A28" }
commands = { "record.push" = "A31" }

[log]
folder = "/var/log/carespine-agent"

[disk]
low_bytes = 100_000_000
"""


def made(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **flags: object) -> Configuration:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    return configured(told({(name,): value for name, value in flags.items()}, file=file, environment=environment or {}))


def wrong(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as why:
        made(tmp_path, text, environment)
    return str(why.value)


def test_a_file_can_say_everything(tmp_path: Path) -> None:
    settings = made(tmp_path, FILE)
    assert settings.programs["orders.place"].run == ("/opt/site/place-order", "--now")
    assert settings.hl7.listen is not None
    assert (settings.hl7.listen.department, settings.hl7.listen.departments) == ("intake-desk", {"ER": "emergency"})
    assert settings.hl7.send is not None
    assert settings.hl7.send.facts == {"patient.PatientRegistered": "A28"}
    assert (settings.log.level, settings.log.keep, settings.disk.low_bytes) == ("info", 5, 100_000_000)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    environment = {"CARESPINE_AGENT_UNIT": "from-environment", "CARESPINE_AGENT_HTTP_PORT": "8071"}
    settings = made(tmp_path, FILE, environment, unit="from-flag")
    assert (settings.unit, settings.http_port, settings.url) == ("from-flag", 8071, "wss://file.example/unit")
    assert settings.snapshot_beyond == 50_000


def test_it_can_be_asked_which_source_won(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(FILE)
    found = told({("unit",): "x", ("url",): None}, environment={"CARESPINE_AGENT_CONFIG": str(file)})
    assert found["unit",] == ("x", "flag")
    assert found["url",][1] == f"file {file}"


def test_the_environment_alone_is_enough() -> None:
    environment = {
        "CARESPINE_AGENT_URL": "ws://127.0.0.1:1/unit", "CARESPINE_AGENT_WEBHOOK": "http://127.0.0.1:2/orders",
        "CARESPINE_AGENT_HL7_LISTEN_PORT": "0",
    }  # fmt: skip
    settings = configured(told({}, environment=environment))
    assert settings.webhook is not None
    assert settings.hl7.listen is not None
    assert settings.hl7.listen.port == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url = 'http://x/unit'", "url: String should match"),
        ("url = 'wss://user:word@x/unit'", "url: Value error, an address holds no password"),
        ("ulr = 'wss://x/unit'", "ulr: Extra inputs are not permitted"),
        ("unit = 'North Clinic'", "unit: String should match"),
        ("webhook = 'http://x'\n", "webhook: Input should be a valid dictionary"),
        ("[programs.\"orders.place\"]\nrun = []", "programs.orders.place.run: Tuple should have at least 1 item"),
        ("[hl7.send]\nport = 1\nfacts = { \"queue.PatientCalled\" = \"A08\" }", "cannot be sent: queue.PatientCalled"),
        ("[hl7.listen]\nallow = [\"10.0.0.0/99\"]", "hl7.listen.allow: "),
        ("[hl7.listen]\ncertificate = \"/x\"", "certificate and key go together"),
        ("[log]\nkeep = 0", "log.keep: Input should be greater than or equal to 1"),
        ("[programs.x]\nrun=['a']\n[hl7.send]\nport=1\ncommands={x=\"A08\"}", "both a program and HL7 v2 for: x"),
        ("not toml", "is not TOML"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_field_and_source(tmp_path: Path, text: str, said: str) -> None:
    assert said in wrong(tmp_path, text)


def test_a_wrong_value_is_not_shown(tmp_path: Path) -> None:
    told_why = wrong(tmp_path, "", {"CARESPINE_AGENT_HTTP_PORT": "my-secret"})
    assert "my-secret" not in told_why
    assert "environment CARESPINE_AGENT_HTTP_PORT" in told_why


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: FileNotFoundError"):
        told({}, file=tmp_path / "missing.toml", environment={})


def test_a_section_cannot_be_a_value_in_one_source_and_a_section_in_another(tmp_path: Path) -> None:
    environment = {"CARESPINE_AGENT_WEBHOOK": "http://x/y"}
    assert "webhook: is a section of its own" in wrong(tmp_path, "webhook = 'http://x'", environment)
