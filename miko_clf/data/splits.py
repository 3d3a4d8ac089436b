"""Train, val and test: how a folder holds them, and how they are made, by group or by date."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post, parse_moment
from miko_clf.data.preprocess import digest_image
from miko_clf.data.readers import PostEntry, SkipReport, TableRow, build_entries, refuse_post
from miko_clf.data.sets.base import DatedSplit, PublishedFolder
from miko_clf.errors import PostError

SPLITS = ("train", "val", "test")
_VAL_NAMES = ("val", "valid", "validation", "dev")
SPLIT_NAMES = {"train": "train", **dict.fromkeys(_VAL_NAMES, "val"), "test": "test"}
UNSPLIT = "all"
_SPLIT_SHARES = (0.8, 0.1, 0.1)
_VAL_SHARE = 0.15  # of the posts before test, the last of which are val
_ALLOWED_SPLITS = "write train, val or test"

SplitSource = Callable[[SkipReport | None], Iterator[PostEntry]]
_Table = Callable[[], Iterable[TableRow]]
_Build = Callable[[Mapping[str, Any]], Post]


def is_test_split(split: str) -> bool:
    """Say whether a split is a test, of which a data set may have several: `test_seen`."""
    return split == "test" or split.startswith("test_")


class PostSplits(Protocol):
    """What has splits to be read: a `DataFolder`, or posts in memory."""

    path: Path
    splits: tuple[str, ...]

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name."""

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split; raises PostError where it is not there."""

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order."""


