"""MMSD 1.0 (Cai et al., ACL 2019) and MMSD2.0 (Qin et al., Findings of ACL 2023), on sarcasm.

Both have the words that a detector saw in each picture; what MIKO released joins either.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.adapters import miko
from miko_clf.data.adapters.cells import (
    cell,
    coded,
    listed,
    no_pictures,
    numbered_lines,
    pictures,
    post,
    without,
)
from miko_clf.data.adapters.known import Known, Wish, chosen
from miko_clf.data.counts import Count, Published
from miko_clf.data.layout import Layout, Source
from miko_clf.data.post import Post
from miko_clf.data.read import Entry, SkipReport, entries
from miko_clf.data.table import Row
from miko_clf.errors import PostError

CAPTION = "a picture with {}"
"""How the words of the detector, commas between them, are put as a description."""

_CODES = {"0": "not_sarcastic", "1": "sarcastic"}
_FIRST = {"train": "text/train.txt", "val": "text/valid2.txt", "test": "text/test2.txt"}
_SECOND = {
    split: f"text_json_final/{name}.json"
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}
# Posts with one of these are left out by the authors' own loader, and by everybody who counts
# 19,816: what gives the label away is not to be learned.
_GIVEAWAYS = frozenset((
    "sarcasm", "sarcastic", "reposting", "<url>", "joke", "jokes", "humour", "humor", "irony",
    "ironic", "exgag",
))  # fmt: skip
_LEFT = "holds a word that tells the label, and the authors' loader leaves such posts out"


def _count(sarcastic: int, others: int) -> Count:
    return Count(sarcastic + others, ({"sarcastic": sarcastic, "not_sarcastic": others},))


_COUNTS_1 = {"train": Count(19816), "val": _count(959, 1451), "test": _count(959, 1450)}
_COUNTS_2 = {
    "train": _count(9576, 10240), "val": _count(1042, 1368), "test": _count(1037, 1372),
}  # fmt: skip
KNOWN = (
    Known(
        "MMSD2.0", "tweets with a picture, sarcastic or not, cues removed and labels revised",
        ("sarcasm",), _COUNTS_2,
        "text_json_final/{train,valid,test}.json; dataset_image/, extract_all and MIKO's files "
        "where present",
        "the real files (texts of train and valid, no pictures)",
    ),
    Known(
        "MMSD 1.0", "tweets with a picture, sarcastic or not, hashtags kept",
        ("sarcasm", "hashtag"), _COUNTS_1,
        "text/{train,valid2,test2}.txt; dataset_image/, extract/extract_all and MIKO's files "
        "where present",
    ),
)  # fmt: skip


class _Set(NamedTuple):
    """What makes one of the two sets differ from the other; one file of `telling` must be there."""

    kind: str
    known: Known
    files: Mapping[str, str]
    telling: frozenset[str]
    table: Callable[[Path], Iterator[Row]]
    outside: Callable[[Mapping[str, Any]], str]


class _Beside(NamedTuple):
    """What lies beside the texts: pictures, and what was said of them by image id."""

    images: Path | None
    words: Mapping[str, str]
    told: Mapping[str, miko.Told]
    task: str


def layout(path: Path, wish: Wish) -> Layout | None:
    """Return the layout if the texts of either set stand in the folder."""
    for each in _SETS:
        files = {split: path / file for split, file in each.files.items()}
        files = {split: file for split, file in files.items() if file.is_file()}
        if files.keys() & each.telling:
            return _layout(path, wish, each, files)
    return None


def _layout(path: Path, wish: Wish, each: _Set, files: Mapping[str, Path]) -> Layout:
    task = chosen(path, each.known.name, wish.task, each.known.tasks)
    images, released = pictures(path / "dataset_image"), miko.files(path)
    notes = () if images else (no_pictures(path / "dataset_image"),)
    published = Published(
        each.known.name,
        SkipReport(),
        {split: count for split, count in each.known.splits.items() if count and task == "sarcasm"},
        notes=(*notes, miko.note(released)) if released else notes,
    )

    @cache
    def beside() -> _Beside:
        told = miko.told(released)
        return _Beside(images, _words(path, told), told, task)

    def source(file: Path, report: SkipReport | None) -> Iterator[Entry]:
        table = without(each.table(file), each.outside, published.left, report)
        return entries(table, partial(_post, beside()), report)

    sources: dict[str, Source] = {split: partial(source, file) for split, file in files.items()}
    return Layout(each.kind, sources, published)


def _listed(file: Path) -> Iterator[Row]:
    """Yield the rows of MMSD 1.0, a Python list a line: id, text, and one label or two."""
    for where, line in numbered_lines(file):
        name, text, *labels = _literal(line) or [None, None]
        if labels:
            # The last is a person's; of two, the first is whether the hashtag stood there.
            cells = {"image_id": name, "text": text, "label": labels[-1], "hashtag": labels[0]}
            yield Row(where, cells)
        else:
            yield Row(where, {}, "a list of id, text and label is expected")


def _literal(line: str) -> list[Any] | None:
    """Return the Python list that a line spells, read as data: nothing in it is ever run."""
    try:
        found = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and len(found) > 1 else None


def _given_away(cells: Mapping[str, Any]) -> str:
    return _LEFT if _GIVEAWAYS & set(str(cells.get("text")).split()) else ""


def _words(path: Path, told: Mapping[str, miko.Told]) -> dict[str, str]:
    """Return the caption of each image id, none where other descriptions were released.

    Two sources in one folder would teach a model which of them a post is from.
    """
    places = (path / "extract_all", path / "extract" / "extract_all")
    file = next((place for place in places if place.is_file()), None)
    if file is None or any(each.description for each in told.values()):
        return {}
    found: dict[str, str] = {}
    for where, line in numbered_lines(file):
        each = _literal(line)
        if each is None:
            raise PostError(f"{where}: a list of id and words is expected")
        name, *words = map(str, each)
        found[name] = CAPTION.format(", ".join(words))
    return found


def _post(beside: _Beside, cells: Mapping[str, Any]) -> Post:
    name = str(cells.get("image_id") or "")
    told = beside.told.get(name, miko.NOTHING)
    return post(
        beside.images and beside.images / f"{name}.jpg",
        id=name,
        text=cell(cells, "text").strip(),
        label=coded(cells, "hashtag" if beside.task == "hashtag" else "label", _CODES),
        description=told.description or beside.words.get(name),
        key_information=told.key_information,
        intentions=told.intentions,
    )


_SETS = (
    _Set("mmsd2", KNOWN[0], _SECOND, frozenset(_SECOND), listed, lambda cells: ""),
    _Set("mmsd", KNOWN[1], _FIRST, frozenset({"val", "test"}), _listed, _given_away),
)
