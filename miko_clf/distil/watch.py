"""A bar on stderr for what takes a while, where someone is looking."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds before a bar appears
_EVERY = 64

Item = TypeVar("Item")


def watched(items: Iterable[Item], total: int | None, title: str) -> Iterator[Item]:
    """Yield the items; on a terminal that has waited for two seconds, show how far they are."""
    start = time.monotonic()
    with ExitStack() as stack:
        bar: Progress | None = None
        for done, item in enumerate(items, 1):
            yield item
            if done % _EVERY or not sys.stderr.isatty():
                continue
            if bar is None and time.monotonic() - start > _PATIENCE:
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(title, total=total)
            if bar is not None:
                bar.update(task, completed=done)
