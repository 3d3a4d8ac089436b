"""One system trained from several seeds: mean, spread, an interval over rows and seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from miko_clf.intervals import ResampleWeights, RowGroups, draw_resamples
from miko_clf.metrics import decide_labels, list_metrics, measure_resamples

_POWER = 0.8  # with which `SeedDifference.smallest` would have been found
_NOTHING = 1e-12  # what sums of equal numbers may leave


class SeedPredictions(NamedTuple):
    """What one seed says of the rows: probabilities (row, label), and its own threshold.

    Of a cross-validation each row has the threshold of its fold, `folds` says which that is, from
    0, and rows of different `strata` are not ranked among each other.
    """

    probabilities: Float[np.ndarray, "row label"]
    threshold: float | Float[np.ndarray, " row"] | None
    strata: Int[np.ndarray, " row"] | None = None
    folds: Int[np.ndarray, " row"] | None = None

    def decided(self, positive: int | None) -> Int[np.ndarray, " row"]:
        """Return the label that each row is decided for."""
        return decide_labels(self.probabilities, positive=positive, threshold=self.threshold)


class SeedSummary(NamedTuple):
    """Mean and standard deviation over seeds (NaN for one seed), and the interval of the mean."""

    mean: float
    deviation: float
    low: float
    high: float


class SeedDifference(NamedTuple):
    """How much a mean over seeds is above another: the interval, and the p-value of no gap.

    `smallest` is the gap that these rows and seeds would have found four times in five. A mean
    that neither rows nor seeds move has no `smallest`, and no interval or p-value unless it is 0.
    """

    value: float
    low: float
    high: float
    p: float
    smallest: float


class SeedMetric(NamedTuple):
    """A metric of each seed on the rows as they are, (seed,), and on resamples of them.

    Of a cross-validation `folds` are those of each fold's rows alone, NaN where it has none.
    """

    here: Float[np.ndarray, " seed"]
    resampled: Float[np.ndarray, "resample seed"]
    folds: Float[np.ndarray, "seed fold"] | None = None

    def __sub__(self, other: "SeedMetric") -> "SeedMetric":
        return self.subtract(other)

    def subtract(self, other: "SeedMetric", times: float = 1.0) -> "SeedMetric":
        """Return the difference from so many times the other, seed by seed."""
        folds = None
        if self.folds is not None and other.folds is not None:
            folds = self.folds - times * other.folds
        return SeedMetric(
            self.here - times * other.here, self.resampled - times * other.resampled, folds
        )


def summarise_seeds(
    seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, SeedSummary]:
    """Return every metric over seeds; its interval covers other rows and other seeds."""
    weights = draw_resamples(len(truth), num_resamples, seed, groups)
    measured = measure_seeds(seeds, truth, weights, positive=positive)
    return {name: summarise_metric(values, level) for name, values in measured.items()}


def measure_seeds(
    seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    weights: ResampleWeights,
    *,
    positive: int | None,
    names: Sequence[str] | None = None,
) -> dict[str, SeedMetric]:
    """Return metrics of each seed on the resamples that `draw_resamples` made."""
    wanted = list_metrics(positive) if names is None else names
    values = np.stack(
        [
            measure_resamples(
                predictions.probabilities,
                truth,
                weights,
                positive=positive,
                decided=predictions.decided(positive),
                strata=predictions.strata,
                names=wanted,
            )
            for predictions in seeds
        ],
        axis=-1,
    )  # (resample, metric, seed)
    folds = _measure_folds(seeds, truth, positive, wanted)
    return {
        name: SeedMetric(
            values[0, place], values[1:, place], None if folds is None else folds[..., place]
        )
        for place, name in enumerate(wanted)
    }


def _measure_folds(
    seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    positive: int | None,
    names: Sequence[str],
) -> Float[np.ndarray, "seed fold metric"] | None:
    """Return metrics of each fold's rows alone, None where rows were not asked about in folds."""
    measured = []
    for predictions in seeds:
        if predictions.folds is None:
            return None
        numbers = np.arange(int(predictions.folds.max()) + 1)
        measured.append(
            measure_resamples(
                predictions.probabilities,
                truth,
                (predictions.folds == numbers[:, None]).astype(np.int64),
                positive=positive,
                decided=predictions.decided(positive),
                strata=predictions.strata,
                names=names,
            )
        )
    return np.stack(measured)


