"""The arguments that commands share, and the configuration they make with environment and file."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from contracts.ids import UNIT_ID
from infra.cli.exit_codes import ExitCode
from infra.telemetry import logs
from unit_agent.cli.looking import NoStore, counts, reading
from unit_agent.configuration import Configuration, ConfigurationError, Told, configured, told
from unit_agent.credential import Credential, CredentialUnusable

_FLAGS: Final[dict[str, tuple[str, ...]]] = {
    "url": ("url",),
    "gateway": ("gateway",),
    "unit": ("unit",),
    "data": ("data",),
    "credential": ("credential",),
    "http_port": ("http_port",),
    "snapshot_beyond": ("snapshot_beyond",),
    "webhook": ("webhook", "url"),
    "log_level": ("log", "level"),
    "log_folder": ("log", "folder"),
}


class Usage(Exception):
    """The command cannot be done as it was given; the message says what to give."""


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A command's parser with what every command takes."""
    made = argparse.ArgumentParser(
        prog=f"unit-agent {name}",
        description=description,
        epilog="What is not given is read from CARESPINE_AGENT_… of the environment, then from --config.",
    )
    made.add_argument("--config", type=Path, metavar="FILE", help="TOML file (or CARESPINE_AGENT_CONFIG)")
    made.add_argument("--unit", help="the unit's id; otherwise the credential's")
    made.add_argument("--data", type=Path, help="folder of the local store (default: the user's state folder)")
    return made


def of_the_centre(made: argparse.ArgumentParser) -> None:
    """Add where the centre is, and who we are to it."""
    made.add_argument("--url", help="where the centre's bridge listens: wss://HOST/unit")
    made.add_argument("--gateway", help="where the centre's gateway listens: https://HOST")
    made.add_argument(
        "--credential", help="the unit's token, or @FILE to read it from; without: the key this agent enrolled with"
    )


def sources(given: argparse.Namespace) -> Told:
    """Every field that was told, and by what. Raises ConfigurationError."""
    values = vars(given)
    flags = {path: values.get(name) for name, path in _FLAGS.items()}
    return told(
        {path: str(value) if isinstance(value, Path) else value for path, value in flags.items()},
        file=values.get("config"),
    )


def configuration(given: argparse.Namespace) -> Configuration:
    """What this command was told. Raises ConfigurationError."""
    return configured(sources(given))


def unit_of(settings: Configuration) -> str:
    """Which unit: told, or the credential's, or the only one with a store here. Raises Usage."""
    if settings.unit is not None:
        return settings.unit
    if settings.credential is not None:
        try:
            return Credential(settings.credential).unit()
        except CredentialUnusable as why:
            raise Usage(str(why)) from why
    if settings.data is not None:
        return _unit_in(settings.data)
    base = state_home()
    here = sorted(path.name for path in base.glob("*/") if UNIT_ID.fullmatch(path.name)) if base.is_dir() else []
    if len(here) == 1:
        return here[0]
    raise Usage("which unit? give --unit")


def _unit_in(folder: Path) -> str:
    """Whose folder this is: by its enrolment, or by its store. Raises Usage."""
    from unit_agent.keys import ENROLMENT  # loads what only agents with a key of their own need

    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / ENROLMENT).read_text(encoding="utf-8"))["unit_id"])
    with suppress(NoStore, sqlite3.Error), reading(folder) as database:
        if found := counts(database).get("unit"):
            return str(found)
    raise Usage(f"which unit? {folder} does not tell: give --unit")


def folder_of(settings: Configuration, unit_id: str) -> Path:
    """Where the unit's store is: `--data` itself, or the unit's own in the user's state folder."""
    return settings.data or state_home() / unit_id


def state_home() -> Path:
    """Where stores are when nobody says: systemd's StateDirectory, or the user's."""
    if service := os.environ.get("STATE_DIRECTORY"):
        return Path(service.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "carespine-agent"


def result(text: str) -> None:
    """A line of the answer itself."""
    sys.stdout.write(text + "\n")


def result_json(content: Any) -> None:  # Any: whatever JSON can say
    """The answer as JSON."""
    result(json.dumps(content, indent=2))


def fail(text: str, code: ExitCode) -> NoReturn:
    """Say what went wrong on standard error and end with the code for it."""
    sys.stderr.write(f"unit-agent: {text}\n")
    raise SystemExit(int(code))


def parsed(made: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, Configuration]:
    """What was given and what it comes to; ends with exit code 2 when it cannot be used."""
    given = made.parse_args(arguments)
    try:
        return given, configuration(given)
    except ConfigurationError as why:
        fail(str(why), ExitCode.USAGE)


def keep_quiet() -> None:
    """Log lines of what a command calls are for standard error, and only errors."""
    to = structlog.BytesLoggerFactory(sys.stderr.buffer)
    logs.configure(level="error", process="unit_agent", instance="command", to=to)
