"""`carespine erasure verify`: a report that anybody can check."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner

from infra.cli.app import app
from infra.cli.exit_codes import ExitCode
from infra.erasure.report import ErasureReport
from infra.tokens import generate_key_pair
from tests.kit.commands import new_id

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REPORT = ErasureReport(
    patient_id=new_id(),
    unit_id="north",
    basis="person-asked",
    requested_by="admin-1",
    command_id=new_id(),
    partition=3,
    position=42,
    erased_at=NOW,
    keys_destroyed=1,
    status="complete",
    completed_at=NOW,
    awaits=[],
    places=[],
)


def test_a_report_is_genuine_as_it_was_signed_and_under_its_own_key_only(tmp_path: Path) -> None:
    private, public = generate_key_pair()
    _, stranger = generate_key_pair()
    signed = REPORT.signed(private)
    report, changed, key, other = (tmp_path / name for name in ("report", "changed", "key", "other"))
    report.write_bytes(signed.to_json())
    changed.write_bytes(signed.model_copy(update={"position": 43}).to_json())
    key.write_text(public)
    other.write_text(stranger)

    def verified(file: Path, by: Path) -> int:
        return CliRunner().invoke(app, ["erasure", "verify", str(file), "--public-key", str(by)]).exit_code

    assert verified(report, key) == ExitCode.DONE
    assert verified(report, other) == ExitCode.CHECK_FAILED
    assert verified(changed, key) == ExitCode.CHECK_FAILED
    assert verified(key, key) == ExitCode.USAGE
