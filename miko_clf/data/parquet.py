"""Rows of Parquet, and of what the `datasets` library and its hub write in it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.cells import POST_KEYS, TableRow, check_columns
from miko_clf.data.json_lines import parse_json_cells
from miko_clf.errors import PostError

_BATCH = 64  # rows in memory at a time: they may hold images

Reading = Callable[[Any], Any]


def read_parquet(path: Path, key: str) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file, class numbers of `datasets` as the names they stand for.

    Its columns must hold `key`; where `datasets` wrote the file and there is no `id`, its name
    and the row number make one.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            features = _read_features(file.schema_arrow)
            numbered = bool(features) and key == "id" and "id" not in names
            try:
                check_columns([*names, "id"] if numbered else names, key)
            except PostError as error:
                raise PostError(f"{path}: {error}") from None
            wanted = [name for name in names if name in (*POST_KEYS, key)]
            readings = {name: choose_reading(features[name]) for name in wanted if name in features}
            batches = file.iter_batches(_BATCH, columns=wanted)
            rows = (cells for batch in batches for cells in batch.to_pylist())
            for number, cells in enumerate(rows, 1):
                known = {"id": f"{path.stem}-{number}"} if numbered else {}
                yield _parse_row(f"{path} row {number}", {**known, **cells}, readings)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PostError(f"{path}: is not a readable Parquet file") from error


def _parse_row(where: str, cells: dict[str, Any], readings: Mapping[str, Reading]) -> TableRow:
    try:
        named = {name: readings[name](cells[name]) for name in readings}
        return TableRow(where, parse_json_cells({**cells, **named}))
    except PostError as error:
        return TableRow(where, {}, str(error))


def _read_features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return what `datasets` says of the columns, nothing where it did not write the file."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def choose_reading(feature: Any) -> Reading:
    """Return what turns a stored value into ours: names for class numbers, else no change.

    `feature` is a column as the metadata of `datasets` describes it.
    """
    if '"ClassLabel"' not in json.dumps(feature):
        return lambda value: value
    if isinstance(feature, list):  # of one, as older versions write a list
        feature = {"feature": feature[0], "_type": "List"}
    names, kind = feature.get("names"), feature.get("_type")
    if kind == "ClassLabel":
        return lambda value: _name_class(names, value)
    if isinstance(kind, str):
        inner = choose_reading(feature.get("feature"))
        return lambda values: values and [inner(value) for value in values]
    readings = {name: choose_reading(part) for name, part in feature.items()}
    return lambda values: values and {name: readings[name](values[name]) for name in values}


def _name_class(names: Sequence[str], value: Any) -> str | None:
    """Return the name of a class number; -1 is how `datasets` says that there is none."""
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise PostError(f"label: {value!r:.60} is none of the {len(names)} classes of this column")
    return names[value]
