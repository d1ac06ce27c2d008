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
