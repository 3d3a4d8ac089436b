"""Parts of the posts that can be told without their label, and how a system does on each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from miko_clf.data.audit.glance import MARKS
from miko_clf.data.post import RELATIONS, Post
from miko_clf.evaluate.errors.members import group_members
from miko_clf.evaluate.errors.rates import RESAMPLES, judged, measured
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.subject import Subject

FEWEST = 10
"""Posts under which a slice is left out, and counted."""


class Cut(NamedTuple):
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


def slices(subject: Subject, *, num_resamples: int = RESAMPLES) -> tuple[list[Slice], int]:
    """Return the slices, all posts first, and how many more hold fewer than `FEWEST` posts.

    A slice that holds no post, or all but as few, is none. Lengths are cut at the terciles of the
    training texts, of the posts' own where there are no training posts.
    """
    posts, rows = subject.posts, judged(subject)
    every = Cut("all", "all posts", np.ones(len(posts), dtype=bool))
    most = len(posts) - FEWEST
    cuts = [cut for cut in cut_up(posts, subject.train) if 0 < cut.rows.sum() <= most]
    large = [cut for cut in cuts if cut.rows.sum() >= FEWEST]
    found = []
    for cut in [every, *large]:
        here = rows.of(cut.rows)
        share = None if here.positive is None else float((here.truth == here.positive).mean())
        metrics = measured(here, num_resamples=num_resamples)
        found.append(Slice(cut.by, cut.value, len(here.truth), share, metrics))
    return found, len(cuts) - len(large)


def cut_up(posts: Sequence[Post], train: Sequence[Post]) -> Iterator[Cut]:
    """Yield every slice: by length, marks, missing parts, relations that are absent and group."""
    yield from _lengths(posts, train)
    for mark, pattern in MARKS.items():
        found = [None if p.text is None else bool(pattern.search(p.text)) for p in posts]
        yield from _two(mark, found, ("in the text", "not in the text"))
    yield from _given("image", posts, lambda post: post.image is not None)
    yield from _given("text", posts, lambda post: post.text is not None)
    yield from _given("description", posts, lambda post: post.description is not None)
    yield from _given("intentions", posts, lambda post: bool(post.intentions))
    for relation in RELATIONS:
        yield from _two(relation, [_holds(relation, post) for post in posts])
    for name, rows in group_members(posts).items():
        yield Cut("group", name, rows)


def _lengths(posts: Sequence[Post], train: Sequence[Post]) -> Iterator[Cut]:
    known = [len(post.text) for post in train or posts if post.text is not None]
    if not known:
        return
    short, long = (int(limit) for limit in np.quantile(known, [1 / 3, 2 / 3]))
    lengths = np.array([-1 if post.text is None else len(post.text) for post in posts])
    by = "characters of the text"
    yield Cut(by, f"up to {short}", (lengths >= 0) & (lengths <= short))
    yield Cut(by, f"{short + 1} to {long}", (lengths > short) & (lengths <= long))
    yield Cut(by, f"over {long}", lengths > long)


def _holds(relation: str, post: Post) -> bool | None:
    """Return whether a relation is given, None where no intention is given at all."""
    return any(one.relation == relation for one in post.intentions) if post.intentions else None


def _given(by: str, posts: Sequence[Post], has: Callable[[Post], bool]) -> Iterator[Cut]:
    return _two(by, [has(post) for post in posts])


def _two(
    by: str, found: Sequence[bool | None], values: tuple[str, str] = ("given", "absent")
) -> Iterator[Cut]:
    for value, wanted in zip(values, (True, False), strict=True):
        yield Cut(by, value, np.array([each is wanted for each in found]))
