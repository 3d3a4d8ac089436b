"""Posts from one file, in order, each checked; bad ones raise, or are reported and passed over."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf import manifest
from miko_clf.data.post import Post
from miko_clf.data.row import post_of
from miko_clf.data.table import Row, rows
from miko_clf.errors import PostError


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

    def write(self, path: Path) -> None:
        """Write a JSON list of {where, reason}; the file is there whole or not at all."""
        manifest.write_json(path, [{"where": w, "reason": r} for w, r in self])


class Entry(NamedTuple):
    """A post and the file and line, or row, at which it stands."""

    where: str
    post: Post


def read_posts(path: Path, *, report: SkipReport | None = None) -> Iterator[Post]:
    """Yield the posts of one .jsonl, .csv or .parquet file; image files must exist.

    Raises PostError at the first bad post or, given a report, records it there and goes on.
    """
    for entry in entries(rows(path), lambda cells: post_of(cells, path.parent), report):
        yield entry.post


def entries(
    table: Iterable[Row], build: Callable[[Mapping[str, Any]], Post], report: SkipReport | None
) -> Iterator[Entry]:
    """Yield what `build` makes of each row, refusing an id that was used before."""
    first: dict[str, str] = {}
    for row in table:
        try:
            if row.fault:
                raise PostError(row.fault)
            post = build(row.cells)
            if post.id in first:
                raise PostError(f"id {post.id!r} was already used at {first[post.id]}")
            _check_image_file(post.image)
        except PostError as error:
            refuse(row.where, str(error), report)
            continue
        first[post.id] = row.where
        yield Entry(row.where, post)


def refuse(where: str, reason: str, report: SkipReport | None) -> None:
    """Record a bad post, or raise PostError where there is no report."""
    if report is None:
        raise PostError(f"{where}: {reason}")
    report.add(where, reason)


def _check_image_file(image: Path | bytes | None) -> None:
    if not isinstance(image, Path):
        return
    try:
        if image.is_file():
            return
        fault = "is a folder" if image.is_dir() else "does not exist"
    except OSError:  # a name that is too long, or a folder that may not be entered
        fault = "cannot be reached"
    raise PostError(f"image {str(image)!r} {fault}")
