"""MAMI, SemEval-2022 task 5 (Fersini et al.): misogynous memes, and what kind of misogyny."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.adapters.cells import bare, cell, coded, delimited, no_pictures, pictures, post
from miko_clf.data.adapters.known import Known, Wish, chosen
from miko_clf.data.counts import Count, Published
from miko_clf.data.layout import Layout, Source, one_split
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.data.table import Row
from miko_clf.errors import PostError

TASKS = ("misogyny", "kinds")
_KINDS = ("shaming", "stereotype", "objectification", "violence")
_MARKS = ("misogynous", *_KINDS)
_TEXT = "Text Transcription"
_CODES = {"0": "not_misogynous", "1": "misogynous"}
_COUNTS = {"train": Count(10000), "test": Count(1000)}
_TRAIN = ("training", "TRAINING", "")
_TEST = ("test", "TEST", "")
KNOWN = (
    Known(
        "MAMI", "memes, misogynous or not (misogyny), or which of four kinds, none to all (kinds)",
        TASKS, _COUNTS,
        "training.csv by tabs, in TRAINING/ or not, with its pictures; Test.csv likewise, and "
        "test_labels.txt",
    ),
)  # fmt: skip


def layout(path: Path, wish: Wish) -> Layout | None:
    """Return the layout if `training.csv` (or .tsv) with the columns of MAMI stands here.

    Pictures lie beside the file that names them. There is no val: none was published.
    """
    train = _first(path, _TRAIN, ("training.csv", "training.tsv"))
    test = _first(path, _TEST, ("Test.csv", "test.csv", "Test.tsv", "test.tsv"))
    if train is None or not _is_mami(train):
        return None
    task = chosen(path, KNOWN[0].name, wish.task, TASKS)
    files = {"train": train} | ({"test": test} if test else {})
    places = {split: pictures(file.parent) for split, file in files.items()}
    notes = [no_pictures(files[split].parent) for split, place in places.items() if place is None]
    published = Published(KNOWN[0].name, SkipReport(), _COUNTS, notes=tuple(dict.fromkeys(notes)))
    labels = _first(path, _TEST, ("test_labels.txt",))
    tables = {
        "train": partial(delimited, train, "\t", ("file_name", *_MARKS, _TEXT)),
        "test": partial(_with_labels, test, labels) if test else None,
    }
    sources: dict[str, Source] = {
        split: one_split(table, partial(_post, places[split], task))
        for split, table in tables.items()
        if table is not None
    }
    return Layout("mami", sources, published)


def _first(path: Path, folders: Iterable[str], names: Iterable[str]) -> Path | None:
    found = (path / folder / name for folder in folders for name in names)
    return next((file for file in found if file.is_file()), None)


def _is_mami(file: Path) -> bool:
    _, header = next(bare(file, "\t"), ("", []))
    return {"file_name", "misogynous"} <= set(header)


def _with_labels(test: Path, labels: Path | None) -> Iterator[Row]:
    """Yield the rows of the test file, with the marks that a file of their own gives each."""
    marks: dict[str, dict[str, str]] = {}
    for where, cells in bare(labels, "\t") if labels else ():
        if len(cells) != 1 + len(_MARKS):
            raise PostError(f"{where}: a file name and {len(_MARKS)} marks are expected")
        marks[cells[0]] = dict(zip(_MARKS, cells[1:], strict=True))
    for row in delimited(test, "\t", ("file_name", _TEXT)):
        name = row.cells.get("file_name", "")
        if labels and not row.fault and name not in marks:
            yield Row(row.where, {}, f"{name!r} has no marks in {labels.name}")
        else:
            yield row._replace(cells={**row.cells, **marks.get(name, {})})


def _post(images: Path | None, task: str, cells: Mapping[str, Any]) -> Post:
    name = cell(cells, "file_name")
    return post(
        images and images / name,
        id=Path(name).stem,
        text=cell(cells, _TEXT),
        label=_label(task, cells) if _MARKS[0] in cells else None,
    )


def _label(task: str, cells: Mapping[str, Any]) -> str | tuple[str, ...]:
    if task == "misogyny":
        return coded(cells, _MARKS[0], _CODES)
    return tuple(kind for kind in _KINDS if coded(cells, kind, {"0": "", "1": kind}))
