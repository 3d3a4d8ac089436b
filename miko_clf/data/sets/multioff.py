"""MultiOFF (Suryawanshi et al., TRAC 2020): memes of an election, offensive or not."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.data.sets import base
from miko_clf.data.splits import FolderLayout, make_split_sources
from miko_clf.errors import PostError

_TASKS = ("offence",)
_FILES = {
    "train": "Training_meme_dataset.csv",
    "val": "Validation_meme_dataset.csv",
    "test": "Testing_meme_dataset.csv",
}
_COUNTS = {
    "train": base.PublishedCount(445),
    "val": base.PublishedCount(149),
    "test": base.PublishedCount(149),
}
# The authors leave the last letter of the second away.
_LABELS = {
    "offensive": "offensive",
    "non-offensiv": "not_offensive",
    "non-offensive": "not_offensive",
}
MULTIOFF = (
    base.PublishedSet(
        "MultiOFF", "memes of the US election of 2016, offensive or not", _TASKS, _COUNTS,
        "{Training,Validation,Testing}_meme_dataset.csv, in 'Split Dataset'/ or not; "
        "'Labelled Images'/",
    ),
)  # fmt: skip


def recognise_multioff(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if the three tables, or some of them, stand here."""
    files = base.find_split_files(path, _FILES) | base.find_split_files(
        path / "Split Dataset", _FILES
    )
    if not files:
        return None
    base.choose_task(path, MULTIOFF[0].name, options.task, _TASKS)
    images, notes = base.find_pictures(path / "Labelled Images")
    tables = {
        split: partial(base.read_delimited, file, ",", ("image_name", "sentence", "label"))
        for split, file in files.items()
    }
    sources = make_split_sources(tables, partial(_parse_meme, images))
    published = base.PublishedFolder(MULTIOFF[0].name, SkipReport(), _COUNTS, notes=notes)
    return FolderLayout("multioff", sources, published)


def _parse_meme(images: Path | None, cells: Mapping[str, Any]) -> Post:
    name, label = base.get_cell(cells, "image_name"), base.get_cell(cells, "label")
    if label.lower() not in _LABELS:
        raise PostError(f"label must be offensive or Non-offensiv, not {label!r:.60}")
    return base.build_post(
        images and images / name,
        id=name,
        text=base.get_cell(cells, "sentence"),
        label=_LABELS[label.lower()],
    )
