"""MultiOFF (Suryawanshi et al., TRAC 2020): memes of the US election of 2016, offensive or not."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.adapters.cells import cell, delimited, no_pictures, pictures, post
from miko_clf.data.adapters.known import Known, Wish, chosen
from miko_clf.data.counts import Count, Published
from miko_clf.data.layout import Layout, Source, one_split
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.errors import PostError

TASKS = ("offence",)
_FILES = {
    "train": "Training_meme_dataset.csv",
    "val": "Validation_meme_dataset.csv",
    "test": "Testing_meme_dataset.csv",
}
_COUNTS = {"train": Count(445), "val": Count(149), "test": Count(149)}
# The authors leave the last letter of the second away.
_LABELS = {
    "offensive": "offensive",
    "non-offensiv": "not_offensive",
    "non-offensive": "not_offensive",
}
KNOWN = (
    Known(
        "MultiOFF", "memes of the US election of 2016, offensive or not", TASKS, _COUNTS,
        "{Training,Validation,Testing}_meme_dataset.csv, in 'Split Dataset'/ or not; "
        "'Labelled Images'/",
    ),
)  # fmt: skip


def layout(path: Path, wish: Wish) -> Layout | None:
    """Return the layout if the three tables, or some of them, stand here."""
    folders = (path / "Split Dataset", path)
    files = {
        split: next((folder / name for folder in folders if (folder / name).is_file()), None)
        for split, name in _FILES.items()
    }
    if not any(files.values()):
        return None
    chosen(path, KNOWN[0].name, wish.task, TASKS)
    images = pictures(path / "Labelled Images")
    notes = () if images else (no_pictures(path / "Labelled Images"),)
    sources: dict[str, Source] = {
        split: one_split(
            partial(delimited, file, ",", ("image_name", "sentence", "label")),
            partial(_post, images),
        )
        for split, file in files.items()
        if file is not None
    }
    return Layout("multioff", sources, Published("MultiOFF", SkipReport(), _COUNTS, notes=notes))


def _post(images: Path | None, cells: Mapping[str, Any]) -> Post:
    name, label = cell(cells, "image_name"), cell(cells, "label")
    if label.lower() not in _LABELS:
        raise PostError(f"label must be offensive or Non-offensiv, not {label!r:.60}")
    return post(
        images and images / name,
        id=name,
        text=cell(cells, "sentence"),
        label=_LABELS[label.lower()],
    )
