"""PrideMM (Shah et al., MemeCLIP, EMNLP 2024): memes on Pride, labelled for four tasks."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.adapters.cells import (
    cell,
    coded,
    delimited,
    no_pictures,
    pictures,
    post,
    without,
)
from miko_clf.data.adapters.known import Known, Wish, chosen
from miko_clf.data.counts import Count, Published
from miko_clf.data.layout import SPLIT_NAMES, Layout, Source
from miko_clf.data.post import Post
from miko_clf.data.read import Entry, SkipReport, entries
from miko_clf.data.split import SPLITS
from miko_clf.data.table import Row
from miko_clf.errors import PostError

_CLASSES = {
    "hate": ("no_hate", "hate"),
    "target": ("undirected", "individual", "community", "organization"),
    "stance": ("neutral", "support", "oppose"),
    "humor": ("no_humor", "humor"),
}
_NUMBERS = {
    "hate": (2581, 2482),
    "target": (771, 249, 1164, 298),
    "stance": (1458, 1909, 1696),
    "humor": (1642, 3421),
}
TASKS = tuple(_CLASSES)
_SPELT = {"humor": ("humour", "humor")}
_FILE = "PrideMM.csv"
_UNAIMED = "is not hateful, so it has no target"
_NO_TEXT = ("none", "null", "nan", "na", "")
KNOWN = (
    Known(
        "PrideMM", "5,063 memes in all: 2,482 hateful, and of those the target; stance; humour",
        TASKS, dict.fromkeys(SPLITS), "PrideMM.csv; Images/",
    ),
)  # fmt: skip


def layout(path: Path, wish: Wish) -> Layout | None:
    """Return the layout if `PrideMM.csv` with its columns stands here; `split` divides it.

    The target is that of hateful memes alone, as its authors have it.
    """
    file = path / _FILE
    if not file.is_file():
        return None
    task = chosen(path, KNOWN[0].name, wish.task, TASKS)
    images = pictures(path / "Images")
    numbers = dict(zip(_CLASSES[task], _NUMBERS[task], strict=True))
    published = Published(
        KNOWN[0].name,
        SkipReport(),
        whole=Count(sum(numbers.values()), (numbers,)),
        notes=() if images else (no_pictures(path / "Images"),),
    )
    build = partial(_post, images, task)

    def source(split: str, report: SkipReport | None) -> Iterator[Entry]:
        outside = partial(_outside, task)
        return entries(without(_rows(file, split), outside, published.left, report), build, report)

    present = {_split(row.cells) for row in _table(file)}
    sources: dict[str, Source] = {
        split: partial(source, split) for split in SPLITS if split in present
    }
    if not sources:
        raise PostError(f"{file}: no row is of train, val or test by its column split")
    return Layout("pridemm", sources, published)


def _table(file: Path) -> Iterator[Row]:
    return delimited(file, ",", ("name", "split", "text", "hate", "target", "stance"))


def _split(cells: Mapping[str, Any]) -> str | None:
    return SPLIT_NAMES.get(str(cells.get("split")).lower())


def _rows(file: Path, split: str) -> Iterator[Row]:
    for row in _table(file):
        found = _split(row.cells)
        if not row.fault and found is None:
            yield Row(row.where, {}, f"split {row.cells['split']!r} is unknown")
        elif row.fault or found == split:
            yield row


def _outside(task: str, cells: Mapping[str, Any]) -> str:
    none = task == "target" and str(cells.get("hate")).removesuffix(".0") == "0"
    return _UNAIMED if none else ""


def _post(images: Path | None, task: str, cells: Mapping[str, Any]) -> Post:
    name, text = cell(cells, "name"), cell(cells, "text")
    column = next((name for name in _SPELT.get(task, ()) if name in cells), task)
    return post(
        images and images / name,
        id=Path(name).stem,
        text=None if text.lower() in _NO_TEXT else text,
        label=coded(cells, column, {str(i): name for i, name in enumerate(_CLASSES[task])}),
    )
