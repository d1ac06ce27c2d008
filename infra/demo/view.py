"""What the demo shows while it runs: numbers and milestones, live in a terminal, as plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

MILESTONES_SHOWN = 12
PLAIN_EVERY = 10.0
"""Seconds between two lines of numbers where nobody watches."""

Say = Callable[[str], None]
"""Told of a milestone."""
Numbers = dict[str, str]
"""A row of the board: what, and how much."""


class View:
    """Milestones as they come, and while a block runs in `showing`, numbers as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._milestones: list[str] = []
        self._live: Live | None = None
        """The board, while there is one on the screen."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Something has happened."""
        self._milestones.append(f"{self.elapsed:6.1f} s  {text}")
        if self._live is None:
            self._print(self._milestones[-1])

    @contextmanager
    def showing(self, numbers: Callable[[], Numbers]) -> Iterator[None]:
        """A board with numbers on a terminal; anywhere else a line of them now and then."""
        if self._console.is_terminal:
            before = len(self._milestones)
            try:
                with Live(
                    console=self._console,
                    get_renderable=lambda: self._board(numbers()),
                    refresh_per_second=4,
                    transient=True,
                    redirect_stderr=False,
                ) as self._live:
                    yield
            finally:
                self._live = None
                for line in self._milestones[before:]:
                    self._print(line)
            return
        over = threading.Event()
        teller = threading.Thread(target=self._tell, args=(numbers, over), daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join(5)

    def _tell(self, numbers: Callable[[], Numbers], over: threading.Event) -> None:
        while not over.wait(PLAIN_EVERY):
            self._print(f"{self.elapsed:6.1f} s  · " + "; ".join(f"{what}: {much}" for what, much in numbers().items()))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _board(self, numbers: Numbers) -> Group:
        table = Table.grid(padding=(0, 2))
        for what, much in numbers.items():
            table.add_row(Text(what, style="dim"), Text(much, style="bold"))
        happened = Text("\n".join(self._milestones[-MILESTONES_SHOWN:]))
        return Group(
            Panel(table, title=f"a clinic day · {self.elapsed:.0f} s", title_align="left", border_style="cyan"),
            Panel(happened, title="what happens", title_align="left", border_style="dim"),
        )
