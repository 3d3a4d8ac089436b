"""The rows of a folder that `datasets` saved; imported only where such a folder is met."""

from collections.abc import Iterator
from pathlib import Path

import datasets

from miko_clf.data.cells import POST_KEYS, TableRow, check_keys
from miko_clf.data.parquet import choose_reading
from miko_clf.errors import PostError


def read_saved_rows(path: Path, prefix: str) -> Iterator[TableRow]:
    """Yield the rows of one saved Dataset, class numbers as names and images as encoded bytes.

    Where there is no `id` column, `prefix` and the row number make one.
    """
    table = _load(path)
    try:
        check_keys((*table.column_names, "id"))
    except PostError as error:
        raise PostError(f"{path}: {error}") from None
    table = table.select_columns([name for name in table.column_names if name in POST_KEYS])
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    features = table.features.to_dict()
    readings = {name: choose_reading(feature) for name, feature in features.items()}
    for number, cells in enumerate(table, 1):
        row = {name: readings[name](value) for name, value in cells.items()}
        if "id" not in row:
            row["id"] = f"{prefix}-{number}"
        yield TableRow(f"{path} row {number}", row)


def _load(path: Path) -> datasets.Dataset:
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow's, json's and the library's own for a damaged folder
        raise PostError(f"{path}: is not a readable folder of the datasets library") from error
    if not isinstance(table, datasets.Dataset):
        raise PostError(f"{path}: is a dictionary of datasets where one dataset is expected")
    if not len(table):
        raise PostError(f"{path}: holds no posts")
    return table
