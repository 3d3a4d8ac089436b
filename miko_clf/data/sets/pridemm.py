"""PrideMM (Shah et al., MemeCLIP, EMNLP 2024): memes on Pride, labelled for four tasks."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.readers import PostEntry, SkipReport, TableRow, build_entries
from miko_clf.data.sets import base
from miko_clf.data.splits import SPLIT_NAMES, SPLITS, FolderLayout, SplitSource
from miko_clf.errors import PostError

# The classes of each task in the order of their codes, and how many memes each has.
_COUNTS = {
    "hate": {"no_hate": 2581, "hate": 2482},
    "target": {"undirected": 771, "individual": 249, "community": 1164, "organization": 298},
    "stance": {"neutral": 1458, "support": 1909, "oppose": 1696},
    "humor": {"no_humor": 1642, "humor": 3421},
}
_TASKS = tuple(_COUNTS)
_SPELT = {"humor": ("humour", "humor")}
_FILE = "PrideMM.csv"
_UNAIMED = "is not hateful, so it has no target"
_NO_TEXT = ("none", "null", "nan", "na", "")
PRIDEMM = (
    base.PublishedSet(
        "PrideMM", "5,063 memes in all: 2,482 hateful, and of those the target; stance; humour",
        _TASKS, dict.fromkeys(SPLITS), "PrideMM.csv; Images/",
    ),
)  # fmt: skip


def recognise_pridemm(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if `PrideMM.csv` with its columns stands here; `split` divides it.

    The target is that of hateful memes alone, as its authors have it.
    """
    file = path / _FILE
    if not file.is_file():
        return None
    task = base.choose_task(path, PRIDEMM[0].name, options.task, _TASKS)
    images, notes = base.find_pictures(path / "Images")
    whole = base.PublishedCount(sum(_COUNTS[task].values()), (_COUNTS[task],))
    published = base.PublishedFolder(PRIDEMM[0].name, SkipReport(), whole=whole, notes=notes)
    build = partial(_parse_meme, images, task)

    def source(split: str, report: SkipReport | None) -> Iterator[PostEntry]:
        rows, reason = _read_split_rows(file, split), partial(_explain_outside, task)
        rows = base.leave_out_rows(rows, reason, published.left, report)
        return build_entries(rows, build, report)

    present = {_name_split(row.cells) for row in _read_table(file)}
    sources: dict[str, SplitSource] = {
        split: partial(source, split) for split in SPLITS if split in present
    }
    if not sources:
        raise PostError(f"{file}: no row is of train, val or test by its column split")
    return FolderLayout("pridemm", sources, published)


def _read_table(file: Path) -> Iterator[TableRow]:
    return base.read_delimited(file, ",", ("name", "split", "text", "hate", "target", "stance"))


def _name_split(cells: Mapping[str, Any]) -> str | None:
    return SPLIT_NAMES.get(str(cells.get("split")).lower())


def _read_split_rows(file: Path, split: str) -> Iterator[TableRow]:
    for row in _read_table(file):
        name = _name_split(row.cells)
        if not row.fault and name is None:
            yield TableRow(row.where, {}, f"split {row.cells['split']!r} is unknown")
        elif row.fault or name == split:
            yield row


def _explain_outside(task: str, cells: Mapping[str, Any]) -> str:
    none = task == "target" and str(cells.get("hate")).removesuffix(".0") == "0"
    return _UNAIMED if none else ""


def _parse_meme(images: Path | None, task: str, cells: Mapping[str, Any]) -> Post:
    name, text = base.get_cell(cells, "name"), base.get_cell(cells, "text")
    column = next((name for name in _SPELT.get(task, ()) if name in cells), task)
    return base.build_post(
        images and images / name,
        id=Path(name).stem,
        text=None if text.lower() in _NO_TEXT else text,
        label=base.decode_class(
            cells, column, {str(i): name for i, name in enumerate(_COUNTS[task])}
        ),
    )