class PostsInMemory:
    """Posts in memory, by split; `path` says where they come from."""

    def __init__(self, path: Path, posts: Mapping[str, Sequence[Post]]) -> None:
        self.path = path
        self.splits = tuple(posts)
        self._posts = {split: list(rows) for split, rows in posts.items()}

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name."""
        return split in self._posts

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split; raises PostError where it is not there."""
        if not self.has(split):
            known = ", ".join(self.splits)
            raise PostError(f"{self.path}: there is no split {split!r}; there is {known}")
        return list(self._posts[split])

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order."""
        return fingerprint_posts(self.read(split))


def fingerprint_posts(posts: Iterable[Post]) -> str:
    """Return the SHA-256 of what posts say, in order.

    An image counts by its file name and size, or by its bytes where a file embeds them.
    """
    content = hashlib.sha256()
    for post in posts:
        fields = post.model_dump(mode="json", exclude={"image"})
        if isinstance(post.image, Path):
            fields["image"] = [post.image.name, post.image.stat().st_size]
        elif post.image is not None:
            fields["image"] = hashlib.sha256(post.image).hexdigest()
        content.update(json.dumps(fields, sort_keys=True).encode() + b"\n")
    return content.hexdigest()


class FolderLayout(NamedTuple):
    """A kind of data folder, for each split it has what reads that split, and what is known of it.

    `published` is there for the data sets of the literature alone. `remarks` fill as splits are
    read, with what there is to say of how they were made.
    """

    kind: str
    sources: Mapping[str, SplitSource]
    published: PublishedFolder | None = None
    remarks: Sequence[str] = ()


def make_split_sources(tables: Mapping[str, _Table], build: _Build) -> dict[str, SplitSource]:
    """Return what reads the posts of each table; train, val and test come first, in that order."""
    ours = [split for split in SPLITS if split in tables]
    return {split: _make_source(tables[split], build) for split in dict.fromkeys([*ours, *tables])}


def divide_table(
    place: str, table: _Table, build: _Build, seed: int | None
) -> dict[str, SplitSource]:
    """Return the sources of one table: by its `split` column, else by seed, else all in one.

    `place` is named where no value of the column is a split.
    """
    names = {str(row.cells["split"]) for row in table() if row.cells.get("split") is not None}
    if names:
        present = {SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
        if not present:
            raise PostError(f"{place}: split {min(names)!r:.80} is unknown; {_ALLOWED_SPLITS}")
        tables = {split: partial(_select_by_column, table, split) for split in present}
        return make_split_sources(tables, build)
    everything = _make_source(table, build)
    if seed is None:
        return {UNSPLIT: everything}
    return {split: partial(_select_by_seed, everything, split, seed) for split in SPLITS}


def _make_source(table: _Table, build: _Build) -> SplitSource:
    return lambda report: build_entries(table(), build, report)


def _select_by_column(table: _Table, split: str) -> Iterator[TableRow]:
    for row in table():
        name = row.cells.get("split")
        if not row.lost and (not isinstance(name, str) or name not in SPLIT_NAMES):
            yield TableRow(row.where, {}, f"split {name!r:.80} is unknown; {_ALLOWED_SPLITS}")
        elif row.lost or SPLIT_NAMES[str(name)] == split:
            yield row


def _select_by_seed(
    everything: SplitSource, split: str, seed: int, report: SkipReport | None
) -> Iterator[PostEntry]:
    entries = list(everything(report))
    splits = split_by_group([entry.post for entry in entries], seed)
    return (entry for entry, place in zip(entries, splits, strict=True) if place == split)


_EVERY_POST = ""  # counted for each post beside its labels, so that sizes come out right too


def split_by_group(posts: Sequence[Post], seed: int) -> list[str]:
    """Return for each post the split its group falls in, 80/10/10 and stratified by every label.

    A post without a group is a group of its own. Large groups are placed first, each where
    the counts of its labels come nearest to their share; the seed decides the order of equals.
    """
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for post in posts:
        groups[_name_group(post)].update((_EVERY_POST, *flatten_label(post.label)))
    wanted = sum(groups.values(), Counter())
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    place: dict[tuple[str, str], str] = {}

    def rank(group: tuple[str, str]) -> tuple[int, bytes]:
        digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
        return -groups[group][_EVERY_POST], digest

    for group in sorted(groups, key=rank):
        costs = [
            _measure_cost(groups[group], counts[split], wanted, share)
            for split, share in zip(SPLITS, _SPLIT_SHARES, strict=True)
        ]
        place[group] = SPLITS[costs.index(min(costs))]
        counts[place[group]].update(groups[group])
    if not all(counts.values()):
        few = f"{len(groups)} groups of posts are too few to make train, val and test of"
        raise PostError(f"{few}; give more")
    return [place[_name_group(post)] for post in posts]


def _name_group(post: Post) -> tuple[str, str]:
    return ("id", post.id) if post.group is None else ("group", post.group)


def _measure_cost(
    group: Counter[str], placed: Counter[str], wanted: Counter[str], share: float
) -> float:
    """Return how far the chi-square distance from the wanted counts moves, less is better."""
    return sum(
        count * (2 * (placed[name] - share * wanted[name]) + count) / (share * wanted[name])
        for name, count in group.items()
    )


class _Borders(NamedTuple):
    """The moments from which on posts are val and test; that of val may be left to be chosen."""

    val: datetime | None
    test: datetime

    def place(self, moment: datetime) -> str:
        """Return the split of a moment."""
        if moment >= self.test:
            return "test"
        return "train" if self.val is None or moment < self.val else "val"


def divide_by_date(place: str, layout: FolderLayout, dated: DatedSplit) -> FolderLayout:
    """Return the layout with all of its posts in train, val and test by their dates.

    Whatever splits they stood in are forgotten, as is what is published of those. Raises PostError
    for dates that are none, or the wrong way round; `place` is named where posts do not fit.
    """
    borders, remarks = _read_borders(dated), list[str]()

    def select(split: str, report: SkipReport | None) -> Iterator[PostEntry]:
        pooled = [entry for source in layout.sources.values() for entry in source(report)]
        entries = list(_keep_dated(place, pooled, report))
        posts = [entry.post for entry in entries]
        settled = _settle_borders(posts, borders)
        splits = _place_groups(posts, settled, place)
        remarks[:] = [_describe_dated_split(posts, splits, settled)]
        return (entry for entry, own in zip(entries, splits, strict=True) if own == split)

    published = layout.published and PublishedFolder(layout.published.name, layout.published.left)
    sources: dict[str, SplitSource] = {split: partial(select, split) for split in SPLITS}
    return FolderLayout(layout.kind, sources, published, remarks)


def split_by_date(posts: Sequence[Post], dated: DatedSplit) -> list[str]:
    """Return for each post the split of its group's last date; every post needs a date.

    So a group that spans a border goes whole to the later split. Where val has no date of its own
    it takes the last 15 % of the posts before test, and whoever has the date of the first of them.
    """
    return _place_groups(posts, _settle_borders(posts, _read_borders(dated)), "posts")


def _read_borders(dated: DatedSplit) -> _Borders:
    try:
        test = parse_moment(dated.test_from)
        val = None if dated.val_from is None else parse_moment(dated.val_from)
    except ValueError as error:
        raise PostError(f"a split by date: {error}") from None
    if val is not None and val >= test:
        given = f"val from {dated.val_from} and test from {dated.test_from}"
        raise PostError(f"{given}: val comes before test; give an earlier date for val")
    return _Borders(val, test)


def _keep_dated(
    place: str, entries: Sequence[PostEntry], report: SkipReport | None
) -> Iterator[PostEntry]:
    """Yield the entries that have a date and an id of their own; others raise or are reported."""
    undated = [entry.where for entry in entries if entry.post.date is None]
    if undated and report is None:
        count = f"{len(undated):,} of {len(entries):,} posts have no date"
        raise PostError(f"{place}: {count}, which a split by date needs; the first is {undated[0]}")
    first: dict[str, str] = {}
    for entry in entries:
        where, name = entry.where, entry.post.id
        if entry.post.date is None:
            refuse_post(where, "has no date, which a split by date needs", report)
        elif first.setdefault(name, where) != where:
            refuse_post(where, f"id {name!r} was already used at {first[name]}", report)
        else:
            yield entry


def _settle_borders(posts: Sequence[Post], borders: _Borders) -> _Borders:
    """Return the borders with a moment for val where none was given and posts stand before test."""
    before = sorted(moment for moment in _find_last_moments(posts) if moment < borders.test)
    if borders.val is not None or not before:
        return borders
    return borders._replace(val=before[int((1 - _VAL_SHARE) * len(before))])


def _place_groups(posts: Sequence[Post], borders: _Borders, place: str) -> list[str]:
    """Return the split of each post; raises PostError where one of the three gets none."""
    splits = [borders.place(moment) for moment in _find_last_moments(posts)]
    for split in SPLITS:
        if split not in splits:
            dates = sorted(str(post.date) for post in posts) or ["none", "none"]
            span = f"dates run from {dates[0]} to {dates[-1]}"
            raise PostError(f"{place}: a split by date leaves no post for {split}; {span}")
    return splits


def _get_moment(post: Post) -> datetime:
    assert post.date is not None, "a split by date was given a post without one"
    return parse_moment(post.date)


def _find_last_moments(posts: Sequence[Post]) -> list[datetime]:
    """Return for each post the last moment of its group."""
    last: dict[tuple[str, str], datetime] = {}
    for post in posts:
        moment = _get_moment(post)
        last[_name_group(post)] = max(moment, last.get(_name_group(post), moment))
    return [last[_name_group(post)] for post in posts]


def _describe_dated_split(posts: Sequence[Post], splits: Sequence[str], borders: _Borders) -> str:
    """Say where the borders are, and how many groups span one."""
    sizes, starts = Counter(splits), {"val": borders.val, "test": borders.test}
    parts = [f"train {sizes['train']:,} posts"]
    parts += [f"{name} {sizes[name]:,} from {start:%Y-%m-%d}" for name, start in starts.items()]
    moved = [
        post
        for post, split in zip(posts, splits, strict=True)
        if borders.place(_get_moment(post)) != split
    ]
    groups = len({_name_group(post) for post in moved})
    spans = f"; {groups:,} of the groups span a border, so {len(moved):,} posts went to the later"
    return f"split by date: {', '.join(parts)}" + (f"{spans} split" if moved else "")


def group_rows(keys: Sequence[Hashable]) -> list[list[int]]:
    """Return the rows of each key that several share; None is no key."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key is not None:
            rows[key].append(row)
    return [group for group in rows.values() if len(group) > 1]


