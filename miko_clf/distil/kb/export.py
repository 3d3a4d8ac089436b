"""A knowledge base into a file: posts with what is known of them, or the intentions alone."""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport, check_post_file, read_rows, refuse_post
from miko_clf.distil.kb import query
from miko_clf.distil.kb.query import DEFAULT_CHOICE, KnowledgeChoice, PostKnowledge
from miko_clf.errors import DistilError, PostError
from miko_clf.manifest import write_atomically
from miko_clf.progress import show_progress

ExportRows = Literal["posts", "intentions"]
_WriteRow = Callable[[Mapping[str, Any]], None]

_SUFFIXES = (".jsonl", ".parquet")
_READ_ROWS = 64  # rows of Parquet in memory at a time: they may hold images
_SCHEMA_ROWS = 2000  # rows whose types are found together
_BATCH_ROWS = 500
_GROUP_ROWS = 50_000  # rows of a row group
_GROUP_BYTES = 64 << 20  # bytes after which a row group is written, however few rows it has

_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int32()
_PROVENANCE = pa.struct(
    [
        *((name, _TEXT) for name in ("model", "answered_by", "host", "prompt", "sha256")),
        ("max_tokens", _WHOLE),
        ("temperature", _NUMBER),
        ("top_p", _NUMBER),
        ("seed", pa.int64()),
        ("sample", _WHOLE),
        *((name, _TEXT) for name in ("at", "imported", "request")),
        *((name, _TEXT) for name in ("plausibility_by", "typicality_by", "source")),
    ]
)
_SCORES = {"relation": _TEXT, "text": _TEXT, "plausibility": _NUMBER, "typicality": _NUMBER}
_INTENTION = pa.struct([*_SCORES.items(), ("provenance", _PROVENANCE)])
_KEYS = dict.fromkeys(("concept", "action", "object", "emotion"), _TEXT)
_RATIONALE = {"text": _TEXT, "saw_label": pa.bool_(), "provenance": _PROVENANCE}
_KNOWLEDGE: Mapping[str, pa.DataType] = {
    "description": _TEXT,
    "key_information": pa.struct([*_KEYS.items(), ("keywords", pa.list_(_TEXT))]),
    "intentions": pa.list_(_INTENTION),
    "rationale": pa.struct(_RATIONALE.items()),
}
"""The columns of a table of posts that a knowledge base answers for."""


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

    def count(self, known: PostKnowledge) -> None:
        """Add a post."""
        self.posts += 1
        self.intentions += len(known.intentions)
        self.absent.update(known.absent.values())


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

    `db` is `open_for_reading(path)`. One row a post, or one an intention with the parts of its
    provenance as columns. With `posts`, a file or a data folder, its posts are written in its
    order with all columns that they have, embedded pictures too, and what is known joined by id;
    its bad rows raise, or are reported. Raises `DistilError`, `PostError`.
    """
    if out.suffix not in _SUFFIXES:
        raise DistilError(f"{out}: unknown kind {out.suffix!r}; choose from .jsonl, .parquet")
    if posts and posts.is_file() and out.exists() and os.path.samefile(posts, out):
        raise DistilError(f"{out}: is where the posts stand; name another file")
    query.check_choice(db, choice)
    made = ExportReport(out)
    source = SourceTable(posts, out.parent, report) if posts else None
    joined = _join_knowledge(db, choice, source, made)
    schema = None
    cells: Iterator[dict[str, Any]]
    if rows == "intentions":
        columns = [("id", _TEXT), ("label", _find_label_type(db)), *_SCORES.items(), *_PROVENANCE]
        schema = pa.schema(columns)
        cells = (row for _, known in joined if known for row in _make_intention_rows(known))
    elif source:
        if out.suffix == ".parquet":
            others = [column for column in source.schema() if column.name not in _KNOWLEDGE]
            schema = pa.schema([*others, *_KNOWLEDGE.items()])
        cells = (row | _make_knowledge_cells(known) if known else row for row, known in joined)
    else:
        plain = {"id": _TEXT, "text": _TEXT, "image": _TEXT, "label": _find_label_type(db)}
        known_of_post = {"group": _TEXT, "targets": pa.list_(_TEXT), "date": _TEXT, "source": _TEXT}
        schema = pa.schema([*plain.items(), *_KNOWLEDGE.items(), *known_of_post.items()])
        cells = (_fill_post(db, known, out.parent) for _, known in joined if known)
    with _open_jsonl(out) if out.suffix == ".jsonl" else open_parquet(out, schema) as write:
        for row in cells:
            if schema is not None and rows == "posts":
                _check_provenance(row)
            write(row)
            made.rows += 1
    return made


class SourceTable:
    """The rows of a file or data folder (`PostError`), image paths relative to another folder."""

    def __init__(self, path: Path, folder: Path, report: SkipReport | None) -> None:
        self.path = path
        self.total: int | None = None
        self._folder = folder.absolute()
        self._report = report
        self._rows: list[dict[str, Any]] | None = None
        if path.is_dir():
            data = open_folder(path, report=report)
            self._rows = [
                {**_make_post_cells(post, self._folder), "split": split}
                for split in data.splits
                for post in data.read(split)
            ]
            self.total = len(self._rows)
        else:
            check_post_file(path)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the cells of each post; a bad row raises `PostError`, or is reported."""
        if self._rows is not None:
            yield from self._rows
            return
        for place, cells in self._read_parquet() if self._is_parquet else self._read_lines():
            if isinstance(cells.get("id"), str):
                yield self._move(cells)
            else:
                refuse_post(place, "id must be a string", self._report)

    def schema(self) -> pa.Schema:
        """Return the types of the columns, as Parquet has them or as all rows together show."""
        if self._rows is None and self._is_parquet:
            return pq.read_schema(self.path)
        rows = self.rows()
        chunks = iter(lambda: list(islice(rows, _SCHEMA_ROWS)), [])
        return _infer_schema(chunks, str(self.path))

    def _read_lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in read_rows(self.path):
            if row.fault:
                refuse_post(row.where, row.fault, self._report)
            else:
                yield row.where, dict(row.cells)

    def _read_parquet(self) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            with pq.ParquetFile(self.path) as file:
                self.total = file.metadata.num_rows
                batches = file.iter_batches(_READ_ROWS)
                rows = (cells for batch in batches for cells in batch.to_pylist())
                for number, cells in enumerate(rows, 1):
                    yield f"{self.path} row {number}", cells
        except (pa.ArrowException, OSError) as error:
            raise PostError(f"{self.path}: is not a readable Parquet file") from error

    def _move(self, cells: dict[str, Any]) -> dict[str, Any]:
        """Return cells whose image path, if they have one, starts at the new folder."""
        image = cells.get("image")
        if isinstance(image, str):
            return {**cells, "image": self._locate(image)}
        if isinstance(image, dict) and image.get("bytes") is None and image.get("path"):
            return {**cells, "image": {**image, "path": self._locate(image["path"])}}
        return cells

    def _locate(self, image: str) -> str:
        return os.path.relpath(self.path.absolute().parent / image, self._folder)


