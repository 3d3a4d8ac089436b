"""Posts out of one JSONL, CSV or Parquet file; bad ones raise or are reported."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf import manifest
from miko_clf.data.cells import TableRow, check_image_file, list_remarks, parse_post
from miko_clf.data.delimited import read_csv
from miko_clf.data.json_lines import read_json_lines
from miko_clf.data.parquet import read_parquet
from miko_clf.data.post import Post
from miko_clf.errors import PostError, shorten_value

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
IMAGE_SUFFIXES = (  # some only to be told that they cannot be read
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".heif", ".avif", ".bmp", ".tif", ".tiff",
    ".svg",
)  # fmt: skip
_OTHER_TABLES = {
    ".tsv": "rename it to .csv, where a tab parts cells too",
    ".txt": "rename it to what it holds",
    ".json": "write one object a line and call it .jsonl",
    ".xlsx": "save it as CSV UTF-8",
    ".xls": "save it as CSV UTF-8",
    ".arrow": "write it as .parquet",
}
_VARYING = re.compile(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|\d+")  # in reasons of one kind


class SkipReport:
    """Which posts were passed over, and why. The same finding is held once."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], None] = {}

    def add(self, where: str, reason: str) -> None:
        """Record that what stands at `where` was passed over."""
        self._entries[where, reason] = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._entries)

    def summarise(self, most: int = 3) -> list[str]:
        """Return a line for each kind of reason, the commonest first: how often, and an example."""
        kinds: dict[str, list[tuple[str, str]]] = {}
        for where, reason in self:
            kinds.setdefault(_VARYING.sub("", reason), []).append((where, reason))
        groups = sorted(kinds.values(), key=len, reverse=True)
        lines = []
        for group in groups[:most]:
            where, reason = group[0]
            more = f"{len(group):,} rows, the first at " if len(group) > 1 else ""
            lines.append(f"{reason} ({more}{where})")
        if rest := sum(map(len, groups[most:])):
            lines.append(f"and {rest:,} more")
        return lines

    def write(self, path: Path) -> None:
        """Write a JSON list of {where, reason}; the file is there whole or not at all."""
        manifest.write_json(path, [{"where": w, "reason": r} for w, r in self])


class PostEntry(NamedTuple):
    """A post, the file and line, or row, at which it stands, and what was assumed in reading it."""

    where: str
    post: Post
    remarks: tuple[str, ...] = ()


def read_posts(path: Path, *, report: SkipReport | None = None) -> Iterator[Post]:
    """Yield the posts of one .jsonl, .csv or .parquet file; image files must exist.

    Raises PostError at the first bad post or, given a report, records it there and goes on.
    """
    for entry in read_entries(path, report):
        yield entry.post


def read_entries(path: Path, report: SkipReport | None) -> Iterator[PostEntry]:
    """Yield the posts of one file, each with its place, as `read_posts` does."""
    return build_entries(read_rows(path), partial(parse_post, folder=path.parent), report)


def build_entries(
    table: Iterable[TableRow], build: Callable[[Mapping[str, Any]], Post], report: SkipReport | None
) -> Iterator[PostEntry]:
    """Yield what `build` makes of each row, refusing an id that was used before.

    A row that can be mended is, where there is a report.
    """
    first: dict[str, str] = {}
    for row in table:
        try:
            if row.lost or (row.fault and report is None):
                raise PostError(row.fault)
            post = build(row.cells)
            if post.id in first:
                name = shorten_value(post.id)
                raise PostError(f"id {name} was already used at {first[post.id]}")
            check_image_file(post.image)
        except PostError as error:
            refuse_post(row.where, str(error), report)
            continue
        first[post.id] = row.where
        remarks = (*row.remarks, row.mend, *list_remarks(row.cells, post))
        yield PostEntry(row.where, post, tuple(filter(None, remarks)))


def explain_no_posts(report: SkipReport | None) -> str:
    """Return the end of an error that says that there is no post left, with the reasons of all."""
    reasons = "; ".join(report.summarise()) if report is not None else ""
    return "no post that can be used" + (f": {reasons}" if reasons else "")


def refuse_post(where: str, reason: str, report: SkipReport | None) -> None:
    """Record a bad post, or raise PostError where there is no report."""
    if report is None:
        raise PostError(f"{where}: {reason}")
    report.add(where, reason)


def read_rows(path: Path, *, key: str = "id") -> Iterator[TableRow]:
    """Yield every row; columns must include `key`. A file with no row at all raises PostError."""
    empty = True
    try:
        check_post_file(path)
        for row in _choose_reader(path, key):
            empty = False
            yield row
    except OSError as error:
        raise PostError(f"{path}: cannot be read: {error.strerror or 'input error'}") from error
    if empty:
        raise PostError(f"{path}: holds no posts")


def _choose_reader(path: Path, key: str) -> Iterator[TableRow]:
    match path.suffix.lower():
        case ".csv":
            return read_csv(path, key)
        case ".parquet":
            return read_parquet(path, key)
    return read_json_lines(path)


def check_post_file(path: Path) -> None:
    """Raise PostError unless this is a file of posts with something in it."""
    kinds = "a .jsonl, .csv or .parquet file of posts is expected"
    if path.is_dir():
        raise PostError(f"{path}: is a folder; {kinds}")
    if not path.exists():
        raise PostError(f"{path}: there is no such file")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        mend = _OTHER_TABLES.get(path.suffix.lower())
        hint = f"; {mend}" if mend else ""
        raise PostError(f"{path}: unknown kind {path.suffix!r}; {kinds}{hint}")
    if path.stat().st_size == 0:
        raise PostError(f"{path}: the file is empty")
