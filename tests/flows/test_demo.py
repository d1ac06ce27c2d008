"""`carespine demo`, small: it ends with an account that balances, leaves nothing running, and says what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.services.launcher import Services

pytestmark = pytest.mark.timeout(300)

DEMO = [sys.executable, "-c", "from infra.cli.app import main; main()", "demo"]


def processes_in(folder: Path) -> list[str]:
    """Command lines of live processes that were told of the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        told = " ".join(process.info["cmdline"] or [])
        if str(folder) in told or (process.info["environ"] or {}).get("CARESPINE_VAR", "").startswith(str(folder)):
            found.append(told)
    return found


def test_a_small_clinic_day_balances_and_leaves_nothing_behind(
    services: Services, rabbitmq: str, tmp_path: Path
) -> None:
    environment = os.environ | {
        "CARESPINE_VAR": str(tmp_path / "var"),
        "CARESPINE_POSTGRES_URL": services.postgres_url,
        "CARESPINE_RABBITMQ_URL": rabbitmq,
    }

    done = subprocess.run(
        [*DEMO, "--units", "5", "--patients", "100", "--seconds", "15"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "the account balances, lost 0, doubled 0" in done.stdout
    report = json.loads((tmp_path / "var" / "demo.json").read_text())
    assert (report["lost"], report["doubled"], report["balances"]) == (0, 0, True)
    assert report["surprises"] == []
    assert report["poison"] == {"deadLettered": 2, "replayed": 2}
    assert report["offlineUnit"]["missed"] > 0
    assert len(report["faults"]) == 6
    assert report["visits"]["finished"] > 0
    assert processes_in(tmp_path) == []
