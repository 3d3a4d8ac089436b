"""Rows into one .jsonl or .parquet file, which is there whole or not, in memory that stays flat."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.errors import DistilError
from miko_clf.manifest import aside

SUFFIXES = (".jsonl", ".parquet")
PART = 50_000
"""Rows of a row group."""
_BATCH = 500
_FULL = 64 << 20  # bytes after which a part is written, however few rows it has

Write = Callable[[Mapping[str, Any]], None]


@contextmanager
def lines(path: Path) -> Iterator[Write]:
    """Give what writes a row as a line of JSON; a cell of None is left out."""
    with aside(path) as beside, beside.open("w", encoding="utf-8") as file:

        def write(row: Mapping[str, Any]) -> None:
            cells = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(cells, ensure_ascii=False, default=_plain) + "\n")

        yield write


@contextmanager
def parts(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Give what writes a row of a Parquet file, in row groups of `PART` rows or 64 MiB."""
    with aside(path) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
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
            writer.write_table(table, row_group_size=PART)
            held.clear()

        def write(row: Mapping[str, Any]) -> None:
            rows.append(row)
            if len(rows) >= _BATCH:
                batch()
                if sum(map(len, held)) >= PART or sum(each.nbytes for each in held) >= _FULL:
                    flush()

        yield write
        batch()
        flush()


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise DistilError("a .jsonl file cannot hold pictures; export to .parquet")
    return str(value)
