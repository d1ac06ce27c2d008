"""The golden files: how each word is written at each of its versions, for ever.

`python -m tests.contracts.golden` writes the files that are missing and touches no other. A file is written once, when
its class is new or has a new version, and from then on today's code must read it and, for the newest version, write the
very same JSON. So when a test here fails, do not write the file anew: give the class a new `version` and an upcast.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.contracts.examples import example, version_of, words

FOLDER = Path(__file__).parent / "golden"


def golden_file(name: str, version: int) -> Path:
    """Where the golden JSON of a word stands."""
    return FOLDER / f"{name}.v{version}.json"


def golden(name: str, version: int) -> dict[str, Any]:  # Any: a JSON object
    """The golden JSON of a word."""
    content: dict[str, Any] = json.loads(golden_file(name, version).read_text())
    return content


def kept() -> list[tuple[str, int]]:
    """Every word and version there is a file for."""
    found = [file.stem.rpartition(".v") for file in sorted(FOLDER.glob("*.json"))]
    return [(name, int(version)) for name, _, version in found]


def write_missing() -> list[Path]:
    """Write the files of words and versions that have none yet."""
    FOLDER.mkdir(exist_ok=True)
    written = []
    for name, word in words().items():
        file = golden_file(name, version_of(word))
        if not file.exists():
            file.write_text(json.dumps(example(word), indent=2, ensure_ascii=False) + "\n")
            written.append(file)
    return written


if __name__ == "__main__":
    for new in write_missing():
        print(new.relative_to(FOLDER.parent))
