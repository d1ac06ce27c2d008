"""How names are compared: without case, accents and punctuation between words, so that `jose` finds José."""

from __future__ import annotations

import re
import unicodedata

_BETWEEN_WORDS = re.compile(r"[\s,;]+")


def fold(text: str) -> str:
    """The form in which names are compared and ordered: `  Müller,  ANNA` -> `muller anna`."""
    if text.isascii():
        return _BETWEEN_WORDS.sub(" ", text).strip().lower()
    decomposed = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    bare = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return _BETWEEN_WORDS.sub(" ", bare.casefold()).strip()
