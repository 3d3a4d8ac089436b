"""Slices of the posts, target groups among them, and how a system does on each."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from jaxtyping import Bool
from numpy.typing import NDArray

from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.text import TEXT_MARKS
from miko_clf.errors import MikoError
from miko_clf.evaluate.analysis.estimates import NUM_RESAMPLES, decide_posts, measure_posts
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval

MIN_SLICE_POSTS = 10
"""Posts, of a slice or a group and of the rest, under which nothing is said of it."""
_MAX_TARGETS = 20
GroupWords = Mapping[str, Sequence[str]]


class GroupsError(MikoError):
    """A file of target groups cannot be used."""


def has_enough_posts(inside: NDArray[np.bool_]) -> bool:
    """Say whether a group has posts enough, and leaves enough, for something to be said of it."""
    return bool(MIN_SLICE_POSTS <= inside.sum() <= len(inside) - MIN_SLICE_POSTS)


def find_group_members(posts: Sequence[Post]) -> dict[str, NDArray[np.bool_]]:
    """Return the posts that speak of each group of people, by their `targets`: at most 20 groups.

    Those are the ones that most posts speak of. `group` says which posts belong together, and
    nothing of what they speak of.
    """
    counts = Counter(name for post in posts for name in post.targets)
    names = sorted(name for name, _ in counts.most_common(_MAX_TARGETS))
    return {name: np.array([name in post.targets for post in posts]) for name in names}


def find_word_members(posts: Sequence[Post], words: GroupWords) -> dict[str, NDArray[np.bool_]]:
    """Return the posts whose text holds one of a group's words, whole and in any case."""
    members = {}
    for name, listed in words.items():
        known = sorted(filter(str.strip, listed), key=len, reverse=True)
        if not known:  # no word would otherwise stand in every text
            continue
        either = "|".join(map(re.escape, known))
        pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
        members[name] = np.array([bool(pattern.search(post.text or "")) for post in posts])
    return members


def read_target_groups(path: Path) -> dict[str, list[str]]:
    """Return the groups of a YAML or JSON file, `{group: [words...]}`; raises `GroupsError`."""
    shape = "an object of lists of words is needed, such as {women: [woman, women]}"
    try:
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise GroupsError(f"{path}: cannot be read: {reason}") from None
    except yaml.YAMLError:
        raise GroupsError(f"{path}: is neither YAML nor JSON; {shape}") from None
    if not isinstance(groups, dict) or not groups:
        raise GroupsError(f"{path}: {shape}")
    for name, words in groups.items():
        listed = isinstance(words, list) and all(isinstance(w, str) and w.strip() for w in words)
        if not isinstance(name, str) or not listed or not words:
            raise GroupsError(f"{path}: group {str(name)[:40]!r}: {shape}")
    return groups


class SliceRows(NamedTuple):
    """Which posts a slice holds."""

    by: str
    value: str
    rows: Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class Slice:
    """How a system does on a part of the posts; a share of positives needs a positive class."""

    by: str
    value: str
    posts: int
    share_positive: float | None
    metrics: Mapping[str, Interval]


def measure_slices(
    predictions: SystemPredictions, *, num_resamples: int = NUM_RESAMPLES
) -> tuple[list[Slice], int]:
    """Return the slices, all posts first, and how many more hold fewer than 10.

    A slice that holds no post, or all but as few, is none. Lengths are cut at the terciles of the
    training texts, of the posts' own where there are no training posts.
    """
    posts, rows = predictions.posts, decide_posts(predictions)
    every = SliceRows("all", "all posts", np.ones(len(posts), dtype=bool))
    most = len(posts) - MIN_SLICE_POSTS
    cuts = [cut for cut in cut_slices(posts, predictions.train) if 0 < cut.rows.sum() <= most]
    large = [cut for cut in cuts if cut.rows.sum() >= MIN_SLICE_POSTS]
    slices = []
    for cut in [every, *large]:
        inside = rows.of(cut.rows)
        positive = inside.positive
        share = None if positive is None else float((inside.truth == positive).mean())
        metrics = measure_posts(inside, num_resamples=num_resamples)
        slices.append(Slice(cut.by, cut.value, len(inside.truth), share, metrics))
    return slices, len(cuts) - len(large)


def cut_slices(posts: Sequence[Post], train: Sequence[Post]) -> Iterator[SliceRows]:
    """Yield every slice: by length, marks, missing parts, relations that are absent, targets."""
    yield from _cut_by_length(posts, train)
    for mark, pattern in TEXT_MARKS.items():
        marked = [None if p.text is None else bool(pattern.search(p.text)) for p in posts]
        yield from _cut_in_two(mark, marked, ("in the text", "not in the text"))
    for part in ("image", "text", "description"):
        yield from _cut_in_two(part, [getattr(post, part) is not None for post in posts])
    yield from _cut_in_two("intentions", [bool(post.intentions) for post in posts])
    given = [{one.relation for one in post.intentions} for post in posts]
    for relation in RELATIONS:  # None where no intention is given at all
        yield from _cut_in_two(relation, [relation in own if own else None for own in given])
    for name, rows in find_group_members(posts).items():
        yield SliceRows("target", name, rows)


def _cut_by_length(posts: Sequence[Post], train: Sequence[Post]) -> Iterator[SliceRows]:
    known = [len(post.text) for post in train or posts if post.text is not None]
    if not known:
        return
    short, long = (int(limit) for limit in np.quantile(known, [1 / 3, 2 / 3]))
    lengths = np.array([-1 if post.text is None else len(post.text) for post in posts])
    by = "characters of the text"
    yield SliceRows(by, f"up to {short}", (lengths >= 0) & (lengths <= short))
    yield SliceRows(by, f"{short + 1} to {long}", (lengths > short) & (lengths <= long))
    yield SliceRows(by, f"over {long}", lengths > long)


def _cut_in_two(
    by: str, holds: Sequence[bool | None], values: tuple[str, str] = ("given", "absent")
) -> Iterator[SliceRows]:
    for value, wanted in zip(values, (True, False), strict=True):
        yield SliceRows(by, value, np.array([answer is wanted for answer in holds]))
