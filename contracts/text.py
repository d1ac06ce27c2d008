"""Text that can be kept: any character but U+0000, which Postgres has no place for.

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


def kept(content: Any) -> Any:  # Any: JSON
    """This JSON value with replacements for what cannot be kept or sent on: U+0000, and halves of surrogate pairs."""
    match content:
        case str():
            return content.replace("\x00", "\ufffd").encode(errors="replace").decode()
        case list():
            return [kept(item) for item in content]
        case dict():
            return {kept(key): kept(value) for key, value in content.items()}
        case _:
            return content
