"""What a process is told by its environment: read once, checked, passed in. Knows names, defaults and remedies,
nothing else.

Each concern is a model of its own, so a function asks for the part it needs. Secrets have no default and do not print.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr

PREFIX: Final = "CARESPINE_"
KEY_BYTES: Final = 32

REMEDIES: Final = {
    "POSTGRES_URL": "postgresql://user:password@host:5432/database; `carespine up` prints one for local use",
    "RABBITMQ_URL": "amqp://user:password@host:5672/; `carespine up` prints one for local use",
    "MODE": "development or production (the default)",
    "MASTER_KEY": "base64 of 32 random bytes, kept outside the database: openssl rand -base64 32; several with commas, "
    "or the path of a file with one in each line: the one in use first, retired ones after it",
    "TOKEN_PRIVATE_KEY": "an Ed25519 private key, PEM text or a path to it: openssl genpkey -algorithm ed25519",
    "TOKEN_PUBLIC_KEY": "the matching public key, PEM text or a path to it (openssl pkey -pubout); while it is changed "
    "several keys: a JWK Set, a file with one, or a folder of PEM files",
    "HTTP_PORT": "a port number, 0 for any free one",
    "BRIDGE_PORT": "a port number, 0 for any free one",
    "HEALTH_PORT": "a port number, 0 for any free one",
    "PARTITIONS": "a whole number from 1 to 99, the same for the life of an installation",
    "LEASE_SECONDS": "seconds, at least 1",
    "BATCH_LIMIT": "a whole number of commands, at least 1",
    "BODY_LIMIT": "a whole number of bytes, at least 1024",
    "UNREACHABLE_SECONDS": "seconds, at least 1: how long a unit may be without a link before that becomes a fact",
    "DRAIN_SECONDS": "seconds from 0 to 18: over which a bridge that leaves lets its units go",
    "CONNECTS_PER_SECOND": "a whole number, at least 1: what one bridge lets in",
    "UNIT_CONNECTS_PER_MINUTE": "a whole number, at least 1: what one bridge lets in of one unit",
    "UNIT_FRAMES_PER_SECOND": "a whole number, at least 10: what one bridge reads from one unit",
    "UNIT_BYTES_PER_SECOND": "a whole number of bytes, at least 16384: what one bridge reads from one unit",
    "UNIT_TOKEN_SECONDS": "a whole number of seconds from 5 to 3600",
    "STAFF_TOKEN_SECONDS": "a whole number of seconds from 5 to 3600",
    "STAFF_IDLE_SECONDS": "a whole number of seconds, at least 5",
    "STAFF_SESSION_SECONDS": "a whole number of seconds, at least 5",
    "UNIT_URLS": "addresses of the unit link, ws:// or wss://, separated by commas",
    "CLIENT_CERTIFICATE_HEADER": "the name of an HTTP header, which the proxy sets on every request",
    "LOG_LEVEL": "debug, info, warning or error",
}


class SettingsError(Exception):
    """The environment is incomplete or wrong: names every variable and says what to put there. Never shows a value."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        """By variable name: what is wrong with it."""
        lines = (f"  {PREFIX}{name} {what}: {REMEDIES.get(name, 'see docs')}" for name, what in problems.items())
        super().__init__("settings are incomplete:\n" + "\n".join(lines))


class Mode(StrEnum):
    """Whether this is somebody's machine or somebody's hospital."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Identity(_Part):
    """Who this process is."""

    mode: Mode = Mode.PRODUCTION
    instance: str = Field(max_length=100)
    """Unique among live processes; stands in queue names, leases and logs."""


class Postgres(_Part):
    """The event store and the read models."""

    url: SecretStr
    """A secret, because it carries the password."""


class RabbitMQ(_Part):
    """The broker."""

    url: SecretStr


