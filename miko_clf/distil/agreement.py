"""How far raters agree, people or judges: Krippendorff's alpha, raw, and Gwet's AC1."""

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Literal, NamedTuple

import krippendorff
import numpy as np
from numpy.typing import ArrayLike

from miko_clf.data.post import Record
from miko_clf.errors import DistilError

_Level = Literal["nominal", "ordinal", "interval", "ratio"]
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # typicality as it is asked for, 1 to 5, as scores


class Agreement(Record):
    """Three figures of agreement, alpha None where it is undefined.

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


class JudgeMatch(NamedTuple):
    """Two judges of the same intentions. `typicality` is None where they do not share any, or one
    of them does not keep to the five steps."""

    one: str
    other: str
    plausibility: Agreement
    typicality: Agreement | None

    def line(self) -> str:
        """Return both agreements in one line."""
        parts = [f"{self.one} and {self.other}: plausibility {_describe(self.plausibility)}"]
        if self.typicality:
            parts.append(f"typicality {_describe(self.typicality)}")
        return "; ".join(parts)


def measure_agreement(
    ratings: ArrayLike, *, values: Sequence[float] | None = None, level: _Level = "nominal"
) -> Agreement:
    """Return how far raters agree on units; `ratings` is (rater, unit), NaN where none was given.

    `values` are all that a rater could have chosen, by default those that occur. Raises
    `DistilError` where no unit has two ratings, or a rating is none of `values`.
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2:
        raise DistilError(f"ratings have the shape {table.shape}; they must be (rater, unit)")
    rated = ~np.isnan(table)
    chosen = np.unique(table[rated])
    known = np.array(sorted(values)) if values is not None else chosen
    if strange := sorted(set(chosen) - set(known)):
        raise DistilError(f"ratings hold {strange}; allowed are {known.tolist()}")
    paired = rated.sum(axis=0) >= 2
    if not paired.any():
        raise DistilError("agreement needs a unit that two raters rated; none was given")
    return Agreement(
        raters=len(table),
        units=int(paired.sum()),
        ratings=int(rated.sum()),
        alpha=compute_alpha(table, level),
        raw=compute_raw_agreement(table),
        ac1=compute_ac1(table, known),
    )


def compute_alpha(ratings: np.ndarray, level: _Level = "nominal") -> float | None:
    """Return Krippendorff's alpha of (rater, unit), None where all ratings are one value."""
    rated = ratings[:, (~np.isnan(ratings)).sum(axis=0) >= 2]
    if len(np.unique(rated[~np.isnan(rated)])) < 2:
        return None
    return round(float(krippendorff.alpha(rated, level_of_measurement=level)), 4)


def compute_raw_agreement(ratings: np.ndarray) -> float:
    """Return the share of equal pairs of ratings of a unit, the mean over units with a pair."""
    return round(_compute_agreed(_count_values(ratings, np.unique(ratings[~np.isnan(ratings)]))), 4)


def compute_ac1(ratings: np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """Return Gwet's AC1 for several raters and missing ratings.

    Gwet, Handbook of Inter-Rater Reliability (2014), chapter 5: units with two ratings or more
    tell the agreement, all rated units the chance of each value.
    """
    counts = _count_values(ratings, np.asarray(values))
    agreed = _compute_agreed(counts)
    if len(counts) < 2:
        return 1.0
    rated = counts.sum(axis=0)
    share = (counts[:, rated > 0] / rated[rated > 0]).mean(axis=1)
    chance = float((share * (1 - share)).sum()) / (len(counts) - 1)
    return round((agreed - chance) / (1 - chance), 4)


def _count_values(ratings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many raters chose each value: (value, unit)."""
    return np.stack([(ratings == value).sum(axis=0) for value in values])


def _compute_agreed(counts: np.ndarray) -> float:
    counts = counts[:, counts.sum(axis=0) >= 2]
    rated = counts.sum(axis=0)
    return float(((counts * (counts - 1)).sum(axis=0) / (rated * (rated - 1))).mean())


def name_second_opinion(judge: str) -> str:
    """Return the name under which a judge's second opinion is kept."""
    return f"again:{judge}"


def measure_agreements(db: sqlite3.Connection) -> list[JudgeMatch]:
    """Return how far LLMs agree with themselves, and they and critics with people, or a crowd."""
    names = [name for (name,) in db.execute("SELECT DISTINCT judge FROM scores ORDER BY judge")]
    models, critics, people = (
        [name for name in names if name.startswith(kind)] for kind in ("llm:", "critic:", "human:")
    )
    pairs = [(judge, name_second_opinion(judge)) for judge in models]
    pairs += itertools.product([*models, *critics], people)
    matches = (match_judges(db, one, other) for one, other in pairs)
    return [match for match in matches if match is not None]


def match_judges(db: sqlite3.Connection, one: str, other: str) -> JudgeMatch | None:
    """Return how far two judges agree, None where no intention has both.

    A plausibility of one half or more counts as plausible. Alpha of typicality is ordinal.
    """
    rows = db.execute(
        "SELECT a.plausibility >= 0.5, b.plausibility >= 0.5, a.typicality, b.typicality "
        "FROM scores a JOIN scores b USING (post, relation, sample) "
        "WHERE a.judge = ? AND b.judge = ? "
        "AND a.plausibility IS NOT NULL AND b.plausibility IS NOT NULL",
        (one, other),
    ).fetchall()
    if not rows:
        return None
    pairs = list(zip(*((a, b) for a, b, _, _ in rows), strict=True))
    plausibility = measure_agreement(pairs, values=(0, 1))
    steps = [(a, b) for _, _, a, b in rows if a in _STEPS and b in _STEPS]
    if not steps:
        return JudgeMatch(one, other, plausibility, None)
    pairs = list(zip(*steps, strict=True))
    typicality = measure_agreement(pairs, values=_STEPS, level="ordinal")
    return JudgeMatch(one, other, plausibility, typicality)


def warn_of_own_work(db: sqlite3.Connection, model: str) -> str:
    """Return a line of warning where a model is to judge what it wrote itself, else nothing."""
    (count,) = db.execute(
        "SELECT COUNT(*) FROM uses JOIN calls USING (key) "
        "WHERE uses.task = 'intentions' AND ? IN (calls.model, calls.answered_by)",
        (model,),
    ).fetchone()
    if not count:
        return ""
    return (
        f"{model} wrote {count:,} of the answers that it is to judge; models favour their own "
        "sentences, so a judge of another family says more"
    )


def _describe(agreement: Agreement) -> str:
    alpha = "undefined" if agreement.alpha is None else f"{agreement.alpha:.3f}"
    figures = f"raw {agreement.raw:.3f}, alpha {alpha}, AC1 {agreement.ac1:.3f}"
    return f"{figures} (n={agreement.units:,})"
