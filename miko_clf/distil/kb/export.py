"""A knowledge base into a file: posts with what is known of them, or the intentions alone."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.dataset import open_folder
from miko_clf.data.readers import SkipReport, check_post_file, read_rows, refuse_post
from miko_clf.distil.kb import columns
from miko_clf.distil.kb.columns import infer_schema, make_post_cells
from miko_clf.distil.kb.query import (
    DEFAULT_CHOICE,
    KnowledgeChoice,
    PostKnowledge,
    check_choice,
    count_posts,
    iterate_knowledge,
    load_knowledge,
)
from miko_clf.errors import DistilError, PostError
from miko_clf.progress import show_progress

_BATCH = 64  # rows of Parquet in memory at a time: they may hold images
_CHUNK = 2000


class SourceTable:
    """The rows of a source, image paths made relative to the folder that they go to."""

    def __init__(self, path: Path, folder: Path, report: SkipReport | None) -> None:
        self.path = path
        self.total: int | None = None
        self._folder = folder.absolute()
        self._report = report
        self._kind = "folder" if path.is_dir() else path.suffix.lower()
        self._known: list[dict[str, Any]] = []
        if self._kind == "folder":
            self._known = list(_read_folder(path, self._folder, report))
            self.total = len(self._known)
        else:
            check_post_file(path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the cells of each post; a bad row raises `PostError`, or is reported."""
        if self._kind == "folder":
            yield from self._known
            return
        for where, cells in self._parquet() if self._kind == ".parquet" else self._lines():
            if isinstance(cells.get("id"), str):
                yield self._moved(cells)
            else:
                refuse_post(where, "id must be a string", self._report)

    def schema(self) -> pa.Schema:
        """Return the types of the columns, as Parquet has them or as all rows together show."""
        if self._kind == ".parquet":
            return pq.read_schema(self.path)
        return infer_schema(self._chunks(), str(self.path))

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        found = self.rows()
        while chunk := list(islice(found, _CHUNK)):
            yield chunk

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in read_rows(self.path):
            if row.fault:
                refuse_post(row.where, row.fault, self._report)
            else:
                yield row.where, dict(row.cells)

    def _parquet(self) -> Iterator[tuple[str, dict[str, Any]]]:
        number = 0
        try:
            with pq.ParquetFile(self.path) as file:
                self.total = file.metadata.num_rows
                for batch in file.iter_batches(_BATCH):
                    for cells in batch.to_pylist():
                        number += 1
                        yield f"{self.path} row {number}", cells
        except (pa.ArrowException, OSError) as error:
            raise PostError(f"{self.path}: is not a readable Parquet file") from error

    def _moved(self, cells: dict[str, Any]) -> dict[str, Any]:
        """Return cells whose image path, if they have one, starts at the new folder."""
        image = cells.get("image")
        if isinstance(image, str):
            return {**cells, "image": self._path(image)}
        if isinstance(image, dict) and image.get("bytes") is None and image.get("path"):
            return {**cells, "image": {**image, "path": self._path(image["path"])}}
        return cells

    def _path(self, image: str) -> str:
        return os.path.relpath(self.path.absolute().parent / image, self._folder)


def open_source_table(path: Path, folder: Path, report: SkipReport | None) -> SourceTable:
    """Return the rows of a file or a data folder, for a file in `folder`; raises `PostError`."""
    return SourceTable(path, folder, report)


def _read_folder(path: Path, folder: Path, report: SkipReport | None) -> Iterator[dict[str, Any]]:
    data = open_folder(path, report=report)
    for split in data.splits:
        for post in data.read(split):
            yield {**make_post_cells(post, folder), "split": split}


ExportRows = Literal["posts", "intentions"]


@dataclass
class ExportReport:
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

    def count(self, one: PostKnowledge) -> None:
        """Add a post."""
        self.posts += 1
        self.intentions += len(one.intentions)
        self.absent.update(one.absent.values())