def estimate_difference(
    values: SeedMetric, level: float = 0.95, family: int = 1, looks: int = 1
) -> SeedDifference:
    """Return the mean over seeds, its interval within [-1, 1], and the p-value of its being 0.

    The variance has two parts. Rows: that of the mean over seeds between bootstrap resamples of
    the rows. Seeds: what the seeds differ by beyond what the rows of this one set make of them. The
    second is known from a few seeds alone, so the quantile is Student's, with the degrees of
    freedom of Satterthwaite (Biometrics 1946). Resampling five seeds instead covers too little:
    88 % where seeds are most of the variance (`docs/lab-notes.md`). `smallest` is of a test that
    must stand among a `family` of them (Bonferroni, which is what Holm asks of the first).

    All folds of all seeds learn from the same posts, and what these make of a model moves neither
    part. So of a cross-validation the error is at least that of Nadeau and Bengio (Machine Learning
    2003): the variance between the folds of all seeds, times 1 / folds of all seeds + rows asked
    about / rows learned from.

    Who adds seeds and looks again finds by chance what is not there. So the k-th of the `looks`
    has 1 / k^2 of the level (alpha spending; Lan and DeMets, Biometrika 1983), and its p-value is
    k^2 times as large. Over looks at 3, 5, 10 and 20 seeds, where seeds alone differ, 6 % of runs
    then find something, and 16 % without (`docs/lab-notes.md`).
    """
    mean, error, freedom = _estimate_error(values)
    if np.isnan(mean) or np.isnan(error):
        return SeedDifference(mean, np.nan, np.nan, np.nan, np.nan)
    if error < _NOTHING:
        bounds = (mean, mean, 1.0) if abs(mean) < _NOTHING else (np.nan, np.nan, np.nan)
        return SeedDifference(mean, *bounds, np.nan)
    missed = (1 - level) / looks**2
    reach = float(stats.t.ppf(1 - missed / 2, freedom))
    beyond = float(stats.t.ppf(1 - missed / (2 * family), freedom))
    smallest = (beyond + float(stats.t.ppf(_POWER, freedom))) * error
    p = min(1.0, float(2 * stats.t.sf(abs(mean) / error, freedom)) * looks**2)
    low, high = (float(np.clip(mean + way * reach * error, -1, 1)) for way in (-1, 1))
    return SeedDifference(mean, low, high, p, smallest)


def compute_equivalence_p(values: SeedMetric, margin: float) -> float:
    """Return the p-value of a mean over seeds being as far as `margin` from 0, or farther.

    The larger of two one-sided tests (Schuirmann, 1987), with the error of `estimate_difference`.
    NaN where that is undefined.
    """
    mean, error, freedom = _estimate_error(values)
    if np.isnan(mean) or np.isnan(error):
        return np.nan
    if error < _NOTHING:
        return float(abs(mean) >= margin)
    return float(stats.t.sf((margin - abs(mean)) / error, freedom))


def summarise_metric(values: SeedMetric, level: float = 0.95) -> SeedSummary:
    """Return mean and deviation over seeds, and the interval of the mean, within [0, 1]."""
    mean, error, freedom = _estimate_error(values)
    deviation = float(values.here.std(ddof=1)) if len(values.here) > 1 else np.nan
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error if error >= _NOTHING else error
    low, high = (float(np.clip(mean + way * reach, 0, 1)) for way in (-1, 1))
    return SeedSummary(mean, deviation, low, high)


def _estimate_error(values: SeedMetric) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom."""
    mean, error, freedom = _estimate_error_of_draws(values)
    if values.folds is None or np.isnan(error):
        return mean, error, freedom
    known = values.folds[~np.isnan(values.folds)]
    if len(known) < 2:
        return mean, error, freedom
    asked = 1 / (values.folds.shape[1] - 1)  # rows asked about for each that is learned from
    corrected = float(np.sqrt((1 / len(known) + asked) * known.var(ddof=1)))
    return (mean, corrected, len(known) - 1.0) if corrected > error else (mean, error, freedom)


def _estimate_error_of_draws(values: SeedMetric) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom over other rows and other seeds."""
    num_seeds, mean = len(values.here), float(values.here.mean())
    whole = values.resampled[~np.isnan(values.resampled).any(1)]
    if len(whole) < 2:
        return mean, np.nan, np.inf
    between = np.atleast_2d(np.cov(whole.T))  # (seed, seed), over resamples of rows
    of_rows = float(between.mean())
    if num_seeds == 1:
        return mean, float(np.sqrt(of_rows)), np.inf
    shared = float((between.sum() - np.trace(between)) / (num_seeds * (num_seeds - 1)))
    of_seeds = float(values.here.var(ddof=1)) / num_seeds
    total = shared + of_seeds
    if total <= of_rows or of_seeds < 1e-9 * total:  # seeds differ no more than rows make them
        return mean, float(np.sqrt(max(of_rows, 0))), np.inf
    return mean, float(np.sqrt(total)), (num_seeds - 1) * (total / of_seeds) ** 2
