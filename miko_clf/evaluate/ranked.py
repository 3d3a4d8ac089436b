"""Curves of systems over seeds: the mean of the seeds, and a band for other rows and seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from miko_clf.evaluate.comparison import Arm
from miko_clf.evaluate.heights import GRID, heights
from miko_clf.evaluate.seeds import Drawn, Scores, resamples, spread

_NUM_RESAMPLES = 200  # a band takes a variance from them, no quantile


def ranked(
    arms: Sequence[Arm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: Int[np.ndarray, " row"] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return, for each system and arm, its points (x, y, low, high) of both curves.

    The mean over seeds at each place of `heights.GRID`, with the 95 % interval that `seeds.gap`
    gives it there. A curve that some seed does not have is empty. A tenth of a second a seed and
    arm for 354 rows.
    """
    weights = resamples(len(truth), _NUM_RESAMPLES, seed, groups)
    return [
        {"system": arm.system, "arm": arm.arm, **_curves(arm.seeds, truth, weights, positive)}
        for arm in arms
    ]


def _curves(
    seeds: Sequence[Scores],
    truth: Int[np.ndarray, " row"],
    weights: Int[np.ndarray, "resample row"],
    positive: int | None,
) -> dict[str, list[dict[str, float]]]:
    every = [
        heights(one.probabilities, truth, weights, positive=positive, strata=one.strata)
        for one in seeds
    ]
    found = {}
    for name in every[0]:
        values = np.stack([each[name] for each in every], axis=1)  # (resample, seed, place)
        defined = not np.isnan(values[0]).any()
        found[name] = [_point(x, values[..., at]) for at, x in enumerate(GRID)] if defined else []
    return found


def _point(x: float, values: np.ndarray) -> dict[str, float]:
    """Return a place of a curve from its heights, (resample, seed), the rows as they are first."""
    at = spread(Drawn(values[0], values[1:]))
    named = {"x": x, "y": at.mean, "low": at.low, "high": at.high}
    return {name: round(float(each), 4) for name, each in named.items()}
