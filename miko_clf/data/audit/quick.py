"""The audit that costs next to nothing: no image is decoded, no text compared twice."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from miko_clf.data.audit.auroc import MIN_MARK_AUROC, measure_auroc
from miko_clf.data.audit.findings import score_lookup
from miko_clf.data.labels import flatten_label, name_label
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.text import TEXT_MARKS, normalise_text

_INPUTS = ("text", "image", "description", "intentions")
_MIN_SPLIT_POSTS = 50  # posts of a split from which on shares are compared
_MAX_SHARE_GAP = 0.2  # of the share of posts that have an input, between train and another split


def list_quick_warnings(posts_by_split: Mapping[str, Sequence[Post]]) -> list[str]:
    """Return a warning a line: posts that train shares with other splits, marks that tell a label.

    And inputs that far fewer posts of train have than of another split, or far more. Texts are
    compared without punctuation and images byte by byte; the whole audit finds more.
    """
    splits = {split: list(posts) for split, posts in posts_by_split.items() if posts}
    if "train" not in splits:
        return []
    every = [post for posts in splits.values() for post in posts]
    keys = dict(
        zip(
            map(id, every),
            zip(_normalise_texts(every), _digest_files(every), strict=True),
            strict=True,
        )
    )
    others = [split for split in splits if split != "train"]
    told = [line for split in others for line in _list_shared_posts(splits, split, keys)]
    told += [line for split in others for line in _list_uneven_inputs(splits, split)]
    return told + list(_list_telling_marks(splits["train"]))


def _list_shared_posts(
    splits: Mapping[str, Sequence[Post]], split: str, keys: Mapping[int, tuple[str, str]]
) -> Iterator[str]:
    known = {keys[id(post)] for post in splits["train"]}
    whole = sum(keys[id(post)] in known and any(keys[id(post)]) for post in splits[split])
    if whole:
        yield f"{whole} of {len(splits[split])} {split} posts stand in train, text and image alike"
    for part, name in enumerate(("text", "image")):
        rows: dict[str, list[tuple[Hashable, str]]] = {
            each: [
                (keys[id(post)][part] or None, label)
                for post in splits[each]
                if (label := name_label(post.label)) is not None
            ]
            for each in ("train", split)
        }
        found = score_lookup(name, split, rows["train"], rows[split])
        if found and found.leak:
            yield found.line()


def _list_uneven_inputs(splits: Mapping[str, Sequence[Post]], split: str) -> Iterator[str]:
    """Yield a line for each input that is there in other shares of the posts of train and split."""
    if min(len(splits["train"]), len(splits[split])) < _MIN_SPLIT_POSTS:
        return
    for name in _INPUTS:
        train, here = (
            sum(bool(getattr(post, name)) for post in splits[each]) / len(splits[each])
            for each in ("train", split)
        )
        if abs(train - here) >= _MAX_SHARE_GAP:
            yield (
                f"{name} is there in {train:.0%} of the train posts and in {here:.0%} of {split}: "
                "what is learned from one does not hold for the other"
            )


def _list_telling_marks(posts: Sequence[Post]) -> Iterator[str]:
    """Yield a line for each mark that tells a class from the rest."""
    labels = sorted({name for post in posts for name in flatten_label(post.label)})
    kept = [post for post in posts if post.label is not None and post.text is not None]
    for mark, pattern in TEXT_MARKS.items():
        numbers = np.array([float(bool(pattern.search(post.text or ""))) for post in kept])
        told = [
            (round(way.low, 6), found.value >= 0.5, way.value, label)
            for label in labels
            if (
                found := measure_auroc(
                    numbers, np.array([label in flatten_label(post.label) for post in kept])
                )
            )
            and (way := found.either_way()).low > MIN_MARK_AUROC
        ]
        if told:
            *_, value, label = max(told)
            yield f"{mark} alone tells {label} with AUROC {value:.2f}"


def _normalise_texts(posts: Sequence[Post]) -> list[str]:
    return [normalise_text(post.text) for post in posts]


def _digest_files(posts: Sequence[Post]) -> list[str]:
    """Return a digest of each image whose size another has too; other sizes have one of their own.

    An absent image has an empty one.
    """
    sizes = [_measure_size(post.image) for post in posts]
    counts = dict(zip(*np.unique(sizes, return_counts=True), strict=True))
    return [
        ""
        if post.image is None
        else digest_image(post.image)
        if counts[size] > 1
        else f"{size} bytes"
        for post, size in zip(posts, sizes, strict=True)
    ]


def _measure_size(image: Path | bytes | None) -> int:
    if image is None:
        return -1
    return image.stat().st_size if isinstance(image, Path) else len(image)
