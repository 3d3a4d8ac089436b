"""A bar on the terminal for work that takes a while."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds before a progress bar appears
_Each = TypeVar("_Each")


def watched(things: Iterable[_Each], total: int, say: str) -> Iterator[_Each]:
    """Yield the things and, on a terminal that has waited long enough, show how far they are."""
    start = time.monotonic()
    with ExitStack() as stack:
        bar: Progress | None = None
        for done, thing in enumerate(things, 1):
            if bar is None and sys.stderr.isatty() and time.monotonic() - start > _PATIENCE:
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(say, total=total)
            if bar is not None:
                bar.update(task, completed=done)
            yield thing