def _join_knowledge(
    db: sqlite3.Connection, choice: KnowledgeChoice, source: SourceTable | None, made: ExportReport
) -> Iterator[tuple[dict[str, Any], PostKnowledge | None]]:
    """Yield a source's rows with what is known of each; raises `DistilError` where nothing is."""
    if source is None:
        posts = query.iterate_knowledge(db, choice)
        for known in show_progress(posts, "exporting", query.count_posts(db)):
            made.count(known)
            yield {}, known
        return
    for cells in show_progress(source.rows(), "exporting", source.total):
        known_post = query.load_knowledge(db, cells["id"], choice)
        if known_post:
            made.count(known_post)
        else:
            made.unknown += 1
        yield cells, known_post
    if not made.posts:
        raise DistilError(f"{source.path}: the knowledge base knows none of its posts")


def _fill_post(db: sqlite3.Connection, known: PostKnowledge, folder: Path) -> dict[str, Any]:
    """Return the cells of a post that stands alone, as the knowledge base has it."""
    if known.post.image == b"":
        say = "SELECT place FROM posts WHERE id = ?"
        (place,) = db.execute(say, (known.post.id,)).fetchone()
        raise DistilError(
            f"post {known.post.id!r}: its picture stands in the file it came from alone "
            f"({place}); name that file as the source of the posts"
        )
    return _make_post_cells(known.filled(), folder)


def _make_post_cells(post: Post, folder: Path) -> dict[str, Any]:
    """Return a post as the cells of a row in `folder`, to which an image path is relative."""
    fields = post.model_dump(mode="python", exclude_none=True, exclude={"image"})
    cells = {
        name: _list_values(value)
        for name, value in fields.items()
        if value != () or name == "label"
    }
    if isinstance(post.image, Path):
        cells["image"] = os.path.relpath(post.image.absolute(), folder.absolute())
    elif post.image:
        cells["image"] = post.image
    return cells


