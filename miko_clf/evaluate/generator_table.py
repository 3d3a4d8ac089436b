"""The benchmark of generators as a table: on the screen, as JSON and as Markdown."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from miko_clf import manifest
from miko_clf.data.post import RELATIONS
from miko_clf.evaluate.generators import ALL, METRICS, Benchmark, Row
from miko_clf.evaluate.interval import Interval

_TITLES = {
    "bert_score": "BERTScore",
    "rouge_l": "ROUGE-L",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "valid": "valid",
    "plausibility": "plausible",
    "typicality": "typical",
}
_WIDE = 150  # columns that the table takes


def print_benchmark(found: Benchmark, console: Console | None = None) -> None:
    """Print the table of all relations together, that of the first metric by relation, and how
    many posts were compared."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)
    metrics = _metrics(found)
    titles = [_TITLES[name] for name in metrics]
    console.print(_table("", titles, [_across(row, metrics) for row in found.rows]))
    by = [_down(row, metrics[0]) for row in found.rows]
    console.print(_table(_TITLES[metrics[0]], RELATIONS, by))
    console.print(_counted(found), markup=False, highlight=False)


def write_benchmark(found: Benchmark, path: Path, **facts: Any) -> None:
    """Write `path` as JSON, an undefined bound being null, and Markdown beside it (`.md`).

    `facts` are kept with the figures. Raises `BundleError` where the place cannot be written.
    """
    manifest.write_json(path, {**facts, **_plain(found)})
    manifest.write_text(path.with_suffix(".md"), "\n".join(_page(found)) + "\n")


def _plain(found: Benchmark) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "figures": {
                metric: {name: list(map(_finite, each)) for name, each in by.items()}
                for metric, by in row.figures.items()
            },
        }
        for row in found.rows
    ]
    return {
        "reference": found.reference,
        "posts": found.posts,
        "shared_posts": found.shared,
        "posts_by_writer": dict(found.by_writer),
        "tower": found.tower,
        "num_resamples": found.num_resamples,
        "seed": found.seed,
        "rows": rows,
    }


def _page(found: Benchmark) -> Iterator[str]:
    metrics = _metrics(found)
    yield "# Generators of intentions\n"
    yield _counted(found) + "\n"
    titles = [_TITLES[name] for name in metrics]
    yield from _markdown(titles, [_across(row, metrics) for row in found.rows])
    for metric in metrics:
        yield f"\n## {_TITLES[metric]} by relation\n"
        yield from _markdown(RELATIONS, [_down(row, metric) for row in found.rows])


def _counted(found: Benchmark) -> str:
    drawn = f" (drawn of {found.shared:,})" if found.shared > found.posts else ""
    have = ", ".join(f"{name} {count:,}" for name, count in found.by_writer.items())
    by = f" BERTScore by {found.tower}." if found.tower else ""
    return (
        f"Against {found.reference}, on {found.posts:,} posts{drawn} that all have; posts with "
        f"intentions: {have}. Means of ten relations [95 % over {found.num_resamples:,} "
        f"resamples of posts]; a missing intention counts 0.{by}"
    )


def _metrics(found: Benchmark) -> list[str]:
    return [name for name in METRICS if any(row.figures.get(name) for row in found.rows)]


def _across(row: Row, metrics: Sequence[str]) -> list[str]:
    return [row.name, *(_figure(row.figures.get(name, {}).get(ALL)) for name in metrics)]


def _down(row: Row, metric: str) -> list[str]:
    by = row.figures.get(metric, {})
    return [row.name, *(_figure(by.get(name), short=True) for name in RELATIONS)]


def _figure(found: Interval | None, *, short: bool = False) -> str:
    if found is None or math.isnan(found.value):
        return "-"
    if short or math.isnan(found.low):
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title or None, box=box.SIMPLE)
    table.add_column("writer")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| writer | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
