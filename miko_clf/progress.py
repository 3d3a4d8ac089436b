"""A progress bar on stderr for work that takes a while, where someone is looking."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_SECONDS_BEFORE_BAR = 2.0  # seconds before a progress bar appears
_ShownItem = TypeVar("_ShownItem")


def show_progress(things: Iterable[_ShownItem], total: int, say: str) -> Iterator[_ShownItem]:
    """Yield the things and, on a terminal that has waited long enough, show how far they are."""
    start = time.monotonic()
    with ExitStack() as stack:
        bar: Progress | None = None
        for done, thing in enumerate(things, 1):
            if (
                bar is None
                and sys.stderr.isatty()
                and time.monotonic() - start > _SECONDS_BEFORE_BAR
            ):
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(say, total=total)
            if bar is not None:
                bar.update(task, completed=done)
            yield thing


_PATIENCE = 2.0  # seconds before a bar appears
_EVERY = 64

_Item = TypeVar("_Item")


def show_bar(items: Iterable[_Item], total: int | None, title: str) -> Iterator[_Item]:
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


def print_notice(line: str) -> None:
    """Tell a person one thing, on stderr."""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
