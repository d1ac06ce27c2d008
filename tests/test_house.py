"""The rules of the house that a machine can hold: imports, sizes, docstrings, and what may never be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("contracts", "gateway", "ws_bridge", "command_handlers", "projections", "unit_agent", "migrations", "infra")
LONGEST_MODULE = 400
VAGUE = {"utils", "common", "helpers", "manager", "misc"}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def named(paths: Iterator[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_imports_only_go_down() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_what_it_knows() -> None:
    silent = (path for path in modules(*PACKAGES, "tests") if not ast.get_docstring(ast.parse(path.read_text())))
    assert named(silent) == []


def test_no_module_has_grown_a_second_subject() -> None:
    long = (path for path in modules(*PACKAGES) if len(path.read_text().splitlines()) > LONGEST_MODULE)
    assert named(long) == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert named(path for path in modules(*PACKAGES, "tests") if path.stem in VAGUE) == []


def test_the_lock_names_no_index_and_every_line_has_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock
    assert (
        len(re.findall(r"^\S+==", lock, flags=re.MULTILINE))
        == len(re.findall(r"\\\n    --hash=.*(?<!\\)\n", lock))
        > 50
    )


def test_the_lock_holds_everything_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    assert {re.split(r"[\[><=; ]", line)[0].lower() for line in wanted} <= locked


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_works_while_it_is_imported(package: str) -> None:
    """No connection, thread or loop at import: a package's modules load with the network taken away."""
    files = [path for path in modules(package) if path.name != "env.py" and "versions" not in path.parts]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    program = (
        "import importlib, socket, threading\n"
        "def refuse(*words, **more): raise AssertionError('a connection at import')\n"
        "socket.socket.connect = refuse\n"
        f"for name in {[name for name in names if not name.endswith('__main__')]!r}: importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
