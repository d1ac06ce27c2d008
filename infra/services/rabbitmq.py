"""A private RabbitMQ node: programs found by `rabbitmq_files`, all it writes in our folder, ports on loopback only.

Knows how the node is configured, started, stopped and killed keeping ports and data. The management plugin is on
because its HTTP interface makes a virtual host in 20 ms (see `virtual_hosts`); its statistics collector is off, so it
costs nothing measurable. Exchanges and queues are the business of `infra.broker`.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from infra.services.answers import why_rabbitmq_is_silent
from infra.services.detached import Kept, KeptProcess, ServiceTrouble, last_lines, spawn, wait_until, write_private
from infra.services.ports import LOOPBACK, become_free, free_ports, is_free, is_listening
from infra.services.rabbitmq_files import ServerFiles, find_server_files, user_cache

USER = "carespine"


@dataclass(frozen=True)
class Keeping:
    """What a node must find again at the next start."""

    port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    password: str

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{self.password}@{LOOPBACK}:{self.port}/"

    @property
    def management_url(self) -> str:
        return f"http://{USER}:{self.password}@{LOOPBACK}:{self.management_port}"

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self.management_port, self.distribution_port)


class PrivateRabbitMQ:
    """The RabbitMQ node that lives in one folder of ours."""

    def __init__(self, home: Path, *, say: Callable[[str], None]) -> None:
        self.home = home
        self.log = home / "node.log"
        self._say = say
        self._kept = Kept(home / "keeping.json", Keeping)
        self._node = KeptProcess(home / "process.json")
        self._port_mapper = KeptProcess(home / "epmd.json")

    @property
    def url(self) -> str | None:
        """The AMQP URL of the node, running or not; None before its first start."""
        keeping = self._kept.read()
        return keeping.url if keeping else None

    @property
    def management_url(self) -> str | None:
        """The URL of the node's management interface; None before its first start."""
        keeping = self._kept.read()
        return keeping.management_url if keeping else None

    @property
    def pid(self) -> int | None:
        """The process id of the running node."""
        return self._node.pid

    def is_running(self) -> bool:
        """True if the node of this folder is up and lets us in."""
        url = self.url
        return url is not None and self.pid is not None and why_rabbitmq_is_silent(url) is None

    def start(self) -> str:
        """Start the node (making its folder at the first time) and answer its URL once it lets us in."""
        files = find_server_files(user_cache(), self._say)
        keeping = self._kept.read() or self._make()
        if self.pid is None:
            if not become_free(keeping.ports, timeout=5):  # somebody else took one since
                port, management, distribution = free_ports(3)
                keeping = replace(keeping, port=port, management_port=management, distribution_port=distribution)
                keeping = self._kept.write(keeping)
            keeping = self._ensure_epmd(files, keeping)
            self._launch(files, keeping)
        self._wait(keeping)
        return keeping.url

    def stop(self, *, timeout: float = 60) -> None:
        """Let the node close its queues and go, and the port mapper with it."""
        self._node.end(timeout=timeout)
        self._port_mapper.end(timeout=5)

    def kill(self) -> None:
        """Kill -9, as a power cut would."""
        self._node.end(by=signal.SIGKILL, timeout=10)

    def restart(self, *, kill: bool = False) -> str:
        """Stop (or kill) and start again on the same ports with the same data."""
        if kill:
            self.kill()
        else:
            self._node.end(timeout=60)
        return self.start()

    def _make(self) -> Keeping:
        port, management, distribution, epmd = free_ports(4)
        keeping = Keeping(
            port=port,
            management_port=management,
            distribution_port=distribution,
            epmd_port=epmd,
            password=secrets.token_urlsafe(24),
        )
        return self._kept.write(keeping)

    def _ensure_epmd(self, files: ServerFiles, keeping: Keeping) -> Keeping:
        """Erlang's port mapper, one of our own: Debian's `erl` starts none, and a shared one knows strangers' nodes."""
        if self._port_mapper.pid is not None and is_listening(keeping.epmd_port):
            return keeping
        if not is_free(keeping.epmd_port):
            keeping = replace(keeping, epmd_port=free_ports(1)[0])
            keeping = self._kept.write(keeping)
        command: list[str | Path] = [files.epmd, "-port", str(keeping.epmd_port), "-address", LOOPBACK]
        self._port_mapper.began(spawn(command, log=self.log, env=_environment(files)))
        wait_until(lambda: is_listening(keeping.epmd_port), timeout=10, what="the start of Erlang's port mapper")
        return keeping

    def _launch(self, files: ServerFiles, keeping: Keeping) -> None:
        for folder in ("home", "data", "log"):
            (self.home / folder).mkdir(exist_ok=True)
        configuration = self.home / "rabbitmq.conf"
        write_private(configuration, _configuration(keeping))
        plugins = self.home / "enabled_plugins"
        plugins.write_text("[rabbitmq_management].\n")
        environment = _environment(files) | {
            "HOME": str(self.home / "home"),
            "ERL_EPMD_PORT": str(keeping.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_HOME": str(files.scripts.parent),
            "RABBITMQ_NODENAME": "carespine@localhost",
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_DIST_PORT": str(keeping.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # With this the script becomes the Erlang process instead of waiting for it, so that its pid is the node's.
            "RABBITMQ_ALLOW_INPUT": "1",
        }
        command: list[str | Path] = [files.scripts / "rabbitmq-server", "-noinput"]
        self._node.began(spawn(command, log=self.log, env=environment))

    def _wait(self, keeping: Keeping) -> None:
        def ready() -> bool:
            if self.pid is None:
                raise ServiceTrouble(f"RabbitMQ did not start; the end of {self.log}:\n{last_lines(self.log)}")
            return (
                is_listening(keeping.port)
                and is_listening(keeping.management_port)
                and why_rabbitmq_is_silent(keeping.url) is None
            )

        wait_until(ready, timeout=90, what="a first login to the private RabbitMQ")


def _environment(files: ServerFiles) -> dict[str, str]:
    """The caller's environment without its own RabbitMQ settings, with the found Erlang first."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_", "NOTIFY_SOCKET"))
    }
    environment["PATH"] = os.pathsep.join(
        [str(files.erlang), environment.get("PATH", ""), "/usr/bin", "/bin", "/usr/sbin"]
    )
    environment.setdefault("LANG", "C.UTF-8")
    if files.libraries:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            filter(None, [str(files.libraries), environment.get("LD_LIBRARY_PATH")])
        )
    return environment


def _configuration(keeping: Keeping) -> str:
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{keeping.port}",
        "default_user": USER,
        "default_pass": keeping.password,
        "default_user_tags.administrator": "true",
        "heartbeat": "10",
        "management.tcp.ip": LOOPBACK,
        "management.tcp.port": str(keeping.management_port),
        "management_agent.disable_metrics_collector": "true",
        "log.file.level": "warning",
        "log.console": "false",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())
