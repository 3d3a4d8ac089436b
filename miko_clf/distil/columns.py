"""What is known as rows of a table: one a post, or one an intention, and their Arrow types."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from miko_clf.data.post import Post
from miko_clf.distil.knowledge import Known
from miko_clf.errors import DistilError

_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int32()
PROVENANCE = pa.struct(
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
    "provenance": PROVENANCE,
}
_KEYS = {
    **dict.fromkeys(("concept", "action", "object", "emotion"), _TEXT),
    "keywords": pa.list_(_TEXT),
}
_REASON = {"text": _TEXT, "saw_label": pa.bool_(), "provenance": PROVENANCE}
KNOWLEDGE: Mapping[str, pa.DataType] = {
    "description": _TEXT,
    "key_information": pa.struct(_KEYS.items()),
    "intentions": pa.list_(pa.struct(_INTENTION.items())),
    "rationale": pa.struct(_REASON.items()),
}
"""The columns of a table of posts that a knowledge base answers for."""


def of_posts(labels: pa.DataType) -> pa.Schema:
    """Return the schema of a table of posts that stands alone; `labels` are names or lists."""
    plain = {"id": _TEXT, "text": _TEXT, "image": _TEXT, "label": labels}
    return pa.schema([*plain.items(), *KNOWLEDGE.items(), ("group", _TEXT)])


def of_intentions(labels: pa.DataType) -> pa.Schema:
    """Return the schema of a table of intentions, every part of the provenance a column."""
    scores = [item for item in _INTENTION.items() if item[0] != "provenance"]
    sources = [(field.name, field.type) for field in PROVENANCE]
    return pa.schema([("id", _TEXT), ("label", labels), *scores, *sources])


def beside(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a table of posts with the columns of knowledge put in."""
    others = [field for field in schema if field.name not in KNOWLEDGE]
    return pa.schema([*others, *KNOWLEDGE.items()])


def inferred(rows: Iterable[Sequence[Mapping[str, Any]]], where: str) -> pa.Schema:
    """Return the schema of chunks of rows, less the columns of knowledge.

    Raises `DistilError` where a column holds values of two kinds.
    """
    schema = pa.schema([])
    try:
        for chunk in rows:
            plain = [{k: v for k, v in row.items() if k not in KNOWLEDGE} for row in chunk]
            names = dict.fromkeys(name for row in plain for name in row)
            columns = {name: pa.array([row.get(name) for row in plain]) for name in names}
            found = pa.schema([(name, column.type) for name, column in columns.items()])
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        line = str(error).splitlines()[0]
        raise DistilError(f"{where}: a column has no one type ({line}); .jsonl holds it") from None
    empty = pa.null()
    return pa.schema([(each.name, _TEXT if each.type == empty else each.type) for each in schema])


def post_cells(post: Post, folder: Path) -> dict[str, Any]:
    """Return a post as the cells of a row in `folder`, to which an image path is relative."""
    cells: dict[str, Any] = post.model_dump(mode="python", exclude_none=True, exclude={"image"})
    cells = {k: _listed(value) for k, value in cells.items() if value != () or k == "label"}
    if isinstance(post.image, Path):
        cells["image"] = os.path.relpath(post.image.absolute(), folder.absolute())
    elif post.image:
        cells["image"] = post.image
    return cells


def knowledge_cells(known: Known) -> dict[str, Any]:
    """Return what the knowledge base answers for, as cells; a cell of None takes a cell away."""
    found = known.fields()
    cells = Post(id="-", text="-", **found).model_dump(exclude_none=True)
    return {name: _listed(cells.get(name)) or None for name in found}


def intention_rows(known: Known) -> Iterator[dict[str, Any]]:
    """Yield the intentions of a post as flat rows."""
    for one in known.intentions:
        yield {
            "id": known.post.id,
            "label": _listed(known.post.label),
            **one.model_dump(exclude={"provenance"}),
            **(one.provenance or {}),
        }


def check_provenance(cells: Mapping[str, Any]) -> None:
    """Raise `DistilError` for a source's own provenance that the columns have no room for."""
    texts = [*(cells.get("intentions") or ()), cells.get("rationale") or {}]
    known = {field.name for field in PROVENANCE}
    for text in texts:
        if strange := set(text.get("provenance") or ()) - known:
            raise DistilError(
                f"post {cells['id']!r}: its provenance has {', '.join(sorted(strange))}, for which "
                "the table has no column; .jsonl holds it"
            )


def _listed(value: Any) -> Any:
    """Return a value with lists for tuples, as files hold them."""
    if isinstance(value, tuple | list):
        return [_listed(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _listed(each) for name, each in value.items()}
    return value
