"""Words and rules are pure: nothing in them waits, reads a clock, draws lots or logs, and nothing they import does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = sorted([*(ROOT / "contracts").glob("*.py"), *(ROOT / "command_handlers" / "domain").glob("*.py")])

ALLOWED = {
    "__future__", "bisect", "collections", "contracts", "dataclasses", "datetime", "enum", "functools", "hashlib",
    "pydantic", "re", "typing", "uuid", "zlib", "zoneinfo",
}  # fmt: skip
"""What words and rules are made of; `command_handlers.domain` besides, for the rules."""

IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid6", "uuid7_now", "open", "print", "input", "getLogger"}


@pytest.mark.parametrize("file", PURE, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_words_and_rules_import_only_what_is_pure(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        for module in _imported(node):
            rules = file.parent.name == "domain" and module.startswith("command_handlers.domain")
            assert rules or module.partition(".")[0] in ALLOWED, f"{file.name}:{getattr(node, 'lineno', 0)} {module}"


@pytest.mark.parametrize("file", PURE, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_words_and_rules_call_no_clock_and_draw_no_lots(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in IMPURE_CALLS, f"{file.name}:{node.lineno} {called}"


@pytest.mark.parametrize("file", PURE, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_words_and_rules_wait_for_nothing(file: Path) -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.Global, ast.Nonlocal)
    assert not [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, waits)]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []
