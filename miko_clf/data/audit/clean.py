"""A copy of a data folder in which no post stands on two sides of a split."""

import json
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.audit.overlaps import ComparedPosts, measure_lookup_gains
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.splits import UNSPLIT
from miko_clf.errors import PostError
from miko_clf.manifest import write_atomically

_DROPPED_FILE = "dropped.jsonl"
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


class DroppedPost(NamedTuple):
    """A post that the copy leaves out, and the post for which it goes."""

    split: str
    id: str
    reason: str


def choose_dropped_posts(seen: ComparedPosts) -> dict[int, DroppedPost]:
    """Return by row what has to go so that nothing leaks: from train first, from test never.

    Of like posts on two sides those of the later split stay. Where a text or an image alone
    predicts the label of another split, the train posts that share it go too.
    """
    found: dict[int, DroppedPost] = {}
    for row, keeper in _find_earlier_copies(seen, "near post", seen.order):
        found[row] = _explain_drop(seen, row, keeper, "text and image are like those of")
    for each in measure_lookup_gains(seen):
        if each.leak:
            for row, keeper in _find_earlier_copies(seen, each.key, ("train", each.split)):
                found.setdefault(
                    row,
                    _explain_drop(seen, row, keeper, f"the {each.part} gives away the label of"),
                )
    return found


def write_clean_copy(seen: ComparedPosts, folder: Path) -> list[DroppedPost]:
    """Write train, val and test files of the posts that stay, and `dropped.jsonl`; return those.

    Images stay where they are and are named by a path relative to the folder; embedded ones are
    written into it. Posts of one id in two splits get the split's name in front of their id.
    Raises PostError for posts without a split and for a folder that is there already.
    """
    if UNSPLIT in seen.order:
        raise PostError(
            f"{seen.path}: holds no splits, so none leaks into another; --split-seed makes some"
        )
    check_new_folder(folder)
    out = choose_dropped_posts(seen)
    for split in seen.order:
        if all(row in out for row, place in enumerate(seen.splits) if place == split):
            raise PostError(f"{seen.path}: every post of {split} stands in a later split too")
    names = _assign_ids(seen, out)
    with write_atomically(folder) as beside:
        beside.mkdir()
        for split in seen.order:
            rows = [row for row, place in enumerate(seen.splits) if place == split]
            kept = (
                _dump_post(seen.posts[row], names[row], folder, beside)
                for row in rows
                if row not in out
            )
            _write_rows(beside / f"{split}.jsonl", kept)
        refused = (
            {"split": split, "where": where, "reason": why} for split, where, why in seen.refused
        )
        _write_rows(beside / _DROPPED_FILE, [*(each._asdict() for each in out.values()), *refused])
    return list(out.values())


def check_new_folder(folder: Path) -> None:
    """Raise PostError if the folder is there already: it would be replaced whole."""
    if folder.exists():
        raise PostError(f"{folder}: is there already; the clean copy needs a new folder")


def _find_earlier_copies(
    seen: ComparedPosts, key: str, order: Iterable[str]
) -> Iterable[tuple[int, int]]:
    """Yield each row that shares a key with one of a later split, and the first such row."""
    rank = {split: place for place, split in enumerate(order)}
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, name in enumerate(seen.keys[key]):
        if name is not None and seen.splits[row] in rank:
            groups[name].append(row)
    for rows in groups.values():
        keeper = max(rows, key=lambda row: (rank[seen.splits[row]], -row))
        last = rank[seen.splits[keeper]]
        yield from ((row, keeper) for row in rows if rank[seen.splits[row]] < last)


def _explain_drop(seen: ComparedPosts, row: int, keeper: int, why: str) -> DroppedPost:
    reason = f"{why} {seen.posts[keeper].id} of {seen.splits[keeper]}"
    return DroppedPost(seen.splits[row], seen.posts[row].id, reason)


def _assign_ids(seen: ComparedPosts, out: Mapping[int, DroppedPost]) -> dict[int, str]:
    """Return an id for each row that stays; one that two splits use is told apart by the split."""
    splits: dict[str, set[str]] = defaultdict(set)
    rows = [row for row in range(len(seen.posts)) if row not in out]
    for row in rows:
        splits[seen.posts[row].id].add(seen.splits[row])
    names = {}
    for row in rows:
        name = seen.posts[row].id
        names[row] = name if len(splits[name]) == 1 else f"{seen.splits[row]}/{name}"
    return names


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
