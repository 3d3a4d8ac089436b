"""Significance tests of two systems on the same rows: McNemar, permutation, Holm."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats
from statsmodels.stats.multitest import multipletests

from miko_clf.evaluate.seeds import SeedPredictions
from miko_clf.intervals import RowGroups
from miko_clf.metrics import measure_resamples

_RANKED = ("auroc", "average_precision")


def compute_mcnemar_p(
    a_right: Bool[np.ndarray, " row"], b_right: Bool[np.ndarray, " row"]
) -> float:
    """Return the mid-p value of both being right equally often (Fagerland et al., BMC 2013).

    Only rows that one is right of and the other wrong count; without any it is 1.
    """
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    differing, fewer = only_a + only_b, min(only_a, only_b)
    if not differing or only_a == only_b:
        return 1.0
    # half of what is as extreme as seen
    tail = stats.binom.cdf(fewer, differing, 0.5) - stats.binom.pmf(fewer, differing, 0.5) / 2
    return float(2 * tail)


def compute_permutation_p(
    a_seeds: Sequence[SeedPredictions],
    b_seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    metric: str,
    groups: RowGroups = None,
    num_permutations: int = 2000,
    seed: int = 0,
) -> float:
    """Return the p-value of a and b being alike on these rows, for these trained models.

    Each permutation swaps what a and b say of half the rows, for all seeds alike, and asks whether
    the mean difference is as far from 0 as the one seen (Fisher 1935; Noreen 1989). Scores are
    ranks within a system, and within a stratum of it, where the metric reads ranks, as their scales
    may differ (Bandos et al., Statistics in Medicine 2005). Rows of one of the `groups`, numbers
    from 0, are swapped together.
    """
    assert len(a_seeds) == len(b_seeds), "a pair needs the same seeds"
    random = np.random.default_rng(seed)
    if groups is None:
        groups = np.arange(len(truth))
    swapped = random.integers(0, 2, (num_permutations, int(groups.max()) + 1))[:, groups]
    swapped = np.concatenate([np.zeros((1, len(truth)), dtype=swapped.dtype), swapped])
    sides = np.concatenate([1 - swapped, swapped], axis=1)  # (permutation, row of a then of b)
    twice = np.concatenate([truth, truth])
    total = np.zeros(len(sides))
    for a, b in zip(a_seeds, b_seeds, strict=True):
        both = np.concatenate([_make_comparable(system, metric) for system in (a, b)])
        decided = np.concatenate([system.decided(positive) for system in (a, b)])
        strata = None if a.strata is None else np.concatenate([a.strata, a.strata])
        for sign, weights in ((1, sides), (-1, 1 - sides)):
            values = measure_resamples(
                both,
                twice,
                weights,
                positive=positive,
                decided=decided,
                strata=strata,
                names=[metric],
            )
            total += sign * values[:, 0] / len(a_seeds)
    if np.isnan(total[0]):
        return np.nan
    beyond = np.abs(total[1:]) >= abs(total[0]) - 1e-12
    return float((1 + beyond.sum()) / (1 + num_permutations))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values once all are asked together (Holm 1979); NaN stays and does not count."""
    adjusted = np.array(p_values, dtype=float)
    known = ~np.isnan(adjusted)
    if known.any():
        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted.tolist()


def _make_comparable(predictions: SeedPredictions, metric: str) -> Float[np.ndarray, "row label"]:
    probabilities, strata = predictions.probabilities, predictions.strata
    if metric not in _RANKED:
        return probabilities
    ranks = np.empty(probabilities.shape)
    strata = np.zeros(len(ranks), dtype=np.int64) if strata is None else strata
    for here in (strata == stratum for stratum in np.unique(strata)):
        ranks[here] = stats.rankdata(probabilities[here], axis=0)
    return ranks
