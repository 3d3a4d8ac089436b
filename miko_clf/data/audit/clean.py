"""A copy of a data folder in which no post stands on two sides of a split."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.audit.overlaps import ComparedPosts, measure_lookup_gains
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.splits import UNSPLIT, group_rows
from miko_clf.errors import PostError
from miko_clf.manifest import write_atomically

_DROPPED_FILE = "dropped.jsonl"
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


class DroppedPost(NamedTuple):
    """A post that the copy leaves out, and the post for which it goes."""

    split: str
    id: str
    reason: str


def choose_dropped_posts(data: ComparedPosts) -> dict[int, DroppedPost]:
    """Return by row what has to go so that nothing leaks: from train first, from test never.

    Of like posts on two sides those of the later split stay. Where a text or an image alone
    predicts the label of another split, the train posts that share it go too.
    """
    dropped: dict[int, DroppedPost] = {}
    for row, keeper in _find_earlier_copies(data, "near post", data.order):
        dropped[row] = _explain_drop(data, row, keeper, "text and image are like those of")
    for lookup in (lookup for lookup in measure_lookup_gains(data) if lookup.leak):
        why = f"the {lookup.part} gives away the label of"
        for row, keeper in _find_earlier_copies(data, lookup.key, ("train", lookup.split)):
            dropped.setdefault(row, _explain_drop(data, row, keeper, why))
    return dropped


def write_clean_copy(data: ComparedPosts, folder: Path) -> list[DroppedPost]:
    """Write train, val and test files of the posts that stay, and `dropped.jsonl`; return those.

    Images stay where they are and are named by a path relative to the folder; embedded ones are
    written into it. Posts of one id in two splits get the split's name in front of their id.
    Raises PostError for posts without a split and for a folder that is there already.
    """
    if UNSPLIT in data.order:
        what = "holds no splits, so none leaks into another; --split-seed makes some"
        raise PostError(f"{data.path}: {what}")
    check_new_folder(folder)
    dropped = choose_dropped_posts(data)
    rows: dict[str, list[int]] = {split: [] for split in data.order}
    for row, split in enumerate(data.splits):
        if row not in dropped:
            rows[split].append(row)
    for split in data.order:
        if not rows[split]:
            raise PostError(f"{data.path}: every post of {split} stands in a later split too")
    ids = _assign_ids(data, rows)
    with write_atomically(folder) as beside:
        beside.mkdir()
        for split in data.order:
            posts = (_dump_post(data.posts[r], ids[r], folder, beside) for r in rows[split])
            _write_rows(beside / f"{split}.jsonl", posts)
        lines = [post._asdict() for post in dropped.values()]
        lines += [{"split": s, "where": where, "reason": why} for s, where, why in data.refused]
        _write_rows(beside / _DROPPED_FILE, lines)
    return list(dropped.values())


def check_new_folder(folder: Path) -> None:
    """Raise PostError if the folder is there already: it would be replaced whole."""
    if folder.exists():
        raise PostError(f"{folder}: is there already; the clean copy needs a new folder")


def _find_earlier_copies(
    data: ComparedPosts, key: str, order: Iterable[str]
) -> Iterator[tuple[int, int]]:
    """Yield each row that shares a key with one of a later split, and the first such row."""
    rank = {split: place for place, split in enumerate(order)}
    ranks = [rank.get(split) for split in data.splits]
    pairs = zip(data.keys[key], ranks, strict=True)
    for rows in group_rows([None if place is None else name for name, place in pairs]):
        keeper = max(rows, key=lambda row: (rank[data.splits[row]], -row))
        last = rank[data.splits[keeper]]
        yield from ((row, keeper) for row in rows if rank[data.splits[row]] < last)


def _explain_drop(data: ComparedPosts, row: int, keeper: int, why: str) -> DroppedPost:
    reason = f"{why} {data.posts[keeper].id} of {data.splits[keeper]}"
    return DroppedPost(data.splits[row], data.posts[row].id, reason)


def _assign_ids(data: ComparedPosts, rows: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Return an id for each row that stays; one that two splits use is told apart by the split."""
    names = {split: [data.posts[row].id for row in rows[split]] for split in rows}
    uses = Counter(name for own in names.values() for name in set(own))
    return {
        row: name if uses[name] == 1 else f"{split}/{name}"
        for split, own in names.items()
        for row, name in zip(rows[split], own, strict=True)
    }


def _dump_post(post: Post, name: str, folder: Path, beside: Path) -> dict[str, Any]:
    fields = post.model_dump(mode="json", exclude={"image"}, exclude_none=True)
    if isinstance(post.image, Path):
        fields["image"] = os.path.relpath(post.image.resolve(), folder.resolve())
    elif post.image is not None:
        fields["image"] = _write_image(post.image, beside)
    return {**fields, "id": name}


def _write_image(image: bytes, beside: Path) -> str:
    """Write an embedded image under the name of its content, and return that."""
    suffix = next((end for start, end in _SIGNATURES.items() if image.startswith(start)), "")
    name = f"{digest_image(image)[:24]}{suffix}"
    (beside / "images").mkdir(exist_ok=True)
    (beside / "images" / name).write_bytes(image)
    return f"images/{name}"


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
