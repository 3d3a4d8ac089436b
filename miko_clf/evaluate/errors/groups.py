"""Whether a system is unfair to a target group: what it ranks wrongly, and whom it accuses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from jaxtyping import Bool

from miko_clf.evaluate import weighted
from miko_clf.evaluate.errors.members import enough
from miko_clf.evaluate.errors.rates import RESAMPLES, Judged, apart, judged, over_draws, wrong_among
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.subject import Subject

_RATES = {"false_positive": false_positive_rate, "false_negative": false_negative_rate}
Rows = Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class Group:
    """How the posts of one target group fare; a gap is its rate minus that of all other posts.

    The areas are those of Borkan et al. (WWW 2019 companion): within the group; of the others'
    positives over the group's negatives (BPSN: low where the group is accused too easily); of the
    group's positives over the others' negatives (BNSP: low where it is spared too easily).
    """

    group: str
    posts: int
    subgroup_auroc: Interval
    bpsn_auroc: Interval
    bnsp_auroc: Interval
    false_positive_rate: Interval
    false_positive_gap: Interval
    false_negative_rate: Interval
    false_negative_gap: Interval


def groups(
    subject: Subject, members: Mapping[str, Rows], *, num_resamples: int = RESAMPLES, seed: int = 0
) -> list[Group]:
    """Return the groups that have `enough` posts, and others; none without a positive class.

    Intervals of areas are percentiles over the same resamples of all posts, of rates Wilson's and
    of gaps Newcombe's. What a group leaves undefined, such as a false-positive rate without
    negatives, is NaN.
    """
    rows = judged(subject)
    if rows.positive is None:
        return []
    drawn = weighted.draw(len(rows.truth), num_resamples, np.random.default_rng(seed))
    return [_group(name, rows, inside, drawn) for name, inside in members.items() if enough(inside)]


def _group(name: str, rows: Judged, inside: Rows, drawn: weighted.Weights) -> Group:
    positive = rows.truth == rows.positive
    rates = _rates(rows, inside)
    return Group(
        group=name,
        posts=int(inside.sum()),
        subgroup_auroc=_area(rows, inside, drawn),
        bpsn_auroc=_area(rows, inside ^ positive, drawn),
        bnsp_auroc=_area(rows, inside == positive, drawn),
        false_positive_rate=rates["false_positive_rate"],
        false_positive_gap=rates["false_positive_gap"],
        false_negative_rate=rates["false_negative_rate"],
        false_negative_gap=rates["false_negative_gap"],
    )


def _area(rows: Judged, among: Rows, drawn: weighted.Weights) -> Interval:
    if not among.any():
        return Interval(np.nan, np.nan, np.nan)
    return over_draws(rows.of(among), drawn[:, among], ("auroc",))["auroc"]


def _rates(rows: Judged, inside: Rows) -> dict[str, Interval]:
    """Return both error rates and both gaps; fairlearn says 0 where there is nobody to wrong."""
    truth, decided = (part == rows.positive for part in (rows.truth, rows.decided))
    frame = MetricFrame(
        metrics=_RATES,
        y_true=truth.astype(int),
        y_pred=decided.astype(int),
        sensitive_features=np.where(inside, "inside", "outside"),
    )
    found = {}
    for name, among in (("false_positive", ~truth), ("false_negative", truth)):
        here, there = (wrong_among(rows, among & side) for side in (inside, ~inside))
        if (among & inside).any():
            here = here._replace(value=float(frame.by_group.loc["inside", name]))
        found[f"{name}_rate"] = here
        found[f"{name}_gap"] = apart(here, there)
    return found
