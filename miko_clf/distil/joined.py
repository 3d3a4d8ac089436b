"""The posts of a source with every column that they have, to be written beside what is known."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.folder import open_folder
from miko_clf.data.read import SkipReport, refuse
from miko_clf.data.table import check_file, rows
from miko_clf.distil.columns import inferred, post_cells
from miko_clf.errors import PostError

_BATCH = 64  # rows of Parquet in memory at a time: they may hold images
_CHUNK = 2000


class Joined:
    """The rows of a source, image paths made relative to the folder that they go to."""

    def __init__(self, path: Path, folder: Path, report: SkipReport | None) -> None:
        self.path = path
        self.total: int | None = None
        self._folder = folder.absolute()
        self._report = report
        self._kind = "folder" if path.is_dir() else path.suffix.lower()
        self._known: list[dict[str, Any]] = []
        if self._kind == "folder":
            self._known = list(_of_folder(path, self._folder, report))
            self.total = len(self._known)
        else:
            check_file(path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the cells of each post; a bad row raises `PostError`, or is reported."""
        if self._kind == "folder":
            yield from self._known
            return
        for where, cells in self._parquet() if self._kind == ".parquet" else self._lines():
            if isinstance(cells.get("id"), str):
                yield self._moved(cells)
            else:
                refuse(where, "id must be a string", self._report)

    def schema(self) -> pa.Schema:
        """Return the types of the columns, as Parquet has them or as all rows together show."""
        if self._kind == ".parquet":
            return pq.read_schema(self.path)
        return inferred(self._chunks(), str(self.path))

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        found = self.rows()
        while chunk := list(islice(found, _CHUNK)):
            yield chunk

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows(self.path):
            if row.fault:
                refuse(row.where, row.fault, self._report)
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


def joined(path: Path, folder: Path, report: SkipReport | None) -> Joined:
    """Return the rows of a file or a data folder, for a file in `folder`; raises `PostError`."""
    return Joined(path, folder, report)


def _of_folder(path: Path, folder: Path, report: SkipReport | None) -> Iterator[dict[str, Any]]:
    data = open_folder(path, report=report)
    for split in data.splits:
        for post in data.read(split):
            yield {**post_cells(post, folder), "split": split}