class Listening(_Part):
    """Where a server listens. Port 0: any free one, logged at start."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)


class Keys(_Part):
    """What seals and what signs. Each is None when this process was not given it; ask with the methods that insist."""

    master_key: SecretBytes | None = None
    retired_master_keys: tuple[SecretBytes, ...] = ()
    """They still open what they have wrapped, until `carespine keys rotate` has wrapped it anew."""
    master_key_file: Path | None = None
    """Where the master keys were read; None: they stood in the environment."""
    token_private_key: SecretStr | None = None
    token_public_key: str | None = None

    def sealing(self) -> bytes:
        """The master key, 32 bytes. Raises SettingsError naming what is missing."""
        if self.master_key is None:
            raise SettingsError({"MASTER_KEY": "is missing"})
        return self.master_key.get_secret_value()

    def master_keys(self) -> tuple[SecretBytes, ...]:
        """All of them, the one in use first."""
        return () if self.master_key is None else (self.master_key, *self.retired_master_keys)

    @classmethod
    def of_master_keys(cls, given: str) -> Self | None:
        """Keys written one after the other, or in a file that is named; None when they are no such keys."""
        file = None
        try:
            keys = master_keys_in(given)
        except ValueError:
            file = Path(given.removeprefix("file:"))
            try:
                keys = master_keys_in(file.read_text(encoding="ascii"))
            except (OSError, ValueError):  # a ValueError too when it holds other characters, or the path a NUL
                return None
        current, *retired = (SecretBytes(key) for key in keys)
        return cls(master_key=current, retired_master_keys=tuple(retired), master_key_file=file)

    def signing(self) -> str:
        """The private key tokens are signed with, as PEM. Raises SettingsError naming what is missing."""
        if self.token_private_key is None:
            raise SettingsError({"TOKEN_PRIVATE_KEY": "is missing"})
        return self.token_private_key.get_secret_value()

    def verifying(self) -> str:
        """The public keys tokens are verified with: PEM, or a JWK Set. Raises SettingsError naming what is missing."""
        if self.token_public_key is None:
            raise SettingsError({"TOKEN_PUBLIC_KEY": "is missing"})
        return self.token_public_key


class Work(_Part):
    """How the work is cut up."""

    partitions: int = Field(16, ge=1, le=99)
    """Fixed for the life of an installation: a unit's partition follows from it."""
    lease_seconds: float = Field(6.0, ge=1)
    batch_limit: int = Field(256, ge=1)
    body_limit: int = Field(65536, ge=1024)
    """Bytes of one HTTP body."""


class UnitAccess(_Part):
    """How units are let in."""

    token_seconds: int = Field(600, ge=5, le=3600)
    """Lifetime of the token that a unit's own key is exchanged for."""
    urls: tuple[str, ...] = ()
    """Where agents reach the unit link, told to them with their token; empty: they are told elsewhere."""
    certificate_header: str | None = None
    """Header in which a proxy names the unit whose client certificate it has verified: then it must be the token's
    unit. None: no certificate is asked for."""


class StaffAccess(_Part):
    """How long people stay logged in."""

    token_seconds: int = Field(600, ge=5, le=3600)
    """Lifetime of an access token."""
    idle_seconds: int = Field(1800, ge=5)
    """A session that takes no tokens for so long ends."""
    session_seconds: int = Field(8 * 3600, ge=5)
    """However busy, a session ends then."""


class Links(_Part):
    """What a bridge grants to units' links."""

    unreachable_seconds: float = Field(300.0, ge=1)
    """Without a link for so long, a unit is told to be unreachable."""
    drain_seconds: float = Field(10.0, ge=0, le=18)
    """Over which a bridge that leaves lets its units go; ends before the process must."""
    connects_per_second: int = Field(1000, ge=1)
    unit_connects_per_minute: int = Field(300, ge=1)
    unit_frames_per_second: int = Field(500, ge=10)
    unit_bytes_per_second: int = Field(1024 * 1024, ge=16 * 1024)


class Settings(_Part):
    """Everything a process was told."""

    identity: Identity
    postgres: Postgres
    rabbitmq: RabbitMQ
    http: Listening
    bridge: Listening
    health: Listening
    keys: Keys
    work: Work
    links: Links = Links()
    units: UnitAccess = UnitAccess()
    staff: StaffAccess = StaffAccess()
    log_level: str = "info"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, package: str = "carespine") -> Self:
        """Read `CARESPINE_*`, once; `package` begins the default instance name. Raises SettingsError naming every
        variable that is missing or wrong.
        """
        reader = _Reader(os.environ if environment is None else environment)
        settings = {
            "identity": {
                "mode": reader.one_of("MODE", [mode.value for mode in Mode], default=Mode.PRODUCTION.value),
                "instance": reader.text("INSTANCE") or f"{package}-{os.getpid()}",
            },
            "postgres": {"url": reader.required("POSTGRES_URL")},
            "rabbitmq": {"url": reader.required("RABBITMQ_URL")},
            "http": {"host": reader.text("HTTP_HOST") or "127.0.0.1", "port": reader.port("HTTP_PORT")},
            "bridge": {"host": reader.text("BRIDGE_HOST") or "127.0.0.1", "port": reader.port("BRIDGE_PORT")},
            "health": {"host": reader.text("HEALTH_HOST") or "127.0.0.1", "port": reader.port("HEALTH_PORT")},
            "keys": {
                **reader.master_keys("MASTER_KEY"),
                "token_private_key": reader.pem("TOKEN_PRIVATE_KEY", "PRIVATE KEY"),
                "token_public_key": reader.public_keys("TOKEN_PUBLIC_KEY"),
            },
            "work": {
                "partitions": reader.number("PARTITIONS", 16, least=1, most=99),
                "lease_seconds": reader.seconds("LEASE_SECONDS", 6.0, least=1.0),
                "batch_limit": reader.number("BATCH_LIMIT", 256, least=1),
                "body_limit": reader.number("BODY_LIMIT", 65536, least=1024),
            },
            "units": {
                "token_seconds": reader.number("UNIT_TOKEN_SECONDS", 600, least=5, most=3600),
                "urls": reader.urls("UNIT_URLS", ("ws://", "wss://")),
                "certificate_header": reader.header("CLIENT_CERTIFICATE_HEADER"),
            },
            "staff": {
                "token_seconds": reader.number("STAFF_TOKEN_SECONDS", 600, least=5, most=3600),
                "idle_seconds": reader.number("STAFF_IDLE_SECONDS", 1800, least=5),
                "session_seconds": reader.number("STAFF_SESSION_SECONDS", 8 * 3600, least=5),
            },
            "links": {
                "unreachable_seconds": reader.seconds("UNREACHABLE_SECONDS", 300.0, least=1.0),
                "drain_seconds": reader.seconds("DRAIN_SECONDS", 10.0, least=0.0, most=18.0),
                "connects_per_second": reader.number("CONNECTS_PER_SECOND", 1000, least=1),
                "unit_connects_per_minute": reader.number("UNIT_CONNECTS_PER_MINUTE", 300, least=1),
                "unit_frames_per_second": reader.number("UNIT_FRAMES_PER_SECOND", 500, least=10),
                "unit_bytes_per_second": reader.number("UNIT_BYTES_PER_SECOND", 1024 * 1024, least=16 * 1024),
            },
            "log_level": reader.one_of("LOG_LEVEL", ["debug", "info", "warning", "error"], default="info"),
        }
        if reader.problems:
            raise SettingsError(reader.problems)
        return cls.model_validate(settings)


