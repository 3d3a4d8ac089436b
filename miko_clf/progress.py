"""A progress bar on stderr for work that takes a while, where someone is looking."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich import progress
from rich.console import Console

DELAY = 2.0
"""Seconds that work may take before its bar appears."""

_Item = TypeVar("_Item")


def show_progress(items: Iterable[_Item], what: str, total: int | None = None) -> Iterator[_Item]:
    """Yield the items and show how many are done, on a terminal that has waited long enough.

    `total` is the number of items where they have no length themselves.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with ProgressBar(what, total, delay=DELAY) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done)


class ProgressBar:
    """What is being done, how much of it is, and the time left: one line on a terminal's stderr.

    It appears `delay` seconds after it was opened and is gone once it is closed; where stderr is
    no terminal, and where it is `quiet`, it never appears. What others print on stderr meanwhile
    stands above it.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        done: int = 0,
        delay: float = 0.0,
        quiet: bool = False,
    ) -> None:
        # This moment's stderr: what runs under the bar may send its own elsewhere.
        self._console = Console(file=sys.stderr, quiet=quiet)
        self.on_terminal = sys.stderr.isatty() and not quiet
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(20),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=not self.on_terminal,
            redirect_stdout=sys.stdout.isatty(),  # a pipe or file keeps what it is sent
            transient=True,
        )
        self.done, self.total = done, total
        self._task = self._progress.add_task(what, total=total, completed=done, note="")
        self._appears = time.monotonic() + delay
        self._is_shown = False

    def __enter__(self) -> "ProgressBar":
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(
        self, done: int, *, what: str | None = None, total: int | None = None, note: str = ""
    ) -> None:
        """Show how much is done, with a note; what is being done, and of how much, may change."""
        self.done, self.total = done, total or self.total
        self._show()
        self._progress.update(self._task, completed=done, description=what, total=total, note=note)

    def restart(self, what: str, total: int, done: int = 0) -> None:
        """Begin another piece of work, and its clock."""
        self.done, self.total = done, total
        self._show()
        self._progress.reset(self._task, description=what, total=total, completed=done, note="")

    def print(self, line: str) -> None:
        """Leave a line above the bar, or on stderr where there is none."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self._progress.stop()

    def _show(self) -> None:
        if self.on_terminal and not self._is_shown and time.monotonic() >= self._appears:
            self._progress.start()
            self._is_shown = True


def print_notice(line: str) -> None:
    """Tell a person one thing, on stderr."""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
