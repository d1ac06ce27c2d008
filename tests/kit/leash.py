"""Ends the services of a test run whose own process is gone, however it went.

Runs beside the tests as `python -m tests.kit.leash FOLDER`: its standard input is a pipe that nobody writes to and
that closes with the test process. Then the services in the folder are killed and the folder is removed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.services.postgres import PrivatePostgres
from infra.services.rabbitmq import PrivateRabbitMQ


@contextlib.contextmanager
def leashed_folder() -> Iterator[Path]:
    """A folder for services that are worth nothing after the run: they end with it even if this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="carespine-test-"))
    leash = subprocess.Popen([sys.executable, "-m", "tests.kit.leash", str(folder)], stdin=subprocess.PIPE)
    try:
        yield folder
    finally:
        assert leash.stdin
        leash.stdin.close()
        leash.wait(60)


def end_services(folder: Path) -> None:
    """Kill what runs in the folder and remove it: nobody needs the data."""
    rabbitmq = PrivateRabbitMQ(folder / "rabbitmq", say=lambda line: None)
    rabbitmq.kill()
    rabbitmq.stop()  # the port mapper
    postgres = PrivatePostgres(folder / "postgres")
    postgres.kill()
    postgres.remove()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    end_services(Path(sys.argv[1]))
