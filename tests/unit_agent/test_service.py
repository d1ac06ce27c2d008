"""The agent under systemd: what it says, and that the unit files say what the agent can do."""

from __future__ import annotations

import asyncio
import configparser
import shutil
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kit.processes import ROOT
from unit_agent.cli.run import _parser
from unit_agent.configuration import configured, told
from unit_agent.service import told_to_systemd

SERVICE = ROOT / "infra" / "service"


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_hears_ready_alive_and_stopping(tmp_path: Path, abstract: bool) -> None:
    name = f"@carespine-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        hearing.bind("\0" + name[1:] if abstract else name)
        hearing.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "150000"}
            async with told_to_systemd(lambda: "link live", environment):
                assert await loop.sock_recv(hearing, 1000) == b"READY=1\nSTATUS=link live"
                assert await loop.sock_recv(hearing, 1000) == b"WATCHDOG=1\nSTATUS=link live"
            said = b""
            while said != b"STOPPING=1":
                said = await loop.sock_recv(hearing, 1000)


async def test_without_systemd_nothing_is_told() -> None:
    async with told_to_systemd(lambda: "", {}):
        pass
    async with told_to_systemd(lambda: "", {"NOTIFY_SOCKET": "/nowhere/at/all"}):
        pass


@pytest.mark.parametrize("name", ["carespine-agent.service", "carespine-agent@.service"])
def test_the_unit_file_runs_what_there_is(name: str) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    unit.read(SERVICE / name)
    command, *arguments = unit["Service"]["ExecStart"].split()
    assert (Path(command).name, arguments[0]) == ("unit-agent", "run")
    _parser().parse_args(arguments[1:])
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize("name", ["carespine-agent.service", "carespine-agent@.service"])
def test_systemd_itself_takes_the_unit_file(tmp_path: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed here")
    text = (SERVICE / name).read_text().replace("/opt/carespine-agent/bin/unit-agent", "/bin/true")
    file = tmp_path / name.replace("@", "@north")
    file.write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_windows_service_runs_what_there_is() -> None:
    service = ElementTree.parse(SERVICE / "carespine-agent.xml")  # noqa: S314 - our own file
    arguments = (service.findtext("arguments") or "").replace('"', "").split()
    assert arguments[0] == "run"
    _parser().parse_args(arguments[1:])


def test_the_example_configuration_can_be_used_as_it_is_and_with_everything_in_it(tmp_path: Path) -> None:
    example = (SERVICE / "agent.toml").read_text()
    assert configured(told({}, file=SERVICE / "agent.toml", environment={})).unit == "north"
    lines = [line.removeprefix("# ") if line.startswith(("# [", "# url", "# secret", "# run", "# ask", "# host",
             "# port", "# allow", "# department")) else line for line in example.splitlines()]  # fmt: skip
    (tmp_path / "agent.toml").write_text("\n".join(lines))
    settings = configured(told({}, file=tmp_path / "agent.toml", environment={}))
    assert settings.hl7.send is not None
    assert settings.hl7.listen is not None
    assert settings.webhook is not None
    assert set(settings.programs) == {"orders.place"}
