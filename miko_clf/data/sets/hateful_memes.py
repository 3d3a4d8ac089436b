"""Hateful Memes (Kiela et al., NeurIPS 2020): five splits, each under its own name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport, read_rows
from miko_clf.data.sets import base
from miko_clf.data.splits import FolderLayout, make_split_sources

_TASKS = ("hate",)
_FIRST_RELEASE = {"train": "train.jsonl", "dev_seen": "dev.jsonl", "test_seen": "test.jsonl"}
_CODES = {"0": "not_hateful", "1": "hateful"}
# The labels of dev_seen were revised; both counts are in circulation.
_COUNTS = {
    "train": base.PublishedCount(8500, ({"hateful": 3050, "not_hateful": 5450},)),
    "dev_seen": base.PublishedCount(
        500, ({"hateful": 250, "not_hateful": 250}, {"hateful": 247, "not_hateful": 253})
    ),
    "dev_unseen": base.PublishedCount(540),
    "test_seen": base.PublishedCount(1000),
    "test_unseen": base.PublishedCount(2000),
}
_WHICH_TEST = (
    "papers report test_seen (1,000 posts), test_unseen (2,000) or dev_seen (500), which do not "
    "compare, so name the one you mean"
)
_NOTE = (
    "val is dev_seen, as with Hate-CLIPper and RGCL; it shares memes with dev_unseen, and papers "
    "that test on dev_seen cannot be compared with a model that was chosen by it"
)
HATEFUL_MEMES = (
    base.PublishedSet(
        "Hateful Memes", "memes, hateful or not, with benign confounders; val is dev_seen", _TASKS,
        _COUNTS,
        "train.jsonl beside any of {dev,test}_{seen,unseen}.jsonl, or dev.jsonl and img/ of the "
        "first release; also in annotations/ with images/",
    ),
)  # fmt: skip


def recognise_hateful_memes(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if files named by seen and unseen stand here, or those of 2020.

    `dev.jsonl` and `test.jsonl` of the first release are dev_seen and test_seen.
    """
    files = _find_files(path) or _find_files(path / "annotations")
    if not files:
        return None
    base.choose_task(path, HATEFUL_MEMES[0].name, options.task, _TASKS)
    root = path if (path / "img").is_dir() else path / "images"
    images, notes = base.find_pictures(root / "img")
    published = base.PublishedFolder(
        HATEFUL_MEMES[0].name,
        SkipReport(),
        _COUNTS,
        aliases={"val": "dev_seen"} if "dev_seen" in files else {},
        instead={"test": _WHICH_TEST},
        shared=frozenset({"dev_seen", "dev_unseen"}),
        notes=(_NOTE, *notes),
    )
    tables = {split: partial(read_rows, file) for split, file in files.items()}
    sources = make_split_sources(tables, partial(_parse_meme, root if images else None))
    return FolderLayout("hateful-memes", sources, published)


def _find_files(folder: Path) -> dict[str, Path]:
    files = base.find_split_files(folder, {split: f"{split}.jsonl" for split in _COUNTS})
    if files.keys() - {"train"}:
        return files
    files = base.find_split_files(folder, _FIRST_RELEASE)
    whole = "dev_seen" in files and (folder / "img").is_dir()
    return files if whole and _is_meme(files["dev_seen"]) else {}


def _is_meme(file: Path) -> bool:
    first = next(read_rows(file), None)
    return first is not None and {"id", "img", "text"} <= first.cells.keys()


def _parse_meme(root: Path | None, cells: Mapping[str, Any]) -> Post:
    image = base.get_cell(cells, "img")
    return base.build_post(
        root and root / image,
        id=Path(image).stem,
        text=base.get_cell(cells, "text").strip(),
        label=None if cells.get("label") is None else base.decode_class(cells, "label", _CODES),
    )
