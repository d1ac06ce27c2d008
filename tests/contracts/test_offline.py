"""What a unit may do while it is cut off is decided for every command, and written down where sites will read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.catalogue import COMMANDS
from contracts.identity import Role
from contracts.model import Command, Offline

PAGE = Path(__file__).parents[2] / "docs" / "offline.md"
OF_UNITS = {name: word for name, word in COMMANDS.items() if Role.UNIT in word.may}


@pytest.mark.parametrize("word", OF_UNITS.values(), ids=OF_UNITS)
def test_a_command_that_units_may_give_says_itself_whether_they_may_offline(word: type[Command]) -> None:
    assert "offline" in vars(word), "decide `offline` on the class itself"
    assert word.offline is Offline.LOCAL or "Offline: " in (word.__doc__ or ""), "say why in the docstring"


@pytest.mark.parametrize("word", [word for name, word in COMMANDS.items() if name not in OF_UNITS])
def test_what_units_may_not_give_they_may_not_give_offline(word: type[Command]) -> None:
    assert word.offline is Offline.NEVER


def test_the_page_for_sites_has_the_rule_of_every_command() -> None:
    written = dict(re.findall(r"^\| `(\w+\.\w+)` \| (never|later|local) \|", PAGE.read_text(), re.MULTILINE))
    assert written == {name: word.offline.value for name, word in OF_UNITS.items()}
