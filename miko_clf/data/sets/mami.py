"""MAMI, SemEval-2022 task 5 (Fersini et al.): misogynous memes, and of what kind."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport, TableRow
from miko_clf.data.sets import base
from miko_clf.data.splits import FolderLayout, make_split_sources
from miko_clf.errors import PostError

_TASKS = ("misogyny", "kinds")
_KINDS = ("shaming", "stereotype", "objectification", "violence")
_MARKS = ("misogynous", *_KINDS)
_TEXT = "Text Transcription"
_CODES = {"0": "not_misogynous", "1": "misogynous"}
_COUNTS = {"train": base.PublishedCount(10000), "test": base.PublishedCount(1000)}
_TRAIN = ("training", "TRAINING", "")
_TEST = ("test", "TEST", "")
MAMI = (
    base.PublishedSet(
        "MAMI", "memes, misogynous or not (misogyny), or which of four kinds, none to all (kinds)",
        _TASKS, _COUNTS,
        "training.csv by tabs, in TRAINING/ or not, with its pictures; Test.csv likewise, and "
        "test_labels.txt",
    ),
)  # fmt: skip


def recognise_mami(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if `training.csv` (or .tsv) with the columns of MAMI stands here.

    Pictures lie beside the file that names them. There is no val: none was published.
    """
    train = _find_first(path, _TRAIN, ("training.csv", "training.tsv"))
    test = _find_first(path, _TEST, ("Test.csv", "test.csv", "Test.tsv", "test.tsv"))
    _, header = next(base.read_delimited_lines(train, "\t"), ("", [])) if train else ("", [])
    if train is None or not {"file_name", "misogynous"} <= set(header):
        return None
    task = base.choose_task(path, MAMI[0].name, options.task, _TASKS)
    images, notes = base.find_pictures(train.parent)
    table = partial(base.read_delimited, train, "\t", ("file_name", *_MARKS, _TEXT))
    sources = make_split_sources({"train": table}, partial(_parse_meme, images, task))
    labels = _find_first(path, _TEST, ("test_labels.txt",))
    if test:
        images, missing = base.find_pictures(test.parent)
        table = partial(_join_labels, test, labels)
        sources |= make_split_sources({"test": table}, partial(_parse_meme, images, task))
        notes = tuple(dict.fromkeys((*notes, *missing)))
    published = base.PublishedFolder(MAMI[0].name, SkipReport(), _COUNTS, notes=notes)
    return FolderLayout("mami", sources, published)


def _find_first(path: Path, folders: Iterable[str], names: Iterable[str]) -> Path | None:
    files = (path / folder / name for folder in folders for name in names)
    return next((file for file in files if file.is_file()), None)


def _join_labels(test: Path, labels: Path | None) -> Iterator[TableRow]:
    """Yield the rows of the test file, with the marks that a file of their own gives each."""
    marks: dict[str, dict[str, str]] = {}
    for where, cells in base.read_delimited_lines(labels, "\t") if labels else ():
        if len(cells) != 1 + len(_MARKS):
            raise PostError(f"{where}: a file name and {len(_MARKS)} marks are expected")
        marks[cells[0]] = dict(zip(_MARKS, cells[1:], strict=True))
    for row in base.read_delimited(test, "\t", ("file_name", _TEXT)):
        name = row.cells.get("file_name", "")
        if labels and not row.fault and name not in marks:
            yield TableRow(row.where, {}, f"{name!r} has no marks in {labels.name}")
        else:
            yield row._replace(cells={**row.cells, **marks.get(name, {})})


def _parse_meme(images: Path | None, task: str, cells: Mapping[str, Any]) -> Post:
    name = base.get_cell(cells, "file_name")
    return base.build_post(
        images and images / name,
        id=Path(name).stem,
        text=base.get_cell(cells, _TEXT),
        label=_choose_label(task, cells) if _MARKS[0] in cells else None,
    )


def _choose_label(task: str, cells: Mapping[str, Any]) -> str | tuple[str, ...]:
    if task == "misogyny":
        return base.decode_class(cells, _MARKS[0], _CODES)
    return tuple(kind for kind in _KINDS if base.decode_class(cells, kind, {"0": "", "1": kind}))