def export_knowledge(
    db: sqlite3.Connection,
    out: Path,
    *,
    posts: Path | None = None,
    rows: ExportRows = "posts",
    choice: KnowledgeChoice = DEFAULT_CHOICE,
    report: SkipReport | None = None,
) -> ExportReport:
    """Write what is known to a .jsonl or .parquet file, and say what was written.

    `db` is `shelf.reading(path)`. One row a post, or one an intention with the parts of its
    provenance as columns. With `posts`, a file or a data folder, its posts are written in its
    order with all columns that they have, embedded pictures too, and what is known joined by id;
    its bad rows raise, or are reported. Raises `DistilError`, `PostError`.
    """
    if out.suffix not in columns.EXPORT_SUFFIXES:
        raise DistilError(f"{out}: unknown kind {out.suffix!r}; choose from .jsonl, .parquet")
    if posts and posts.is_file() and out.exists() and os.path.samefile(posts, out):
        raise DistilError(f"{out}: is where the posts stand; name another file")
    check_choice(db, choice)
    made = ExportReport(out)
    source = open_source_table(posts, out.parent, report) if posts else None
    if rows == "intentions":
        schema = columns.make_intention_schema(_find_label_type(db))
        found = _list_intentions(db, choice, source, made)
    elif source:
        schema = (
            columns.add_knowledge_columns(source.schema()) if out.suffix == ".parquet" else None
        )
        found = _fill_posts(db, choice, source, made)
    else:
        schema = columns.make_post_schema(_find_label_type(db))
        found = _list_posts(db, out, choice, made)
    with _open_output(out, schema) as write:
        for row in found:
            if schema is not None and rows == "posts":
                columns.check_provenance(row)
            write(row)
            made.rows += 1
    return made


def _open_output(out: Path, schema: pa.Schema) -> AbstractContextManager[columns.WriteRow]:
    return columns.open_jsonl(out) if out.suffix == ".jsonl" else columns.open_parquet(out, schema)


def _list_posts(
    db: sqlite3.Connection, out: Path, choice: KnowledgeChoice, made: ExportReport
) -> Iterator[dict[str, Any]]:
    for one in show_progress(iterate_knowledge(db, choice), "exporting posts", count_posts(db)):
        if one.post.image == b"":
            say = "SELECT place FROM posts WHERE id = ?"
            (place,) = db.execute(say, (one.post.id,)).fetchone()
            raise DistilError(
                f"post {one.post.id!r}: its picture stands in the file it came from alone ({place})"
                "; name that file as the source of the posts"
            )
        made.count(one)
        yield columns.make_post_cells(one.filled(), out.parent)


def _fill_posts(
    db: sqlite3.Connection, choice: KnowledgeChoice, source: SourceTable, made: ExportReport
) -> Iterator[dict[str, Any]]:
    for cells, one in _join_knowledge(db, choice, source, made):
        yield {**cells, **columns.make_knowledge_cells(one)} if one else cells


def _list_intentions(
    db: sqlite3.Connection, choice: KnowledgeChoice, source: SourceTable | None, made: ExportReport
) -> Iterator[dict[str, Any]]:
    each: Iterator[PostKnowledge]
    if source:
        each = (one for _, one in _join_knowledge(db, choice, source, made) if one)
    else:
        each = show_progress(iterate_knowledge(db, choice), "exporting intentions", count_posts(db))
    for one in each:
        if source is None:
            made.count(one)
        yield from columns.make_intention_rows(one)


def _join_knowledge(
    db: sqlite3.Connection, choice: KnowledgeChoice, source: SourceTable, made: ExportReport
) -> Iterator[tuple[dict[str, Any], PostKnowledge | None]]:
    """Yield the rows of a source with what is known of each; raise where nothing is of any."""
    for cells in show_progress(source.rows(), "exporting posts", source.total):
        one = load_knowledge(db, cells["id"], choice)
        if one:
            made.count(one)
        else:
            made.unknown += 1
        yield cells, one
    if not made.posts:
        raise DistilError(f"{source.path}: the knowledge base knows none of its posts")


def _find_label_type(db: sqlite3.Connection) -> pa.DataType:
    kinds = {kind for (kind,) in db.execute("SELECT json_type(record, '$.label') FROM posts")}
    if "object" in kinds:
        raise DistilError("labels of several tasks have no column of one type; .jsonl holds them")
    return pa.list_(pa.string()) if "array" in kinds else pa.string()
