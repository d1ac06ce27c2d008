"""Text and numbers that can be kept: any character but U+0000, which Postgres has no place for; finite numbers, whole
ones of at most 64 bits.

Asked at every door that commands come in by, so that nothing is accepted that could not be written down or shown.
"""

from __future__ import annotations

from typing import Any, Final

ESCAPED_NUL: Final = b"\\u0000"
"""How JSON writes it; bytes without this need no closer look."""


def holds_nul(content: Any) -> bool:  # Any: JSON
    """Whether any text in this JSON value, names of fields among them, holds U+0000."""
    match content:
        case str():
            return "\x00" in content
        case list():
            return any(holds_nul(item) for item in content)
        case dict():
            return any(holds_nul(key) or holds_nul(value) for key, value in content.items())
        case _:
            return False


SMALLEST: Final = -(2**63)
LARGEST: Final = 2**64 - 1
INFINITE: Final = float("inf")


def holds_odd_number(content: Any) -> bool:  # Any: JSON
    """Whether any number in this JSON value is not finite, or a whole one of more than 64 bits."""
    match content:
        case int():
            return not SMALLEST <= content <= LARGEST
        case float():
            return not -INFINITE < content < INFINITE
        case list():
            return any(holds_odd_number(item) for item in content)
        case dict():
            return any(holds_odd_number(value) for value in content.values())
        case _:
            return False


def kept(content: Any) -> Any:  # Any: JSON
    """This JSON value with replacements for what cannot be kept or sent on.

    U+0000 and halves of surrogate pairs; whole numbers of more than 64 bits become text, and what is no finite number
    null.
    """
    match content:
        case int() if not SMALLEST <= content <= LARGEST:
            return str(content)
        case float() if not -INFINITE < content < INFINITE:
            return None
        case str():
            return content.replace("\x00", "\ufffd").encode(errors="replace").decode()
        case list():
            return [kept(item) for item in content]
        case dict():
            return {kept(key): kept(value) for key, value in content.items()}
        case _:
            return content
