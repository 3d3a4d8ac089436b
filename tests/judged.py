"""A system's answers without the system: posts, their labels, and what it says of each."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from miko_clf.data.post import Post
from miko_clf.evaluate.subject import Subject
from miko_clf.questions import Question

LABELS = ("harmless", "harmful")


def answers(
    posts: Sequence[Post],
    truth: Sequence[int] | np.ndarray,
    said: Sequence[float] | np.ndarray,
    *,
    threshold: float | None = 0.5,
    train: Sequence[Post] = (),
) -> Subject:
    """Return a subject of two labels; `said` is the probability of the second."""
    positive = np.asarray(said, dtype=np.float64)
    return of_labels(posts, truth, np.stack([1 - positive, positive], 1), LABELS, threshold, train)


def of_labels(
    posts: Sequence[Post],
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    labels: tuple[str, ...],
    threshold: float | None = None,
    train: Sequence[Post] = (),
) -> Subject:
    """Return a subject of any number of labels."""
    absent = cast(Any, None)
    return Subject(
        opened=absent,
        predictor=absent,
        posts=list(posts),
        question=Question(labels=labels),
        span=slice(0, len(labels)),
        truth=np.asarray(truth),
        arm="without",
        probabilities=probabilities,
        threshold=threshold,
        train=list(train),
        cache=None,
    )


def noisy(truth: np.ndarray, reach: float = 1.5, seed: int = 0) -> np.ndarray:
    """Return calibrated probabilities of a decent system: a normal score `reach` apart by class."""
    drawn = np.random.default_rng(seed).normal(size=len(truth))
    logit = reach * ((2 * truth - 1) * reach / 2 + drawn)
    return 1 / (1 + np.exp(-logit))


def posts(count: int, **fields: Any) -> list[Post]:
    """Return so many posts with texts of their own."""
    return [Post(**{"id": f"p{i}", "text": f"post number {i}", **fields}) for i in range(count)]
