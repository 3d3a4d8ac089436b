"""What a run shows while it goes: posts, ends, money, calls under way."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from miko_clf.distil.gate import Gate
from miko_clf.distil.gather import Tally
from miko_clf.distil.money import Ledger

_EVERY = 0.25  # seconds between two looks
_EVERY_LINE = 60.0  # seconds between two lines where no terminal is looking


@asynccontextmanager
async def shown(
    title: str, total: int | None, tally: Tally, ledger: Ledger, gate: Gate | None
) -> AsyncIterator[None]:
    """Show how a run goes on stderr: a bar on a terminal, a line a minute elsewhere."""
    watch = _bar if sys.stderr.isatty() else _lines
    task = asyncio.create_task(watch(title, total, tally, ledger, gate))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def state(tally: Tally, ledger: Ledger, gate: Gate | None) -> str:
    """Return how a run stands, in a few words."""
    parts = [f"{count:,} {status}" for status, count in sorted(tally.posts.items())]
    if ledger.prices or ledger.budget is not None:
        cap = f"/{ledger.budget:,.2f}" if ledger.budget is not None else ""
        parts.append(f"${ledger.spent:,.4f}{cap}")
    if tally.prompt:
        parts.append(f"{tally.cached / tally.prompt:.0%} cached")
    if gate is not None:
        parts.append(f"{gate.under_way} of {gate.limit:.0f} under way")
    return " · ".join(parts)


async def _bar(
    title: str, total: int | None, tally: Tally, ledger: Ledger, gate: Gate | None
) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn(title),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(title, total=total, state="")
        while True:
            progress.update(bar, completed=tally.done, state=state(tally, ledger, gate))
            await asyncio.sleep(_EVERY)


async def _lines(
    title: str, total: int | None, tally: Tally, ledger: Ledger, gate: Gate | None
) -> None:
    of = f" of {total:,}" if total else ""
    while True:
        await asyncio.sleep(_EVERY_LINE)
        print(f"{title}: {tally.done:,}{of} posts · {state(tally, ledger, gate)}", file=sys.stderr)
