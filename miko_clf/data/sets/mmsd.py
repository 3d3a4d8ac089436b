"""MMSD 1.0 (Cai et al., ACL 2019) and MMSD2.0 (Qin et al., ACL 2023), on sarcasm.

Both have the words that a detector saw in each picture; what MIKO released joins either.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.post import Post
from miko_clf.data.readers import PostEntry, SkipReport, TableRow, build_entries
from miko_clf.data.sets import base, miko
from miko_clf.data.splits import FolderLayout
from miko_clf.errors import PostError

_CAPTION = "a picture with {}"
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


def _make_count(sarcastic: int, others: int) -> base.PublishedCount:
    return base.PublishedCount(
        sarcastic + others, ({"sarcastic": sarcastic, "not_sarcastic": others},)
    )


_COUNTS_1 = {
    "train": base.PublishedCount(19816),
    "val": _make_count(959, 1451),
    "test": _make_count(959, 1450),
}
_COUNTS_2 = {
    "train": _make_count(9576, 10240),
    "val": _make_count(1042, 1368),
    "test": _make_count(1037, 1372),
}
MMSD = (
    base.PublishedSet(
        "MMSD2.0", "tweets with a picture, sarcastic or not, cues removed and labels revised",
        ("sarcasm",), _COUNTS_2,
        "text_json_final/{train,valid,test}.json; dataset_image/, extract_all and MIKO's files "
        "where present",
        "the real files (texts of train and valid, no pictures)",
    ),
    base.PublishedSet(
        "MMSD 1.0", "tweets with a picture, sarcastic or not, hashtags kept",
        ("sarcasm", "hashtag"), _COUNTS_1,
        "text/{train,valid2,test2}.txt; dataset_image/, extract/extract_all and MIKO's files "
        "where present",
    ),
)  # fmt: skip


class _Edition(NamedTuple):
    """What makes one of the two sets differ from the other; one file of `telling` must be there."""

    kind: str
    known: base.PublishedSet
    files: Mapping[str, str]
    telling: frozenset[str]
    read: Callable[[Path], Iterator[TableRow]]
    outside: Callable[[Mapping[str, Any]], str]


class _Beside(NamedTuple):
    """What lies beside the texts: pictures, and what was said of them by image id."""

    images: Path | None
    captions: Mapping[str, str]
    released: Mapping[str, miko.MikoRelease]
    task: str


def recognise_mmsd(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if the texts of either set stand in the folder."""
    for edition in _EDITIONS:
        files = base.find_split_files(path, edition.files)
        if files.keys() & edition.telling:
            return _read_edition(path, options, edition, files)
    return None


def _read_edition(
    path: Path, options: base.FolderOptions, edition: _Edition, files: Mapping[str, Path]
) -> FolderLayout:
    known = edition.known
    task = base.choose_task(path, known.name, options.task, known.tasks)
    images, notes = base.find_pictures(path / "dataset_image")
    miko_files = miko.find_miko_files(path)
    if miko_files:
        notes = (*notes, miko.describe_miko_files(miko_files))
    counts = {split: count for split, count in known.splits.items() if count and task == "sarcasm"}
    published = base.PublishedFolder(known.name, SkipReport(), counts, notes=notes)

    @cache
    def read_beside() -> _Beside:
        released = miko.read_miko_files(miko_files)
        return _Beside(images, _read_captions(path, released), released, task)

    def read_tweets(file: Path, report: SkipReport | None) -> Iterator[PostEntry]:
        rows = base.leave_out_rows(edition.read(file), edition.outside, published.left, report)
        return build_entries(rows, partial(_parse_tweet, read_beside()), report)

    sources = {split: partial(read_tweets, file) for split, file in files.items()}
    return FolderLayout(edition.kind, sources, published)


def _read_lists(file: Path) -> Iterator[TableRow]:
    """Yield the rows of MMSD 1.0, a Python list a line: id, text, and one label or two."""
    for where, line in base.read_numbered_lines(file):
        name, text, *labels = _parse_literal(line) or [None, None]
        if labels:
            # The last is a person's; of two, the first is whether the hashtag stood there.
            cells = {"image_id": name, "text": text, "label": labels[-1], "hashtag": labels[0]}
            yield TableRow(where, cells)
        else:
            yield TableRow(where, {}, "a list of id, text and label is expected")


def _parse_literal(line: str) -> list[Any] | None:
    """Return the Python list that a line spells, read as data: nothing in it is ever run."""
    try:
        value = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) and len(value) > 1 else None


def _find_giveaway(cells: Mapping[str, Any]) -> str:
    return _LEFT if _GIVEAWAYS & set(str(cells.get("text")).split()) else ""


def _read_captions(path: Path, released: Mapping[str, miko.MikoRelease]) -> dict[str, str]:
    """Return the caption of each image id, none where other descriptions were released.

    Two sources in one folder would teach a model which of them a post is from.
    """
    places = (path / "extract_all", path / "extract" / "extract_all")
    file = next((place for place in places if place.is_file()), None)
    if file is None or any(post.description for post in released.values()):
        return {}
    captions: dict[str, str] = {}
    for where, line in base.read_numbered_lines(file):
        values = _parse_literal(line)
        if values is None:
            raise PostError(f"{where}: a list of id and words is expected")
        name, *words = map(str, values)
        captions[name] = _CAPTION.format(", ".join(words))
    return captions


def _parse_tweet(beside: _Beside, cells: Mapping[str, Any]) -> Post:
    name = str(cells.get("image_id") or "")
    released = beside.released.get(name, miko.MikoRelease())
    return base.build_post(
        beside.images and beside.images / f"{name}.jpg",
        id=name,
        text=base.get_cell(cells, "text").strip(),
        label=base.decode_class(cells, "hashtag" if beside.task == "hashtag" else "label", _CODES),
        description=released.description or beside.captions.get(name),
        key_information=released.key_information,
        intentions=released.intentions,
    )


_EDITIONS = (
    _Edition("mmsd2", MMSD[0], _SECOND, frozenset(_SECOND), base.read_json_list, lambda cells: ""),
    _Edition("mmsd", MMSD[1], _FIRST, frozenset({"val", "test"}), _read_lists, _find_giveaway),
)
