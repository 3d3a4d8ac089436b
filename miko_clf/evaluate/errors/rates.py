"""How often some posts are decided wrongly, each figure with its interval over posts."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest

from miko_clf.evaluate import weighted
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.subject import Subject

RESAMPLES = 1000
LEVEL = 0.95
DRAWN = ("macro_f1", "auroc")
"""Metrics whose interval is a bootstrap's; that of a rate is Wilson's (1927), which holds at 0."""


class Judged(NamedTuple):
    """Posts with their answers: probabilities (row, label), and what was decided of each."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None

    def of(self, rows: Bool[np.ndarray, " row"] | Int[np.ndarray, " some"]) -> "Judged":
        """Return these rows alone."""
        return self._replace(
            probabilities=self.probabilities[rows],
            truth=self.truth[rows],
            decided=self.decided[rows],
        )


def judged(subject: Subject) -> Judged:
    """Return the posts of a subject as it judges them."""
    return Judged(subject.probabilities, subject.truth, subject.decided, subject.question.positive)


def measured(rows: Judged, *, num_resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """Return accuracy, macro-F1, AUROC and, with a positive class, both error rates.

    The interval of accuracy and of the error rates is Wilson's, of macro-F1 and AUROC the
    percentile bootstrap's; a resample that lacks a class is left out of AUROC. What the rows
    leave undefined is NaN.
    """
    hits = int((rows.decided == rows.truth).sum())
    drawn = weighted.draw(len(rows.truth), num_resamples, np.random.default_rng(seed))
    found = {"accuracy": wilson(hits, len(rows.truth)), **over_draws(rows, drawn)}
    if rows.positive is None:
        return found
    others = rows.truth != rows.positive
    return {
        **found,
        "false_positive_rate": wrong_among(rows, others),
        "false_negative_rate": wrong_among(rows, ~others),
    }


def over_draws(
    rows: Judged, drawn: weighted.Weights, names: tuple[str, ...] = DRAWN
) -> dict[str, Interval]:
    """Return the metrics of `names` with their percentile interval over the resamples.

    Bounds are NaN where no resample differs from the rows, as with few rows that are all ranked
    rightly: such resamples say nothing of other posts.
    """
    values = on_draws(rows, np.ones((1, len(rows.truth)), dtype=np.int64), names)[0]
    samples = on_draws(rows, drawn, names).T
    found = {
        name: around(float(value), sample)
        for name, value, sample in zip(names, values, samples, strict=True)
    }
    return {
        name: one if one.low < one.high else Interval(one.value, np.nan, np.nan)
        for name, one in found.items()
    }


def on_draws(
    rows: Judged, drawn: weighted.Weights, names: tuple[str, ...] = DRAWN
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics of `names` on every resample."""
    return weighted.measure(
        rows.probabilities,
        rows.truth,
        drawn,
        positive=rows.positive,
        decided=rows.decided,
        names=names,
    )


def around(value: float, sample: Float[np.ndarray, " resample"]) -> Interval:
    """Return a value and the percentiles of its resamples, of those on which it is defined."""
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def wilson(count: int, total: int) -> Interval:
    """Return a share and its Wilson score interval, NaN where there is nothing to share."""
    if not total:
        return Interval(np.nan, np.nan, np.nan)
    low, high = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Interval(count / total, float(low), float(high))


def apart(one: Interval, other: Interval) -> Interval:
    """Return the difference of two shares of different posts, from their Wilson intervals.

    Newcombe (Statistics in Medicine 1998), method 10.
    """
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, low, high)


def wrong_among(rows: Judged, among: Bool[np.ndarray, " row"]) -> Interval:
    """Return the share of wrongly decided rows among some."""
    wrong = among & (rows.decided != rows.truth)
    return wilson(int(wrong.sum()), int(among.sum()))
