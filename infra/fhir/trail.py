"""What an import leaves behind: the report of refused lines, and the checkpoint of one that was broken off."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self
from uuid import UUID

import orjson

from contracts.envelope import Json
from infra.api import Api, Declined
from infra.services.detached import write_private


class Report:
    """JSON lines of what was refused: file, line, code and, if one is to blame, the field. Never what stood there."""

    def __init__(self, path: Path, *, keep: tuple[str, int] = ("", 0)) -> None:
        """Begins anew, but for what an earlier run said of the file named in `keep`, up to the line named there."""
        file_name, through = keep
        kept = [line for line in _lines(path) if line.get("file") == file_name and line.get("line", 0) <= through]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._file.writelines(orjson.dumps(line) + b"\n" for line in kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def flush(self) -> None:
        self._file.flush()

    def add(self, file: Path, line: int, code: str, where: str | None = None) -> None:
        entry: Json = {"file": file.name, "line": line, "code": code}
        if where:
            entry["field"] = where
        self._file.write(orjson.dumps(entry) + b"\n")


def _lines(path: Path) -> list[Json]:
    try:
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError):
        return []


class Checkpoint:
    """How far one file has come, kept while its import is not through.

    It only saves asking again, and is believed only as long as the network still knows the last command it names: data
    that were thrown away since are imported again.
    """

    def __init__(self, folder: Path, *, url: str, files: tuple[Path, ...], settings: Json) -> None:
        """For these files as they are now, imported there with these settings."""
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest = hashlib.sha256(orjson.dumps([url, stats, settings])).hexdigest()
        self._path = folder / f"{digest[:16]}.json"

    async def line(self, api: Api) -> int:
        """The line through which everything is settled; 0: begin at the beginning."""
        try:
            kept = orjson.loads(self._path.read_bytes())
            line, command_id = int(kept["line"]), UUID(kept["commandId"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        try:
            outcome = await api.outcome(command_id)
        except Declined:
            return 0
        return 0 if outcome.get("status") == "pending" else line

    def keep(self, line: int, command_id: UUID) -> None:
        write_private(self._path, orjson.dumps({"line": line, "commandId": str(command_id)}).decode())

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
