"""Hateful Memes (Kiela et al., NeurIPS 2020): five splits, each under its own name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.adapters.cells import cell, coded, no_pictures, pictures, post
from miko_clf.data.adapters.known import Known, Wish, chosen
from miko_clf.data.counts import Count, Published
from miko_clf.data.layout import Layout, Source, one_split
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.data.table import rows

TASKS = ("hate",)
_NAMED = ("dev_seen", "dev_unseen", "test_seen", "test_unseen")
_CODES = {"0": "not_hateful", "1": "hateful"}
# The labels of dev_seen were revised; both counts are in circulation.
_COUNTS = {
    "train": Count(8500, ({"hateful": 3050, "not_hateful": 5450},)),
    "dev_seen": Count(
        500, ({"hateful": 250, "not_hateful": 250}, {"hateful": 247, "not_hateful": 253})
    ),
    "dev_unseen": Count(540),
    "test_seen": Count(1000),
    "test_unseen": Count(2000),
}
_WHICH_TEST = (
    "papers report test_seen (1,000 posts), test_unseen (2,000) or dev_seen (500), which do not "
    "compare, so name the one you mean"
)
_NOTE = (
    "val is dev_seen, as with Hate-CLIPper and RGCL; it shares memes with dev_unseen, and papers "
    "that test on dev_seen cannot be compared with a model that was chosen by it"
)
KNOWN = (
    Known(
        "Hateful Memes", "memes, hateful or not, with benign confounders; val is dev_seen", TASKS,
        _COUNTS,
        "train.jsonl beside any of {dev,test}_{seen,unseen}.jsonl, or dev.jsonl and img/ of the "
        "first release; also in annotations/ with images/",
    ),
)  # fmt: skip


def layout(path: Path, wish: Wish) -> Layout | None:
    """Return the layout if files named by seen and unseen stand here, or those of 2020.

    `dev.jsonl` and `test.jsonl` of the first release are dev_seen and test_seen.
    """
    found = _files(path) or _files(path / "annotations")
    if not found:
        return None
    chosen(path, KNOWN[0].name, wish.task, TASKS)
    root = path if (path / "img").is_dir() else path / "images"
    images = pictures(root / "img")
    published = Published(
        KNOWN[0].name,
        SkipReport(),
        _COUNTS,
        aliases={"val": "dev_seen"} if "dev_seen" in found else {},
        instead={"test": _WHICH_TEST},
        shared=frozenset({"dev_seen", "dev_unseen"}),
        notes=(_NOTE,) if images else (_NOTE, no_pictures(root / "img")),
    )
    build = partial(_post, root if images else None)
    sources: dict[str, Source] = {
        split: one_split(partial(rows, file), build) for split, file in found.items()
    }
    return Layout("hateful-memes", sources, published)


def _files(folder: Path) -> dict[str, Path]:
    files = {split: folder / f"{split}.jsonl" for split in ("train", *_NAMED)}
    files = {split: file for split, file in files.items() if file.is_file()}
    if files.keys() - {"train"}:
        return files
    first = {"train": "train", "dev_seen": "dev", "test_seen": "test"}
    files = {split: folder / f"{name}.jsonl" for split, name in first.items()}
    files = {split: file for split, file in files.items() if file.is_file()}
    whole = "dev_seen" in files and (folder / "img").is_dir()
    return files if whole and _is_meme(files["dev_seen"]) else {}


def _is_meme(file: Path) -> bool:
    first = next(rows(file), None)
    return first is not None and {"id", "img", "text"} <= first.cells.keys()


def _post(root: Path | None, cells: Mapping[str, Any]) -> Post:
    image = cell(cells, "img")
    return post(
        root and root / image,
        id=Path(image).stem,
        text=cell(cells, "text").strip(),
        label=None if cells.get("label") is None else coded(cells, "label", _CODES),
    )
