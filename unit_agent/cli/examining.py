"""What `doctor` looks at on this machine: the store, the disk under it, the agent that runs on it, its errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from pathlib import Path
from typing import Final, Literal

from infra.findings import Finding
from unit_agent.cli.looking import NoStore, counts, is_running, reading, told_by_the_agent
from unit_agent.configuration import Configuration
from unit_agent.store import SCHEMA_VERSION

A_DAY: Final = 86_400
State = Literal["ok", "warning", "failed"]


def of_the_store(folder: Path, unit_id: str, settings: Configuration) -> list[Finding]:
    """Its folder, its integrity, whose it is, and the room it has."""
    if not folder.is_dir():
        return [
            Finding(
                "store.folder",
                "warning",
                f"{folder} is not there yet",
                "a folder of the agent's own",
                "start the agent once: it makes the folder; or correct --data",
            ),
        ]
    return [_folder(folder), *_integrity(folder, unit_id), _room(folder, settings)]


def _folder(folder: Path) -> Finding:
    mode = stat.S_IMODE(folder.stat().st_mode)
    expected, remedy = (
        "readable and writable by the agent's account alone",
        f"chmod 700 {folder}; chown it to the account",
    )
    if os.name == "posix" and mode & 0o077:
        return Finding("store.folder", "failed", f"others may read {folder} (mode {mode:o})", expected, remedy)
    if not os.access(folder, os.W_OK):
        return Finding("store.folder", "failed", f"this account may not write to {folder}", expected, remedy)
    return Finding("store.folder", "ok", str(folder), expected, remedy)


def _integrity(folder: Path, unit_id: str) -> list[Finding]:
    name, expected = "store.integrity", "a store that is whole"
    aside = f"stop the agent, set {folder / 'agent.db'} aside and start it: it learns everything anew from the centre"
    lost = aside + "; commands that waited in the old one are lost to the centre, so keep it"
    try:
        with reading(folder) as database:
            [(said,)] = database.execute("PRAGMA quick_check(1)").fetchall()
            version = database.execute("PRAGMA user_version").fetchone()[0]
            found = counts(database)
    except NoStore:
        return [Finding(name, "warning", "no store yet", expected, "start the agent once")]
    except sqlite3.DatabaseError as why:
        return [Finding(name, "failed", f"it cannot be read: {type(why).__name__}", expected, lost)]
    findings = [
        Finding(name, "ok" if said == "ok" else "failed", "whole" if said == "ok" else "damaged", expected, lost)
    ]
    if version > SCHEMA_VERSION:
        findings.append(
            Finding(
                "store.version",
                "failed",
                f"written by a newer agent ({version})",
                f"version {SCHEMA_VERSION} at most",
                "install that newer agent again",
            )
        )
    if found.get("unit") not in (None, unit_id):
        findings.append(
            Finding(
                "store.unit",
                "failed",
                f"it belongs to unit {found['unit']}",
                f"unit {unit_id}",
                "give each unit its own folder (--data), or correct --unit",
            )
        )
    for count, what, remedy in (
        ("hl7SetAside", "HL7 messages set aside", "look at why: unit-agent hl7; then unit-agent hl7 --send-again"),
        ("conflictsOpen", "commands of this site that the centre did not carry out", "GET /conflicts of the local API"),
        (
            "outboxRefused",
            "commands that the centre could not read",
            "the site's software and the centre differ; GET /commands/{id}",
        ),
    ):
        if found.get(count):
            findings.append(Finding(f"store.{count}", "warning", f"{found[count]} {what}", "none", remedy))
    return findings


def _room(folder: Path, settings: Configuration) -> Finding:
    free, low = shutil.disk_usage(folder).free, settings.disk.low_bytes
    reserve = folder / "reserve"
    held = settings.disk.reserve_bytes == 0 or (
        reserve.exists() and reserve.stat().st_size >= settings.disk.reserve_bytes
    )
    seen = f"{free / 1e6:,.0f} MB free" + ("" if held or not (folder / "agent.db").exists() else ", no reserve")
    state: State = "failed" if free < low else "ok" if free > 10 * low else "warning"
    return Finding(
        "disk.room",
        state,
        seen,
        f"more than {low / 1e6:,.0f} MB, or nothing new is taken (507)",
        f"make room on the disk under {folder}; the agent goes on by itself",
    )


def of_the_agent(folder: Path, settings: Configuration) -> list[Finding]:
    """Whether it runs, what it says of its link, and what it logged as errors lately."""
    expected = "an agent that runs and is linked"
    if not is_running(folder):
        return [
            Finding(
                "agent.running",
                "warning",
                "it does not run",
                expected,
                "systemctl start carespine-agent, or unit-agent run",
            )
        ]
    findings = [Finding("agent.running", "ok", "it runs", expected, "")]
    told = told_by_the_agent(folder)
    if told is None:
        if settings.http_port is not None:
            findings.append(
                Finding(
                    "agent.answers",
                    "failed",
                    "its local API does not answer",
                    "an answer within 5 s",
                    "restart it; read its log",
                )
            )
    else:
        link = told["link"]
        well = link["connected"]
        findings.append(
            Finding(
                "agent.link",
                "ok" if well else "failed" if link["state"] == "stopped" else "warning",
                link["state"] + ("" if well else f": {link['why']}"),
                "live",
                link["remedy"] or "it comes back by itself; the checks of the centre below say what is in the way",
            )
        )
    if settings.log.folder is not None:
        errors = settings.log.folder / "errors.log"
        recent = errors.exists() and time.time() - errors.stat().st_mtime < A_DAY
        findings.append(
            Finding(
                "log.errors",
                "warning" if recent else "ok",
                f"{'' if recent else 'no '}errors within a day",
                "none",
                f"read {errors}",
            )
        )
    return findings