class DisjointSets:
    """Things in groups; a union of two things unites their groups (Tarjan, 1975).

    `marks` are those of each thing: at first all that share one, over any chain, are one group.
    """

    def __init__(self, marks: Sequence[Iterable[Hashable]]) -> None:
        self._parents = list(range(len(marks)))
        first: dict[Hashable, int] = {}
        for thing, own in enumerate(marks):
            for mark in own:
                self.union(first.setdefault(mark, thing), thing)

    def union(self, first: int, second: int) -> None:
        """Put two things, and all that is grouped with either, in one group."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parents[high] = low

    def find(self, thing: int) -> int:
        """Return the lowest thing in the same group."""
        parents = self._parents
        while parents[thing] != thing:
            parents[thing] = parents[parents[thing]]
            thing = parents[thing]
        return thing

    def find_all(self) -> NDArray[np.int64]:
        """Return the lowest thing in the group of every thing."""
        return np.array([self.find(thing) for thing in range(len(self._parents))], dtype=np.int64)


def group_alike_posts(posts: Sequence[Post]) -> list[str]:
    """Return a name for each post, the same for those that must not stand on both sides.

    Posts of one group belong together, posts of the same words, posts of the same picture, and
    whatever any of these joins: more than what resamples draw together, which are posts of one
    group alone.
    """
    words = [normalise_post_text(post) for post in posts]
    names = [post.group or own for post, own in zip(posts, words, strict=True)]
    marks = [
        (("words", own), ("group", name), *_mark_picture(post))
        for post, own, name in zip(posts, words, names, strict=True)
    ]
    parts = DisjointSets(marks).find_all().tolist()
    lowest: dict[int, str] = {}
    for part, name in zip(parts, names, strict=True):
        lowest[part] = min(lowest.get(part, name), name)
    return [lowest[part] for part in parts]


def _mark_picture(post: Post) -> tuple[tuple[str, str], ...]:
    return () if post.image is None else (("picture", digest_image(post.image)),)


def normalise_post_text(post: Post) -> str:
    """Return the words of a post by which it is known again, or its id where it has none."""
    return re.sub(r"\W+", " ", (post.text or "").casefold()).strip() or f"id {post.id}"
