"""Whether the images of many posts decode: two threads find out, with a bar if it takes long."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from rich.console import Console
from rich.progress import Progress

from miko_clf.data.pixels import check
from miko_clf.data.read import Entry, SkipReport, refuse
from miko_clf.errors import PostError

_THREADS = 2  # Pillow lets go of the interpreter while it decodes
_PATIENCE = 2.0  # seconds before a progress bar appears


def decodable(found: Sequence[Entry], report: SkipReport | None) -> list[Entry]:
    """Return the entries whose image decodes to its last byte; the rest raise or are reported."""
    kept = []
    pool = ThreadPoolExecutor(_THREADS)
    try:
        faults = pool.map(_fault, found)
        for entry, fault in zip(found, _watched(faults, len(found)), strict=True):
            if fault:
                refuse(entry.where, fault, report)
            else:
                kept.append(entry)
    finally:
        pool.shutdown(cancel_futures=True)
    return kept


def _fault(entry: Entry) -> str:
    try:
        if entry.post.image is not None:
            check(entry.post.image)
    except PostError as error:
        return str(error)
    return ""


def _watched(faults: Iterable[str], total: int) -> Iterator[str]:
    """Yield the faults and, on a terminal that has waited long enough, show how far they are."""
    start = time.monotonic()
    with ExitStack() as stack:
        bar: Progress | None = None
        for done, fault in enumerate(faults, 1):
            if bar is None and sys.stderr.isatty() and time.monotonic() - start > _PATIENCE:
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task("checking images", total=total)
            if bar is not None:
                bar.update(task, completed=done)
            yield fault
