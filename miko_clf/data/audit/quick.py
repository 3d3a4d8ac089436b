"""The audit that costs next to nothing: no image is decoded, no text compared twice."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from miko_clf.data.audit.findings import MIN_MARK_AUROC, fold_auroc, measure_auroc, score_lookup
from miko_clf.data.labels import flatten_label, list_class_names, name_label
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
    texts = (normalise_text(post.text) for post in every)
    keys = iter(list(zip(texts, _digest_files(every), strict=True)))
    keys_by_split = {split: [next(keys) for _ in posts] for split, posts in splits.items()}
    others = [split for split in splits if split != "train"]
    lines = [line for split in others for line in _list_shared_posts(splits, split, keys_by_split)]
    lines += [line for split in others for line in _list_uneven_inputs(splits, split)]
    return lines + list(_list_telling_marks(splits["train"]))


def _list_shared_posts(
    splits: Mapping[str, Sequence[Post]], split: str, keys: Mapping[str, Sequence[tuple[str, str]]]
) -> Iterator[str]:
    """Yield how many posts of the split stand in train, and what looking them up there scores."""
    known = set(keys["train"])
    if whole := sum(any(key) and key in known for key in keys[split]):
        yield f"{whole} of {len(splits[split])} {split} posts stand in train, text and image alike"
    for part, name in enumerate(("text", "image")):
        rows: dict[str, list[tuple[Hashable, str]]] = {
            side: [
                (key[part] or None, label)
                for post, key in zip(splits[side], keys[side], strict=True)
                if (label := name_label(post.label)) is not None
            ]
            for side in ("train", split)
        }
        lookup = score_lookup(name, split, rows["train"], rows[split])
        if lookup and lookup.leak:
            yield lookup.line()


def _list_uneven_inputs(splits: Mapping[str, Sequence[Post]], split: str) -> Iterator[str]:
    """Yield a line for each input that is there in other shares of the posts of train and split."""
    if min(len(splits["train"]), len(splits[split])) < _MIN_SPLIT_POSTS:
        return
    for name in _INPUTS:
        train, here = (
            sum(bool(getattr(post, name)) for post in splits[side]) / len(splits[side])
            for side in ("train", split)
        )
        if abs(train - here) >= _MAX_SHARE_GAP:
            yield (
                f"{name} is there in {train:.0%} of the train posts and in {here:.0%} of {split}: "
                "what is learned from one does not hold for the other"
            )


def _list_telling_marks(posts: Sequence[Post]) -> Iterator[str]:
    """Yield a line for each mark that tells a class from the rest."""
    posts = [post for post in posts if post.label is not None]
    labels = list_class_names(posts)
    posts = [post for post in posts if post.text is not None]
    if not posts:  # pictures alone
        return
    inside = {
        label: np.array([label in flatten_label(post.label) for post in posts]) for label in labels
    }
    for mark, pattern in TEXT_MARKS.items():
        numbers = np.array([float(bool(pattern.search(post.text or ""))) for post in posts])
        telling = []
        for label in labels:
            plain = measure_auroc(numbers, inside[label])
            auroc = plain and fold_auroc(plain)
            if plain and auroc and auroc.low > MIN_MARK_AUROC:
                telling.append((round(auroc.low, 6), plain.value >= 0.5, auroc.value, label))
        if telling:
            *_, value, label = max(telling)
            yield f"{mark} alone tells {label} with AUROC {value:.2f}"


def _digest_files(posts: Sequence[Post]) -> list[str]:
    """Return a digest of each image whose size another has too; other sizes have one of their own.

    An absent image has an empty one.
    """
    sizes = [
        post.image.stat().st_size if isinstance(post.image, Path) else len(post.image or "")
        for post in posts
    ]
    counts = dict(zip(*np.unique(sizes, return_counts=True), strict=True))
    digests = []
    for post, size in zip(posts, sizes, strict=True):
        if post.image is None:
            digests.append("")
        else:
            digests.append(digest_image(post.image) if counts[size] > 1 else f"{size} bytes")
    return digests
