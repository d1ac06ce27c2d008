"""Processes of the benchmark that are told what to do by lines of JSON on their standard input."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.load.processes import REPOSITORY, Child

Json = dict[str, Any]  # Any: JSON
START_DEADLINE = 120.0


class Told(Child):
    """One such process. `said` is the first line it said, when it was ready."""

    said: Json

    @classmethod
    async def begin(
        cls, name: str, *arguments: str | float | Path, log: Path, env: Mapping[str, str] | None = None
    ) -> Self:
        """Start `python -m tests.load.link.<name>` and wait until it is ready."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"tests.load.link.{name}",
                *map(str, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                cwd=REPOSITORY,
                limit=1 << 26,
            )
        child = cls(name, process, log)
        try:
            child.said = json.loads(await child.line(START_DEADLINE))
        except BaseException:
            await child.stop()
            raise
        return child

    def order(self, **order: object) -> None:
        """Tell it, without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")

    async def answer(self, patience: float) -> Json:
        """What it answers to the oldest order."""
        answer: Json = json.loads(await self.line(patience))
        return answer

    async def ask(self, do: str, patience: float = 240, **order: object) -> Json:
        """Tell it, and what it answers."""
        self.order(do=do, **order)
        return await self.answer(patience)
