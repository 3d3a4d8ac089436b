"""The posts to ask about, one at a time, from a file of any length or a published folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from miko_clf.data.folder import open_folder
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport, refuse
from miko_clf.data.row import post_of
from miko_clf.data.table import SUFFIXES, check_file, rows
from miko_clf.distil.shelf import PostRow, Shelf
from miko_clf.errors import PostError

# A rationale that knows the label is made for the posts one learns from, and for no others.
LEARNED = ("train", "val")


class Source(NamedTuple):
    """Posts with where each stands, and how many there are at most (None if unknown)."""

    path: Path
    found: Iterator[tuple[str, Post]]
    total: int | None


def source(path: Path, splits: Sequence[str] = (), report: SkipReport | None = None) -> Source:
    """Return the posts of a file, or of the named splits (all, if none) of a data folder.

    A file is read as it is needed, so its length is no matter. Raises `PostError`.
    """
    if path.is_dir():
        data = open_folder(path, report=report)
        chosen = [split for split in data.splits if not splits or split in splits]
        if not chosen:
            raise PostError(f"{path}: has {', '.join(data.splits)}, none of {', '.join(splits)}")
        posts = [(f"{path} {split}", post) for split in chosen for post in data.read(split)]
        return Source(path, iter(posts), len(posts))
    check_file(path)
    return Source(path, _of_file(path, splits, report), _count(path))


def placed(
    shelf: Shelf, posts: Iterator[tuple[str, Post]], report: SkipReport | None
) -> Iterator[tuple[Post, PostRow]]:
    """Yield posts with what the shelf is to keep of them; an id that comes twice is refused."""
    fresh: dict[str, str] = {}  # what is read and may not be committed yet
    for where, post in posts:
        known = shelf.post(post.id)
        first = fresh.get(post.id) or (known.place if known and known.run == shelf.run else None)
        if first is not None:
            refuse(where, f"id {post.id!r} was already used at {first}", report)
            continue
        if len(fresh) > 4096:
            fresh.pop(next(iter(fresh)))
        fresh[post.id] = where
        yield post, post_row(post, where, shelf.run)


def post_row(post: Post, where: str, run: int) -> PostRow:
    """Return a post as the shelf keeps it."""
    embedded = "" if post.image is not None else None
    image = str(post.image.absolute()) if isinstance(post.image, Path) else embedded
    fields = post.model_dump(mode="json", exclude={"image"}, exclude_defaults=True)
    return PostRow(post.id, where, json.dumps(fields, ensure_ascii=False), image, run)


def _of_file(
    path: Path, splits: Sequence[str], report: SkipReport | None
) -> Iterator[tuple[str, Post]]:
    for row in rows(path):
        try:
            if row.fault:
                raise PostError(row.fault)
            if splits and row.cells.get("split", splits[0]) not in splits:
                continue
            post = post_of(row.cells, path.parent)
            if isinstance(post.image, Path) and not post.image.is_file():
                raise PostError(f"image {str(post.image)!r} does not exist")
        except PostError as error:
            refuse(row.where, str(error), report)
            continue
        yield row.where, post


def _count(path: Path) -> int | None:
    """Return the rows of a file where that is cheap to know."""
    assert path.suffix.lower() in SUFFIXES
    if path.suffix.lower() == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    if path.suffix.lower() == ".csv":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or 1
