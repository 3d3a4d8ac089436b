"""What is known as rows of a table, their Arrow types, and the file they go to."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.post import Post
from miko_clf.distil.kb.query import PostKnowledge
from miko_clf.errors import DistilError
from miko_clf.manifest import write_atomically

_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int32()
_PROVENANCE = pa.struct(
    {
        "model": _TEXT,
        "answered_by": _TEXT,
        "host": _TEXT,
        "prompt": _TEXT,
        "sha256": _TEXT,
        "max_tokens": _WHOLE,
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "seed": pa.int64(),
        "sample": _WHOLE,
        "at": _TEXT,
        "imported": _TEXT,
        "request": _TEXT,
        "plausibility_by": _TEXT,
        "typicality_by": _TEXT,
        "source": _TEXT,
    }.items()
)
_INTENTION = {
    "relation": _TEXT,
    "text": _TEXT,
    "plausibility": _NUMBER,
    "typicality": _NUMBER,
    "provenance": _PROVENANCE,
}
_KEYS = {
    **dict.fromkeys(("concept", "action", "object", "emotion"), _TEXT),
    "keywords": pa.list_(_TEXT),
}
_REASON = {"text": _TEXT, "saw_label": pa.bool_(), "provenance": _PROVENANCE}
_KNOWLEDGE: Mapping[str, pa.DataType] = {
    "description": _TEXT,
    "key_information": pa.struct(_KEYS.items()),
    "intentions": pa.list_(pa.struct(_INTENTION.items())),
    "rationale": pa.struct(_REASON.items()),
}
"""The columns of a table of posts that a knowledge base answers for."""


def make_post_schema(labels: pa.DataType) -> pa.Schema:
    """Return the schema of a table of posts that stands alone; `labels` are names or lists."""
    plain = {"id": _TEXT, "text": _TEXT, "image": _TEXT, "label": labels}
    return pa.schema([*plain.items(), *_KNOWLEDGE.items(), ("group", _TEXT)])


def make_intention_schema(labels: pa.DataType) -> pa.Schema:
    """Return the schema of a table of intentions, every part of the provenance a column."""
    scores = [item for item in _INTENTION.items() if item[0] != "provenance"]
    sources = [(field.name, field.type) for field in _PROVENANCE]
    return pa.schema([("id", _TEXT), ("label", labels), *scores, *sources])


def add_knowledge_columns(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a table of posts with the columns of knowledge put in."""
    others = [field for field in schema if field.name not in _KNOWLEDGE]
    return pa.schema([*others, *_KNOWLEDGE.items()])


def infer_schema(rows: Iterable[Sequence[Mapping[str, Any]]], where: str) -> pa.Schema:
    """Return the schema of chunks of rows, less the columns of knowledge.

    Raises `DistilError` where a column holds values of two kinds.
    """
    schema = pa.schema([])
    try:
        for chunk in rows:
            plain = [{k: v for k, v in row.items() if k not in _KNOWLEDGE} for row in chunk]
            names = dict.fromkeys(name for row in plain for name in row)
            columns = {name: pa.array([row.get(name) for row in plain]) for name in names}
            found = pa.schema([(name, column.type) for name, column in columns.items()])
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        line = str(error).splitlines()[0]
        raise DistilError(f"{where}: a column has no one type ({line}); .jsonl holds it") from None
    empty = pa.null()
    return pa.schema([(each.name, _TEXT if each.type == empty else each.type) for each in schema])


def make_post_cells(post: Post, folder: Path) -> dict[str, Any]:
    """Return a post as the cells of a row in `folder`, to which an image path is relative."""
    cells: dict[str, Any] = post.model_dump(mode="python", exclude_none=True, exclude={"image"})
    cells = {k: _list_values(value) for k, value in cells.items() if value != () or k == "label"}
    if isinstance(post.image, Path):
        cells["image"] = os.path.relpath(post.image.absolute(), folder.absolute())
    elif post.image:
        cells["image"] = post.image
    return cells


def make_knowledge_cells(known: PostKnowledge) -> dict[str, Any]:
    """Return what the knowledge base answers for, as cells; a cell of None takes a cell away."""
    found = known.fields()
    cells = Post(id="-", text="-", **found).model_dump(exclude_none=True)
    return {name: _list_values(cells.get(name)) or None for name in found}


def make_intention_rows(known: PostKnowledge) -> Iterator[dict[str, Any]]:
    """Yield the intentions of a post as flat rows."""
    for one in known.intentions:
        yield {
            "id": known.post.id,
            "label": _list_values(known.post.label),
            **one.model_dump(exclude={"provenance"}),
            **(one.provenance or {}),
        }


def check_provenance(cells: Mapping[str, Any]) -> None:
    """Raise `DistilError` for a source's own provenance that the columns have no room for."""
    texts = [*(cells.get("intentions") or ()), cells.get("rationale") or {}]
    known = {field.name for field in _PROVENANCE}
    for text in texts:
        if strange := set(text.get("provenance") or ()) - known:
            raise DistilError(
                f"post {cells['id']!r}: its provenance has {', '.join(sorted(strange))}, for which "
                "the table has no column; .jsonl holds it"
            )


def _list_values(value: Any) -> Any:
    """Return a value with lists for tuples, as files hold them."""
    if isinstance(value, tuple | list):
        return [_list_values(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _list_values(each) for name, each in value.items()}
    return value


EXPORT_SUFFIXES = (".jsonl", ".parquet")
_GROUP_ROWS = 50_000
"""Rows of a row group."""
_BATCH = 500
_FULL = 64 << 20  # bytes after which a part is written, however few rows it has

WriteRow = Callable[[Mapping[str, Any]], None]


@contextmanager
def open_jsonl(path: Path) -> Iterator[WriteRow]:
    """Give what writes a row as a line of JSON; a cell of None is left out."""
    with write_atomically(path) as beside, beside.open("w", encoding="utf-8") as file:

        def write(row: Mapping[str, Any]) -> None:
            cells = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(cells, ensure_ascii=False, default=_encode_value) + "\n")

        yield write


@contextmanager
def open_parquet(path: Path, schema: pa.Schema) -> Iterator[WriteRow]:
    """Give what writes a row of a Parquet file, in row groups of `PART` rows or 64 MiB."""
    with (
        write_atomically(path) as beside,
        pq.ParquetWriter(beside, schema, compression="zstd") as writer,
    ):
        held: list[pa.RecordBatch] = []
        rows: list[Mapping[str, Any]] = []

        def batch() -> None:
            try:
                held.append(pa.RecordBatch.from_pylist(rows, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                line = str(error).splitlines()[0]
                raise DistilError(f"{path}: a row does not fit: {line}; .jsonl holds it") from None
            rows.clear()

        def flush() -> None:
            table = pa.Table.from_batches(held, schema)
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            held.clear()

        def write(row: Mapping[str, Any]) -> None:
            rows.append(row)
            if len(rows) >= _BATCH:
                batch()
                if sum(map(len, held)) >= _GROUP_ROWS or sum(each.nbytes for each in held) >= _FULL:
                    flush()

        yield write
        batch()
        flush()


def _encode_value(value: Any) -> str:
    if isinstance(value, bytes):
        raise DistilError("a .jsonl file cannot hold pictures; export to .parquet")
    return str(value)