def master_keys_in(text: str) -> list[bytes]:
    """Keys with commas or line breaks between; `#` begins a comment. Raises a ValueError that shows none."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    written = [key.strip() for line in lines for key in line.split(",") if key.strip()]
    try:
        keys = [base64.b64decode(key, validate=True) for key in written]
    except binascii.Error:
        raise ValueError("not base64") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys) or len(set(keys)) < len(keys):
        raise ValueError(f"not keys of {KEY_BYTES} bytes, each another")
    return keys


class _Reader:
    """Reads variables and collects every problem, so that one start tells all of them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: dict[str, str] = {}

    def text(self, name: str) -> str | None:
        return self._environment.get(PREFIX + name, "").strip() or None

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            self.problems[name] = "is missing"
        return value or ""

    def one_of(self, name: str, allowed: list[str], *, default: str) -> str:
        value = (self.text(name) or default).lower()
        if value not in allowed:
            self.problems[name] = "is none of the allowed words"
            return default
        return value

    def number(self, name: str, default: int, *, least: int, most: int | None = None) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or int(value) < least or (most is not None and int(value) > most):
            self.problems[name] = "is not a number in range"
            return default
        return int(value)

    def seconds(self, name: str, default: float, *, least: float, most: float | None = None) -> float:
        value = self.text(name)
        if value is None:
            return default
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not least <= seconds < float("inf") or (most is not None and seconds > most):
            self.problems[name] = "is not a number in range"
            return default
        return seconds

    def port(self, name: str) -> int:
        return self.number(name, 0, least=0, most=65535)

    def urls(self, name: str, schemes: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())
        if not all(url.startswith(schemes) for url in found):
            self.problems[name] = "holds something that is no such address"
            return ()
        return found

    def header(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,60}", value):
            self.problems[name] = "is not the name of a header"
            return None
        return value

    def master_keys(self, name: str) -> dict[str, object]:
        value = self.text(name)
        if value is None:
            return {}
        if (keys := Keys.of_master_keys(value)) is None:
            self.problems[name] = "is not base64 of 32 bytes"
            return {}
        return {field: getattr(keys, field) for field in ("master_key", "retired_master_keys", "master_key_file")}

    def public_keys(self, name: str) -> str | None:
        """PEM or a JWK Set, a file with either, or every `*.pem` of a folder together."""
        value = self.text(name)
        if value is None:
            return None
        try:
            if not value.startswith(("-----BEGIN", "{")):
                place = Path(value)
                files = sorted(place.glob("*.pem")) if place.is_dir() else [place]
                value = "\n".join(file.read_text(encoding="ascii") for file in files)
        except (OSError, UnicodeDecodeError):
            self.problems[name] = "names a file that cannot be read"
            return None
        if "PRIVATE KEY-----" in value:
            self.problems[name] = "holds a private key"
            return None
        if "PUBLIC KEY-----" not in value and not value.lstrip().startswith("{"):
            self.problems[name] = "is not a PEM public key"
            return None
        return value

    def pem(self, name: str, label: str) -> str | None:
        value = self.text(name)
        if value is None:
            return None
        if not value.startswith("-----BEGIN"):
            try:
                value = Path(value).read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError):
                self.problems[name] = "names a file that cannot be read"
                return None
        if f"{label}-----" not in value:
            self.problems[name] = f"is not a PEM {label.lower()}"
            return None
        return value
