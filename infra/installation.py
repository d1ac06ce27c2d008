"""One installation on this machine: where its state is kept, its keys, its ports, its processes and what each is told.

Everything lies under one folder (`var`). Leaves running the processes to `infra.supervisor`, and reading the
environment inside a process to `infra.settings`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.services.detached import write_private
from infra.services.ports import LOOPBACK, free_ports, is_free

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Places:
    """Where an installation keeps what."""

    var: Path

    @property
    def keys(self) -> Path:
        return self.var / "keys"

    @property
    def logs(self) -> Path:
        return self.var / "log"

    @property
    def plan(self) -> Path:
        return self.var / "run" / "plan.json"

    @property
    def state(self) -> Path:
        return self.var / "run" / "state.json"

    @property
    def ports(self) -> Path:
        return self.var / "run" / "ports.json"

    @classmethod
    def of_this_command(cls) -> Places:
        """CARESPINE_VAR, else `var` in the checkout this code runs from, else `var` in the working folder."""
        if given := os.environ.get("CARESPINE_VAR"):
            return cls(Path(given).expanduser().resolve())
        home = CHECKOUT if (CHECKOUT / "pyproject.toml").exists() else Path.cwd()
        return cls(home / "var")


@dataclass(frozen=True)
class Counts:
    """How many processes of each kind; the gateway is one, since it owns the port callers know."""

    handlers: int = 2
    projections: int = 1
    bridges: int = 2


@dataclass(frozen=True)
class Program:
    """One process of an installation: `python -m package` with its part of the environment."""

    name: str
    package: str
    health_url: str
    """Answers /health/live, /health/ready and /metrics."""
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The processes of an installation in the order they start (they stop in the reverse), and the URLs they serve."""

    programs: list[Program]
    gateway_url: str
    bridges: list[dict[str, str]]
    """`unit_url` and `portal_url` of each bridge."""

    def write(self, path: Path) -> None:
        """Keep the plan where the supervisor reads it; only we may read it, since it holds passwords and keys."""
        write_private(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """The plan kept in the file; None if there is none."""
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return cls(**(content | {"programs": [Program(**program) for program in content["programs"]]}))


def make_plan(
    places: Places,
    *,
    postgres_url: str,
    rabbitmq_url: str,
    counts: Counts,
    fixed_ports: Mapping[str, int] | None = None,
) -> Plan:
    """The processes of the installation; ports not fixed stay those of last time while they are free.

    `fixed_ports` is by name: `gateway-1/http`, `bridge-1/socket`, `handlers-1/health`.
    """
    kinds = {
        "handlers": ("command_handlers", counts.handlers),
        "projections": ("projections", counts.projections),
        "bridge": ("ws_bridge", counts.bridges),
        "gateway": ("gateway", 1),
    }
    instances = [
        (f"{kind}-{number}", package) for kind, (package, count) in kinds.items() for number in range(1, count + 1)
    ]
    wanted = [f"{name}/health" for name, _ in instances]
    wanted += [f"{name}/socket" for name, _ in instances if name.startswith("bridge-")] + ["gateway-1/http"]
    ports = _ports(places, wanted, fixed=fixed_ports or {})
    shared = {name: value for name, value in os.environ.items() if name.startswith("CARESPINE_")} | {
        "CARESPINE_POSTGRES_URL": postgres_url,
        "CARESPINE_RABBITMQ_URL": rabbitmq_url,
        "CARESPINE_MODE": mode(),
        "CARESPINE_VAR": str(places.var),
        **ensure_keys(places),
    }
    programs = []
    bridges = [
        {side: f"ws://{LOOPBACK}:{ports[name]}/{side.split('_')[0]}" for side in ("unit_url", "portal_url")}
        for name in wanted
        if name.startswith("bridge-") and name.endswith("/socket")
    ]
    # What an agent is told together with its token, so that it needs to know the gateway's address only.
    shared.setdefault("CARESPINE_UNIT_URLS", ",".join(bridge["unit_url"] for bridge in bridges))
    for name, package in instances:
        health = ports[f"{name}/health"]
        environment = shared | {"CARESPINE_INSTANCE": name, "CARESPINE_HEALTH_PORT": str(health)}
        if socket := ports.get(f"{name}/socket"):
            environment["CARESPINE_BRIDGE_PORT"] = str(socket)
        if http := ports.get(f"{name}/http"):
            environment["CARESPINE_HTTP_PORT"] = str(http)
        programs.append(
            Program(name=name, package=package, health_url=f"http://{LOOPBACK}:{health}", environment=environment)
        )
    return Plan(
        programs=programs,
        gateway_url=f"http://{LOOPBACK}:{ports['gateway-1/http']}",
        bridges=bridges,
    )


def mode() -> str:
    """What `carespine up` runs as: development unless the environment says otherwise."""
    return os.environ.get("CARESPINE_MODE", "development")


def ensure_keys(places: Places) -> dict[str, str]:
    """The installation's master key and token key pair, as environment variables.

    Given ones are used as they are. In development missing ones are made once and kept under `var/keys`, readable by
    us alone; in production nothing is made up, and the processes say what is missing.
    """
    names = ("CARESPINE_MASTER_KEY", "CARESPINE_TOKEN_PRIVATE_KEY", "CARESPINE_TOKEN_PUBLIC_KEY")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if mode() != "development":
        return given
    master, private, public = (places.keys / name for name in ("master.key", "token_private.pem", "token_public.pem"))
    if not master.exists():
        write_private(master, base64.b64encode(secrets.token_bytes(32)).decode())
    if not private.exists() or not public.exists():
        from infra.tokens import generate_key_pair

        private_pem, public_pem = generate_key_pair()
        write_private(private, private_pem)
        write_private(public, public_pem)
    made = dict(zip(names, (master.read_text(), str(private), str(public)), strict=True))
    if "CARESPINE_TOKEN_PRIVATE_KEY" in given or "CARESPINE_TOKEN_PUBLIC_KEY" in given:
        made = {"CARESPINE_MASTER_KEY": made["CARESPINE_MASTER_KEY"]}  # half a pair of ours would verify nothing
    return made | given


def _ports(places: Places, wanted: list[str], *, fixed: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the given one, else that of last time if it is free, else a new one."""
    try:
        last = json.loads(places.ports.read_text())
    except (OSError, ValueError):
        last = {}
    kept = {name: port for name, port in last.items() if name in wanted and is_free(port)}
    kept.update(fixed)
    missing = [name for name in wanted if name not in kept]
    ports: dict[str, int] = kept | dict(zip(missing, free_ports(len(missing)), strict=True))
    write_private(places.ports, json.dumps(ports))
    return ports
