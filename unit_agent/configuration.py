"""What an agent is told: flags over environment over file over defaults, checked before anything is opened.

Knows names, shapes and which source won; what the parts do with it is theirs. What may be secret is never shown.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contracts.ids import UnitId
from contracts.unit_command import UnitCommandType
from unit_agent.hl7v2.options import Listen, Send
from unit_agent.link_state import SNAPSHOT_BEYOND
from unit_agent.room import LOW_BYTES, RESERVE_BYTES

PREFIX: Final = "CARESPINE_AGENT_"
FILE: Final = PREFIX + "CONFIG"
CommandLine = Annotated[tuple[str, ...], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WebhookSettings(_Part):
    """`[webhook]`: the site's system behind HTTP."""

    url: str = Field(pattern=r"^https?://")
    secret_file: Path | None = None
    """Requests are signed with what is in it; None: not signed."""
    timeout_seconds: float = Field(30.0, gt=0, le=600)


class ProgramSettings(_Part):
    """`[programs."type"]`: the site's programs for one type of unit command; each a command line, not a shell's."""

    run: CommandLine
    ask: CommandLine | None = None
    still_wanted: CommandLine | None = None
    timeout_seconds: float = Field(60.0, gt=0, le=3600)


class Hl7Settings(_Part):
    """`[hl7.listen]` and `[hl7.send]`."""

    listen: Listen | None = None
    send: Send | None = None


class TlsSettings(_Part):
    """`[tls]`: for a centre whose proxy asks for client certificates, or whose own is signed by a private authority."""

    certificate: Path | None = None
    """This unit's certificate, PEM; None: none is shown."""
    key: Path | None = None
    authorities: Path | None = None
    """Who signs the centre's certificate, PEM; None: whoever this machine trusts."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")
        return self


class LogSettings(_Part):
    """`[log]`: where lines go."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    folder: Path | None = None
    """agent.log, and errors.log with nothing but errors; None: standard output."""
    largest_bytes: int = Field(10_000_000, ge=10_000)
    """A file that would grow beyond is put aside."""
    keep: int = Field(5, ge=1, le=1000)
    """Files put aside that are kept, of each of the two."""


class DiskSettings(_Part):
    """`[disk]`: when room is short."""

    low_bytes: int = Field(LOW_BYTES, ge=1_000_000)
    """With less left, nothing new is taken."""
    reserve_bytes: int = Field(RESERVE_BYTES, ge=0)
    """Kept free for outcomes of what is under way when the disk is full."""


class Configuration(_Part):
    """Everything one agent is told."""

    url: str | None = Field(None, pattern=r"^wss?://")
    """The centre's bridge: `wss://HOST/unit`."""
    gateway: str | None = Field(None, pattern=r"^https?://")
    """The centre's gateway: for enrolment, tokens and `doctor`."""
    unit: UnitId | None = None
    data: Path | None = None
    credential: str | None = Field(None, repr=False)
    """A token, or `@FILE`; None: the key this agent enrolled with."""
    http_port: int | None = Field(None, ge=0, le=65535)
    snapshot_beyond: int = Field(SNAPSHOT_BEYOND, ge=0)
    webhook: WebhookSettings | None = None
    programs: dict[UnitCommandType, ProgramSettings] = Field(default_factory=dict)
    hl7: Hl7Settings = Hl7Settings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    disk: DiskSettings = DiskSettings()

    @field_validator("url", "gateway")
    @classmethod
    def _no_secret(cls, given: str | None) -> str | None:
        if given is not None and "@" in given.split("/")[2]:
            raise ValueError("an address holds no password")
        return given

    @model_validator(mode="after")
    def _one_connector_each(self) -> Self:
        both = sorted(set(self.programs) & set(self.hl7.send.commands if self.hl7.send else ()))
        if both:
            raise ValueError(f"both a program and HL7 v2 for: {', '.join(both)}")
        return self


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names every field and source, and shows no value."""


_VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "URL": ("url",),
    "GATEWAY": ("gateway",),
    "UNIT": ("unit",),
    "DATA": ("data",),
    "CREDENTIAL": ("credential",),
    "HTTP_PORT": ("http_port",),
    "SNAPSHOT_BEYOND": ("snapshot_beyond",),
    "WEBHOOK": ("webhook", "url"),
    "WEBHOOK_SECRET_FILE": ("webhook", "secret_file"),
    "TLS_CERTIFICATE": ("tls", "certificate"),
    "TLS_KEY": ("tls", "key"),
    "TLS_AUTHORITIES": ("tls", "authorities"),
    "LOG_LEVEL": ("log", "level"),
    "LOG_FOLDER": ("log", "folder"),
    "HL7_LISTEN_PORT": ("hl7", "listen", "port"),
}
"""What the environment can say: `CARESPINE_AGENT_` and this; the rest is for the file."""

Told = dict[tuple[str, ...], tuple[Any, str]]  # Any: whatever a source says of a field, and which source


def told(
    flags: Mapping[tuple[str, ...], Any],  # Any: what the command line says of each field; None: nothing
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Told:
    """Every field that was told, with what won: flags, then environment, then file. Raises ConfigurationError."""
    environment = os.environ if environment is None else environment
    if file is None and environment.get(FILE):
        file = Path(environment[FILE])
    found: Told = {}
    if file is not None:
        found |= {path: (value, f"file {file}") for path, value in _flat(_of_file(file))}
    for name, path in _VARIABLES.items():
        value = environment.get(PREFIX + name, "").strip()
        if value:
            found[path] = (value, f"environment {PREFIX}{name}")
    return found | {path: (value, "flag") for path, value in flags.items() if value is not None}


def configured(found: Told) -> Configuration:
    """The configuration these make. Raises ConfigurationError."""
    tree: dict[str, Any] = {}  # Any: as told
    for path, (value, _) in found.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigurationError(f"{part}: is a section of its own, `[{part}]`")
        node[path[-1]] = value
    try:
        return Configuration.model_validate(tree)
    except ValidationError as wrong:
        raise ConfigurationError("; ".join(_said(error, found) for error in wrong.errors())) from None


def _of_file(file: Path) -> dict[str, Any]:  # Any: TOML
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigurationError(f"the file {file} cannot be read: {type(why).__name__}") from why
    except tomllib.TOMLDecodeError as why:
        raise ConfigurationError(f"the file {file} is not TOML: {why}") from why


def _flat(tree: Mapping[str, Any], before: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:  # Any: TOML
    flat: list[tuple[tuple[str, ...], Any]] = []
    for name, value in tree.items():
        path = (*before, name)
        flat += _flat(value, path) if isinstance(value, dict) and value else [(path, value)]
    return flat


def _said(error: Any, found: Told) -> str:  # Any: pydantic's description of one error
    place = tuple(str(part) for part in error["loc"])
    source = next((source for path, (_, source) in found.items() if path[: len(place)] == place[: len(path)]), "")
    return f"{'.'.join(place) or 'configuration'}: {error['msg']}" + (f" ({source})" if source else "")
