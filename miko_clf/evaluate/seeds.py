"""One system trained from several seeds: its mean, its spread, and an interval over both draws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from miko_clf import metrics
from miko_clf.evaluate.interval import Interval


class Scores(NamedTuple):
    """What one seed says of the rows: probabilities (row, label), and its own threshold."""

    probabilities: Float[np.ndarray, "row label"]
    threshold: float | None


class Spread(NamedTuple):
    """Mean and standard deviation over seeds, and the interval of the mean.

    The deviation is NaN where there is but one seed.
    """

    mean: float
    deviation: float
    low: float
    high: float


def over_seeds(
    seeds: Sequence[Scores],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Spread]:
    """Return every metric over seeds; each resample draws rows and, of them, seeds anew.

    So the interval covers other rows of the same kind and other seeds (hierarchical bootstrap;
    Davison and Hinkley, 1997, section 3.8).
    """
    names = metrics.names_for(positive)
    rows = np.arange(len(truth))
    values = _measured(seeds, truth, rows, positive, names)  # (seed, metric)
    random = np.random.default_rng(seed)
    drawn = np.array(
        [_draw(seeds, truth, positive, names, random) for _ in range(num_resamples)]
    )  # (resample, metric)
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    deviation = values.std(0, ddof=1) if len(seeds) > 1 else np.full(len(names), np.nan)
    found = zip(names, values.mean(0), deviation, low, high, strict=True)
    return {name: Spread(*map(float, row)) for name, *row in found}


def difference(
    a_seeds: Sequence[Scores],
    b_seeds: Sequence[Scores],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    metric: str = "macro_f1",
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean of a minus that of b; both are drawn on the same rows and the same seeds.

    Seed i of a and seed i of b are a pair: same initial weights of what both have, same order.
    """
    assert len(a_seeds) == len(b_seeds), "a pair needs the same seeds"
    random = np.random.default_rng(seed)

    def value(rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, " seed"]:
        a, b = (
            _measured(seeds, truth, rows, positive, [metric])[:, 0] for seeds in (a_seeds, b_seeds)
        )
        return a - b

    drawn = [
        value(random.integers(len(truth), size=len(truth)))[
            random.integers(len(a_seeds), size=len(a_seeds))
        ].mean()
        for _ in range(num_resamples)
    ]
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(float(value(np.arange(len(truth))).mean()), float(low), float(high))


def _draw(
    seeds: Sequence[Scores],
    truth: Int[np.ndarray, " row"],
    positive: int | None,
    names: Sequence[str],
    random: np.random.Generator,
) -> Float[np.ndarray, " metric"]:
    rows = random.integers(len(truth), size=len(truth))
    chosen = random.integers(len(seeds), size=len(seeds))
    drawn: Float[np.ndarray, " metric"] = _measured(seeds, truth, rows, positive, names)[
        chosen
    ].mean(0)
    return drawn


def _measured(
    seeds: Sequence[Scores],
    truth: Int[np.ndarray, " row"],
    rows: Int[np.ndarray, " row"],
    positive: int | None,
    names: Sequence[str],
) -> Float[np.ndarray, "seed metric"]:
    return np.array(
        [
            list(
                metrics.classification(
                    one.probabilities[rows],
                    truth[rows],
                    positive=positive,
                    threshold=one.threshold,
                    names=list(names),
                ).values()
            )
            for one in seeds
        ]
    )
