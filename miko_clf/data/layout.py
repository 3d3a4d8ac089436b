"""Where the splits of a data folder come from: separate files, a column, or a seed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from miko_clf.data.counts import Published
from miko_clf.data.post import Post
from miko_clf.data.read import Entry, SkipReport, entries
from miko_clf.data.split import SPLITS, split_by_group
from miko_clf.data.table import Row
from miko_clf.errors import PostError

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
UNSPLIT = "all"

Source = Callable[[SkipReport | None], Iterator[Entry]]
Table = Callable[[], Iterator[Row]]
Build = Callable[[Mapping[str, Any]], Post]


class Layout(NamedTuple):
    """A kind of data folder, for each split it has what reads that split, and what is known of it.

    `published` is there for the data sets of the literature alone.
    """

    kind: str
    sources: Mapping[str, Source]
    published: Published | None = None


def one_split(table: Table, build: Build) -> Source:
    """Return a source of every post in the table."""
    return lambda report: entries(table(), build, report)


def in_order(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Return the sources as train, val, test."""
    return {split: sources[split] for split in SPLITS if split in sources}


def divided(place: str, table: Table, build: Build, seed: int | None) -> dict[str, Source]:
    """Return the sources of one table: by its `split` column, else by seed, else all in one.

    `place` is named where no value of the column is a split.
    """
    given = {str(row.cells["split"]) for row in table() if row.cells.get("split") is not None}
    if given:
        found = {SPLIT_NAMES[name] for name in given if name in SPLIT_NAMES}
        if not found:
            raise PostError(f"{place}: split {min(given)!r} is unknown; {_ALLOWED}")
        return {split: _from_column(table, build, split) for split in SPLITS if split in found}
    everything = one_split(table, build)
    if seed is None:
        return {UNSPLIT: everything}
    return {split: _from_seed(everything, split, seed) for split in SPLITS}


_ALLOWED = "write train, val or test"


def _from_column(table: Table, build: Build, split: str) -> Source:
    def kept() -> Iterator[Row]:
        for row in table():
            name = row.cells.get("split")
            if not row.fault and (not isinstance(name, str) or name not in SPLIT_NAMES):
                yield Row(row.where, {}, f"split {name!r} is unknown; {_ALLOWED}")
            elif row.fault or SPLIT_NAMES[str(name)] == split:
                yield row

    return one_split(kept, build)


def _from_seed(everything: Source, split: str, seed: int) -> Source:
    def source(report: SkipReport | None) -> Iterator[Entry]:
        found = list(everything(report))
        splits = split_by_group([entry.post for entry in found], seed)
        return (entry for entry, place in zip(found, splits, strict=True) if place == split)

    return source
