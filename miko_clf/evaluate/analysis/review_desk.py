"""At a review desk: of the posts that people can look at, which are found and which are missed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import (
    Interval,
    ResampleWeights,
    compute_percentile_interval,
    draw_resamples,
)

CAPACITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of all posts that people look at, the likeliest first."""
_RESAMPLES_AT_ONCE = 50
_FEWEST_REVIEWED = 5  # posts, under which nothing is said of a capacity


class ReviewLoad(NamedTuple):
    """What people find who look at a share of the posts, those likeliest to be positive.

    `precision` is the share of positives among what they look at, `missed` the share of all
    positives that they do not see, and `lift` how many times more positives they see than in as
    many posts drawn by chance. `reviewed` posts of these are looked at.
    """

    capacity: float
    reviewed: int
    precision: Interval
    missed: Interval
    lift: Interval


def measure_review_desk(
    predictions: SystemPredictions,
    capacities: Sequence[float] = CAPACITIES,
    num_resamples: int = 1000,
) -> list[ReviewLoad]:
    """Return what each capacity comes to; none where there is no positive class.

    A resample is ranked anew, so that its own share of posts is looked at. Where several posts
    stand at the border with one probability, each is looked at in part.
    """
    positive = predictions.question.positive
    truth = predictions.truth == positive
    if positive is None or not truth.any():
        return []
    weights = draw_resamples(len(truth), num_resamples, 0, predictions.groups)
    stated = predictions.probabilities[:, positive]
    return [
        load
        for capacity in capacities
        if (load := _measure_load(stated, truth, weights, capacity)).reviewed >= _FEWEST_REVIEWED
    ]


def _measure_load(
    stated: Float[np.ndarray, " row"],
    truth: Bool[np.ndarray, " row"],
    weights: ResampleWeights,
    capacity: float,
) -> ReviewLoad:
    seen, positives = _review(stated, truth, weights, capacity)
    counts, totals = weights @ truth, weights.sum(1)
    looked_at = capacity * totals
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {
            "precision": positives / looked_at,
            "missed": np.where(counts > 0, 1 - positives / counts, np.nan),
            "lift": np.where(counts > 0, positives / looked_at / (counts / totals), np.nan),
        }
    figures = {
        name: compute_percentile_interval(values[0], values[1:]) for name, values in shares.items()
    }
    return ReviewLoad(capacity, round(float(seen[0])), **figures)


def _review(
    stated: Float[np.ndarray, " row"],
    truth: Bool[np.ndarray, " row"],
    weights: ResampleWeights,
    capacity: float,
) -> tuple[Float[np.ndarray, " resample"], Float[np.ndarray, " resample"]]:
    """Return how many posts of each resample are looked at, and how many of them are positive."""
    order = np.argsort(-stated, kind="stable")
    falling, positive = stated[order], truth[order]  # the likeliest first
    # Rows of one probability stand side by side, and each is looked at in the same part.
    starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
    seen, found = [], []
    for first in range(0, len(weights), _RESAMPLES_AT_ONCE):
        ranked = weights[first : first + _RESAMPLES_AT_ONCE, order].astype(np.float64)
        held = np.add.reduceat(ranked, starts, axis=1)  # (resample, probability)
        held_positive = np.add.reduceat(ranked * positive, starts, axis=1)
        room = capacity * ranked.sum(1, keepdims=True) - (held.cumsum(1) - held)
        share = np.clip(np.divide(room, held, out=np.zeros_like(held), where=held > 0), 0, 1)
        seen.append((share * held).sum(1))
        found.append((share * held_positive).sum(1))
    return np.concatenate(seen), np.concatenate(found)
