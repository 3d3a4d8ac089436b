"""How far raters agree: Krippendorff's alpha, raw agreement and Gwet's AC1, side by side."""

from collections.abc import Callable, Sequence
from typing import Literal

import krippendorff
import numpy as np
from numpy.typing import ArrayLike

from miko_clf.data.post import Record
from miko_clf.errors import DistilError

Level = Literal["nominal", "ordinal", "interval", "ratio"]
Interval = tuple[float, float]


class Agreement(Record):
    """Three figures of agreement, None where one is undefined, and 95 % intervals if asked for.

    Alpha is of the level given; raw agreement and AC1 count two ratings as equal or not. Where
    nearly all ratings are alike alpha falls far below the other two: read the three together.
    """

    raters: int
    units: int
    """Units with two ratings or more."""
    ratings: int
    alpha: float | None
    raw: float
    ac1: float
    alpha_interval: Interval | None = None
    raw_interval: Interval | None = None
    ac1_interval: Interval | None = None


def agreement(
    ratings: ArrayLike,
    *,
    values: Sequence[float] | None = None,
    level: Level = "nominal",
    draws: int = 0,
    seed: int = 0,
) -> Agreement:
    """Return how far raters agree on units; `ratings` is (rater, unit), NaN where none was given.

    `values` are all that a rater could have chosen, by default those that occur. With `draws`,
    intervals are percentiles over that many resamplings of the units. Raises `DistilError`
    where no unit has two ratings, or a rating is none of `values`.
    """
    table = _table(ratings)
    chosen = np.unique(table[~np.isnan(table)])
    known = np.array(sorted(values)) if values is not None else chosen
    if strange := sorted(set(chosen) - set(known)):
        raise DistilError(f"ratings hold {strange}; allowed are {known.tolist()}")
    pairs = (~np.isnan(table)).sum(axis=0) >= 2
    if not pairs.any():
        raise DistilError("agreement needs a unit that two raters rated; none was given")
    figures: dict[str, Callable[[np.ndarray], float | None]] = {
        "alpha": lambda some: alpha(some, level),
        "raw": raw,
        "ac1": lambda some: ac1(some, known),
    }
    found: dict[str, object] = {name: figure(table) for name, figure in figures.items()}
    if draws:
        found |= {
            f"{name}_interval": _interval(figure, table, draws, seed)
            for name, figure in figures.items()
        }
    return Agreement.model_validate(
        {
            "raters": len(table),
            "units": int(pairs.sum()),
            "ratings": int((~np.isnan(table)).sum()),
            **found,
        }
    )


def alpha(ratings: np.ndarray, level: Level = "nominal") -> float | None:
    """Return Krippendorff's alpha of (rater, unit), None where all ratings are one value."""
    rated = ratings[:, (~np.isnan(ratings)).sum(axis=0) >= 2]
    if len(np.unique(rated[~np.isnan(rated)])) < 2:
        return None
    return round(float(krippendorff.alpha(rated, level_of_measurement=level)), 4)


def raw(ratings: np.ndarray) -> float:
    """Return the share of equal pairs of ratings of a unit, the mean over units with a pair."""
    return round(_agreed(_counts(ratings, np.unique(ratings[~np.isnan(ratings)]))), 4)


def ac1(ratings: np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """Return Gwet's AC1 for several raters and missing ratings.

    Gwet, Handbook of Inter-Rater Reliability (2014), chapter 5: units with two ratings or more
    tell the agreement, all rated units the chance of each value.
    """
    counts = _counts(ratings, np.asarray(values))
    agreed = _agreed(counts)
    if len(counts) < 2:
        return 1.0
    each = counts.sum(axis=0)
    share = (counts[:, each > 0] / each[each > 0]).mean(axis=1)
    chance = float((share * (1 - share)).sum()) / (len(counts) - 1)
    return round((agreed - chance) / (1 - chance), 4)


def _table(ratings: ArrayLike) -> np.ndarray:
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2:
        raise DistilError(f"ratings have the shape {table.shape}; they must be (rater, unit)")
    return table


def _counts(ratings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many raters chose each value: (value, unit)."""
    return np.stack([(ratings == value).sum(axis=0) for value in values])


def _agreed(counts: np.ndarray) -> float:
    each = counts.sum(axis=0)
    counts, each = counts[:, each >= 2], each[each >= 2]
    return float(((counts * (counts - 1)).sum(axis=0) / (each * (each - 1))).mean())


def _interval(
    figure: Callable[[np.ndarray], float | None], table: np.ndarray, draws: int, seed: int
) -> Interval | None:
    """Return the middle 95 % of a figure over units drawn with replacement."""
    random = np.random.default_rng(seed)
    rated = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    drawn = (
        figure(rated[:, random.integers(rated.shape[1], size=rated.shape[1])]) for _ in range(draws)
    )
    found = [value for value in drawn if value is not None]
    if not found:
        return None
    low, high = np.percentile(found, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)
