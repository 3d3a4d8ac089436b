"""A system's answers without the system: posts, their labels, and what it says of each."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from miko_clf.data.post import Post
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.evaluate.seeds import (
    SeedDifference,
    SeedPredictions,
    estimate_difference,
    measure_seeds,
)
from miko_clf.intervals import draw_resamples
from miko_clf.questions import Question

LABELS = ("harmless", "harmful")


def make_subject(
    posts: Sequence[Post],
    truth: Sequence[int] | np.ndarray,
    said: Sequence[float] | np.ndarray,
    *,
    threshold: float | None = 0.5,
    train: Sequence[Post] = (),
) -> SystemPredictions:
    """Return a subject of two labels; `said` is the probability of the second."""
    positive = np.asarray(said, dtype=np.float64)
    return make_subject_of_labels(
        posts, truth, np.stack([1 - positive, positive], 1), LABELS, threshold, train
    )


def make_subject_of_labels(
    posts: Sequence[Post],
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    labels: tuple[str, ...],
    threshold: float | None = None,
    train: Sequence[Post] = (),
) -> SystemPredictions:
    """Return a subject of any number of labels."""
    absent = cast(Any, None)
    return SystemPredictions(
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


def make_noisy_scores(truth: np.ndarray, reach: float = 1.5, seed: int = 0) -> np.ndarray:
    """Return calibrated probabilities of a decent system: a normal score `reach` apart by class."""
    drawn = np.random.default_rng(seed).normal(size=len(truth))
    logit = reach * ((2 * truth - 1) * reach / 2 + drawn)
    return 1 / (1 + np.exp(-logit))


def posts(count: int, **fields: Any) -> list[Post]:
    """Return so many posts with texts of their own."""
    return [Post(**{"id": f"p{i}", "text": f"post number {i}", **fields}) for i in range(count)]


def draw_probabilities(seed: int, num_rows: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, with ties, that know something of the truth, which has every class."""
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(num_rows) % num_labels)
    scores = random.normal(size=(num_rows, num_labels)) + np.eye(num_labels)[truth]
    probabilities = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)
    return probabilities / probabilities.sum(1, keepdims=True), truth


def make_biased_answers(
    num_posts: int = 600, shift: float = 2.5
) -> tuple[list[Post], np.ndarray, np.ndarray]:
    """Return posts of which those that name a cat are thought harmful more than they are."""
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, num_posts)
    cats = random.random(num_posts) < 0.3
    said = make_noisy_scores(truth, 2.5)
    logit = np.log(said / (1 - said)) + shift * cats
    rows = [
        Post(id=f"p{i}", text=f"my {'Cat' if cat else 'dog'} sleeps") for i, cat in enumerate(cats)
    ]
    return rows, truth, 1 / (1 + np.exp(-logit))


def subtract_seeds(
    a: Sequence[SeedPredictions], b: Sequence[SeedPredictions], truth: np.ndarray, metric: str
) -> SeedDifference:
    """Return the mean of a minus that of b over seeds, on the same resamples of the rows."""
    weights = draw_resamples(len(truth), 100, 0)
    of_a, of_b = (
        measure_seeds(seeds, truth, weights, positive=1, names=[metric])[metric] for seeds in (a, b)
    )
    return estimate_difference(of_a - of_b)
