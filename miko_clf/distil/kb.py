"""A knowledge base into a file: posts with what is known of them, or the intentions alone."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from miko_clf.data.read import SkipReport
from miko_clf.distil import columns, sink
from miko_clf.distil.joined import Joined, joined
from miko_clf.distil.knowledge import PLAIN, Choice, Known, check, everything, known
from miko_clf.distil.watch import watched
from miko_clf.errors import DistilError

Rows = Literal["posts", "intentions"]


@dataclass
class Exported:
    """What was written. `absent` counts why intentions are not there, `unknown` the posts of a
    source of which the knowledge base says nothing."""

    path: Path
    rows: int = 0
    posts: int = 0
    intentions: int = 0
    unknown: int = 0
    absent: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Say it in one line."""
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.absent.most_common())
        alone = f"; {self.unknown:,} posts are not in the knowledge base" if self.unknown else ""
        return (
            f"{self.path}: {self.rows:,} rows, {self.posts:,} posts, {self.intentions:,} "
            f"intentions{f'; absent: {why}' if why else ''}{alone}"
        )

    def count(self, one: Known) -> None:
        """Add a post."""
        self.posts += 1
        self.intentions += len(one.intentions)
        self.absent.update(one.absent.values())


def export(
    db: sqlite3.Connection,
    out: Path,
    *,
    posts: Path | None = None,
    rows: Rows = "posts",
    choice: Choice = PLAIN,
    report: SkipReport | None = None,
) -> Exported:
    """Write what is known to a .jsonl or .parquet file, and say what was written.

    `db` is `shelf.reading(path)`. One row a post, or one an intention with the parts of its
    provenance as columns. With `posts`, a file or a data folder, its posts are written in its
    order with all columns that they have, embedded pictures too, and what is known joined by id;
    its bad rows raise, or are reported. Raises `DistilError`, `PostError`.
    """
    if out.suffix not in sink.SUFFIXES:
        raise DistilError(f"{out}: unknown kind {out.suffix!r}; choose from .jsonl, .parquet")
    if posts and posts.is_file() and out.exists() and os.path.samefile(posts, out):
        raise DistilError(f"{out}: is where the posts stand; name another file")
    check(db, choice)
    made = Exported(out)
    source = joined(posts, out.parent, report) if posts else None
    if rows == "intentions":
        schema = columns.of_intentions(_labels(db))
        found = _intentions(db, choice, source, made)
    elif source:
        schema = columns.beside(source.schema()) if out.suffix == ".parquet" else None
        found = _filled(db, choice, source, made)
    else:
        schema = columns.of_posts(_labels(db))
        found = _alone(db, out, choice, made)
    with _opened(out, schema) as write:
        for row in found:
            if schema is not None and rows == "posts":
                columns.check_provenance(row)
            write(row)
            made.rows += 1
    return made


def count(db: sqlite3.Connection) -> int:
    """Return how many posts a knowledge base holds."""
    (found,) = db.execute("SELECT COUNT(*) FROM posts").fetchone()
    return int(found)


def _opened(out: Path, schema: pa.Schema) -> AbstractContextManager[sink.Write]:
    return sink.lines(out) if out.suffix == ".jsonl" else sink.parts(out, schema)


def _alone(
    db: sqlite3.Connection, out: Path, choice: Choice, made: Exported
) -> Iterator[dict[str, Any]]:
    for one in watched(everything(db, choice), count(db), "exporting posts"):
        if one.post.image == b"":
            say = "SELECT place FROM posts WHERE id = ?"
            (place,) = db.execute(say, (one.post.id,)).fetchone()
            raise DistilError(
                f"post {one.post.id!r}: its picture stands in the file it came from alone ({place})"
                "; name that file as the source of the posts"
            )
        made.count(one)
        yield columns.post_cells(one.filled(), out.parent)


def _filled(
    db: sqlite3.Connection, choice: Choice, source: Joined, made: Exported
) -> Iterator[dict[str, Any]]:
    for cells, one in _found(db, choice, source, made):
        yield {**cells, **columns.knowledge_cells(one)} if one else cells


def _intentions(
    db: sqlite3.Connection, choice: Choice, source: Joined | None, made: Exported
) -> Iterator[dict[str, Any]]:
    each: Iterator[Known]
    if source:
        each = (one for _, one in _found(db, choice, source, made) if one)
    else:
        each = watched(everything(db, choice), count(db), "exporting intentions")
    for one in each:
        if source is None:
            made.count(one)
        yield from columns.intention_rows(one)


def _found(
    db: sqlite3.Connection, choice: Choice, source: Joined, made: Exported
) -> Iterator[tuple[dict[str, Any], Known | None]]:
    """Yield the rows of a source with what is known of each; raise where nothing is of any."""
    for cells in watched(source.rows(), source.total, "exporting posts"):
        one = known(db, cells["id"], choice)
        if one:
            made.count(one)
        else:
            made.unknown += 1
        yield cells, one
    if not made.posts:
        raise DistilError(f"{source.path}: the knowledge base knows none of its posts")


def _labels(db: sqlite3.Connection) -> pa.DataType:
    kinds = {kind for (kind,) in db.execute("SELECT json_type(record, '$.label') FROM posts")}
    if "object" in kinds:
        raise DistilError("labels of several tasks have no column of one type; .jsonl holds them")
    return pa.list_(pa.string()) if "array" in kinds else pa.string()