def _make_knowledge_cells(known: PostKnowledge) -> dict[str, Any]:
    """Return what the knowledge base answers for, as cells; a cell of None takes a cell away."""
    fields = known.fields()
    cells = Post(id="-", text="-", **fields).model_dump(exclude_none=True)
    return {name: _list_values(cells.get(name)) or None for name in fields}


def _make_intention_rows(known: PostKnowledge) -> Iterator[dict[str, Any]]:
    """Yield the intentions of a post as flat rows."""
    for intention in known.intentions:
        yield {
            "id": known.post.id,
            "label": _list_values(known.post.label),
            **intention.model_dump(exclude={"provenance"}),
            **(intention.provenance or {}),
        }


def _list_values(value: Any) -> Any:
    """Return a value with lists for tuples, as files hold them."""
    if isinstance(value, tuple | list):
        return [_list_values(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _list_values(item) for name, item in value.items()}
    return value


def _check_provenance(cells: Mapping[str, Any]) -> None:
    """Raise `DistilError` for a source's own provenance that the columns have no room for."""
    texts = [*(cells.get("intentions") or ()), cells.get("rationale") or {}]
    names = {column.name for column in _PROVENANCE}
    for text in texts:
        if strange := set(text.get("provenance") or ()) - names:
            raise DistilError(
                f"post {cells['id']!r}: its provenance has {', '.join(sorted(strange))}, for which "
                "the table has no column; .jsonl holds it"
            )


def _infer_schema(chunks: Iterable[Sequence[Mapping[str, Any]]], where: str) -> pa.Schema:
    """Return the schema of rows, less what is knowledge; raises `DistilError` for mixed columns."""
    schema = pa.schema([])
    try:
        for rows in chunks:
            names = dict.fromkeys(name for row in rows for name in row if name not in _KNOWLEDGE)
            columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
            types = pa.schema([(name, column.type) for name, column in columns.items()])
            schema = pa.unify_schemas([schema, types], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        line = str(error).splitlines()[0]
        raise DistilError(f"{where}: a column has no one type ({line}); .jsonl holds it") from None
    return pa.schema(
        [(column.name, _TEXT if column.type == pa.null() else column.type) for column in schema]
    )


def _find_label_type(db: sqlite3.Connection) -> pa.DataType:
    kinds = {kind for (kind,) in db.execute("SELECT json_type(record, '$.label') FROM posts")}
    if "object" in kinds:
        raise DistilError("labels of several tasks have no column of one type; .jsonl holds them")
    return pa.list_(pa.string()) if "array" in kinds else pa.string()


@contextmanager
def _open_jsonl(path: Path) -> Iterator[_WriteRow]:
    """Give what writes a row as a line of JSON; a cell of None is left out."""
    with write_atomically(path) as beside, beside.open("w", encoding="utf-8") as file:

        def write(row: Mapping[str, Any]) -> None:
            cells = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(cells, ensure_ascii=False, default=_encode_value) + "\n")

        yield write


def _encode_value(value: Any) -> str:
    if isinstance(value, bytes):
        raise DistilError("a .jsonl file cannot hold pictures; export to .parquet")
    return str(value)


@contextmanager
def open_parquet(path: Path, schema: pa.Schema) -> Iterator[_WriteRow]:
    """Give what writes a row of a Parquet file, in row groups of 50,000 rows or 64 MiB."""
    with (
        write_atomically(path) as beside,
        pq.ParquetWriter(beside, schema, compression="zstd") as writer,
    ):
        batches: list[pa.RecordBatch] = []
        rows: list[Mapping[str, Any]] = []

        def batch() -> None:
            try:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                line = str(error).splitlines()[0]
                raise DistilError(f"{path}: a row does not fit: {line}; .jsonl holds it") from None
            rows.clear()

        def flush() -> None:
            table = pa.Table.from_batches(batches, schema)
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            batches.clear()

        def write(row: Mapping[str, Any]) -> None:
            rows.append(row)
            if len(rows) >= _BATCH_ROWS:
                batch()
                num_bytes = sum(part.nbytes for part in batches)
                if sum(map(len, batches)) >= _GROUP_ROWS or num_bytes >= _GROUP_BYTES:
                    flush()

        yield write
        batch()
        flush()
