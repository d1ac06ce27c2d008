"""What the documents promise is there: links lead somewhere, and lists of settings, metrics and commands are whole."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from pathlib import Path

import pytest
import typer

from infra.cli.app import app
from infra.cli.exit_codes import ExitCode
from infra.settings import PREFIX, REMEDIES
from infra.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
ALL = "\n".join(page.read_text() for page in PAGES)


def section(name: str) -> str:
    """What stands below a heading of the reference."""
    return REFERENCE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_is_named_is_there(page: Path) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "var")))
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)", page.read_text()):
        assert (ROOT / path.rstrip(".")).exists() or (page.parent / path).exists(), path


def test_a_newcomer_finds_every_page_from_the_readme() -> None:
    found: set[Path] = set()
    to_read = [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            target = (page.parent / link).resolve()
            pages = target.glob("*.md") if target.is_dir() else [target] if target.suffix == ".md" else []
            new = set(pages) - found
            found |= new
            to_read += new
    assert found >= set(PAGES) - {ROOT / "README.md"}


def test_every_setting_is_explained_and_no_other() -> None:
    told = set(re.findall(rf"`({PREFIX}[A-Z_]+)`", section("Settings").partition("On a machine")[0]))
    hosts = {f"{PREFIX}{place}_HOST" for place in ("HTTP", "BRIDGE", "HEALTH")}
    assert told == {f"{PREFIX}{name}" for name in REMEDIES} | hosts | {f"{PREFIX}INSTANCE"}


def test_every_exit_code_is_explained() -> None:
    told = re.findall(r"^\| (\d+) \|", section("Exit codes of `carespine`"), flags=re.MULTILINE)
    assert [int(code) for code in told] == sorted(ExitCode)


def test_every_metric_is_explained_with_its_labels_and_no_other() -> None:
    metrics = Metrics()
    there = {}
    for name, _ in inspect.getmembers(Metrics, lambda member: isinstance(member, cached_property)):
        metric = getattr(metrics, name)
        there[metric._name] = set(metric._labelnames)  # the library shows them only once a series is there
    rows = re.findall(r"^\| `(\w+)` (\w+) \| (.*?) \|", section("Metrics"), flags=re.MULTILINE)
    ends = {"counter": "_total", "info": "_info"}
    told = {name.removesuffix(ends.get(kind, "")): set(re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}
    assert told == there


def test_metrics_that_pages_speak_of_are_there() -> None:
    known = set(re.findall(r"`(carespine_\w+)`", section("Metrics")))
    assert set(re.findall(r"\b(carespine_\w+?)(?=[`{])", ALL)) <= known


def test_every_command_is_named_and_no_other() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]  # an app with several commands is a group
    changed = (ROOT / "CHANGELOG.md").read_text() + (ROOT / "README.md").read_text()
    assert {name for name in commands if name not in changed} == set()
    for said in set(re.findall(r"`(?:\.venv/bin/)?carespine ([a-z][a-z-]*)", ALL)):
        assert said in commands, said
    for name in ("dead-letters", "units"):
        for said in set(re.findall(rf"carespine {name} ([a-z][a-z-]*)", ALL)):
            assert said in commands[name].commands, said


def test_every_target_of_make_is_named_and_no_other() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", ALL)) | {"lint", "types"} == targets
