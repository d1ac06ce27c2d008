"""nginx and haproxy for tests: installed, or unpacked from the distribution's packages; neither is needed otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.services.rabbitmq_files import user_cache

PACKAGES = {
    "nginx": ("nginx",),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
}
DOWNLOAD_SECONDS = 60


class NotObtainable(Exception):
    """This proxy is not installed, and its package cannot be had here."""


@dataclass(frozen=True)
class Program:
    """A proxy's program, and where its shared libraries are."""

    path: Path
    libraries: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What it is started with."""
        return os.environ | ({"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {})


def obtained(name: str) -> Program:
    """The program. Raises NotObtainable with the reason."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if installed := shutil.which(name, path=path):
        return Program(Path(installed))
    place = user_cache() / "proxies" / name
    if not (place / "usr" / "sbin" / name).exists():
        _fetch(name, place)
    program = Program(place / "usr" / "sbin" / name, next(iter((place / "usr" / "lib").glob("*-linux-gnu*")), None))
    asked = subprocess.run([program.path, "-v"], env=program.environment, capture_output=True, check=False, timeout=10)
    if asked.returncode != 0:
        raise NotObtainable(f"{name} of the distribution's package does not run on this machine")
    return program


def _fetch(name: str, place: Path) -> None:
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg")):
        raise NotObtainable(f"{name} is not installed, and there is no apt-get to fetch its package with")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        for package in PACKAGES[name]:  # one by one: which libraries there are differs between releases
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["apt-get", "-qq", "-oAPT::Sandbox::User=", "download", package],  # noqa: S607 - as PATH has it
                    cwd=folder,
                    capture_output=True,
                    check=False,
                    timeout=DOWNLOAD_SECONDS,
                )
        root = Path(folder) / "root"
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, root], check=True, capture_output=True)  # noqa: S607 - as above
        if not (root / "usr" / "sbin" / name).exists():
            raise NotObtainable(f"{name} is not installed, and its package cannot be fetched here")
        with suppress(OSError):  # somebody else was quicker
            root.rename(place)


@contextmanager
def running(name: str, program: Program, configuration: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The proxy with this configuration, while the block runs; what it says goes to a log in the folder."""
    file = folder / f"{name}.conf"
    if name == "nginx":
        paths = "\n".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file.write_text(
            f"daemon off; pid {folder}/nginx.pid; worker_processes 1; error_log stderr;\n"
            f"{'user root;' if os.getuid() == 0 else ''}\n"
            f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{paths}\n{configuration}\n}}\n"
        )
        command = [str(program.path), "-p", str(folder), "-e", "stderr", "-c", str(file)]
    else:
        file.write_text(configuration)
        command = [str(program.path), "-db", "-f", str(file)]
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, env=program.environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)
