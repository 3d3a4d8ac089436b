"""Whether a system is unfair to a target group: what it ranks wrongly, and whom it accuses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from jaxtyping import Bool

from miko_clf import intervals
from miko_clf.evaluate.analysis.estimates import (
    NUM_RESAMPLES,
    DecidedPosts,
    bootstrap_decided_posts,
    decide_posts,
    estimate_error_rate,
    subtract_shares,
)
from miko_clf.evaluate.analysis.slices import has_enough_posts
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval

_ERROR_RATES = {"false_positive": false_positive_rate, "false_negative": false_negative_rate}
_RowMask = Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class GroupFairness:
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


def measure_group_fairness(
    subject: SystemPredictions,
    members: Mapping[str, _RowMask],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[GroupFairness]:
    """Return the groups that have `enough` posts, and others; none without a positive class.

    Intervals of areas are percentiles over the same resamples of all posts, of rates Wilson's and
    of gaps Newcombe's. What a group leaves undefined, such as a false-positive rate without
    negatives, is NaN.
    """
    rows = decide_posts(subject)
    if rows.positive is None:
        return []
    drawn = intervals.draw_weights(len(rows.truth), num_resamples, np.random.default_rng(seed))
    return [
        _measure_group(name, rows, inside, drawn)
        for name, inside in members.items()
        if has_enough_posts(inside)
    ]


def _measure_group(
    name: str, rows: DecidedPosts, inside: _RowMask, drawn: intervals.ResampleWeights
) -> GroupFairness:
    positive = rows.truth == rows.positive
    rates = _measure_rates(rows, inside)
    return GroupFairness(
        group=name,
        posts=int(inside.sum()),
        subgroup_auroc=_bound_area(rows, inside, drawn),
        bpsn_auroc=_bound_area(rows, inside ^ positive, drawn),
        bnsp_auroc=_bound_area(rows, inside == positive, drawn),
        false_positive_rate=rates["false_positive_rate"],
        false_positive_gap=rates["false_positive_gap"],
        false_negative_rate=rates["false_negative_rate"],
        false_negative_gap=rates["false_negative_gap"],
    )


def _bound_area(rows: DecidedPosts, among: _RowMask, drawn: intervals.ResampleWeights) -> Interval:
    if not among.any():
        return Interval(np.nan, np.nan, np.nan)
    return bootstrap_decided_posts(rows.of(among), drawn[:, among], ("auroc",))["auroc"]


def _measure_rates(rows: DecidedPosts, inside: _RowMask) -> dict[str, Interval]:
    """Return both error rates and both gaps; fairlearn says 0 where there is nobody to wrong."""
    truth, decided = (part == rows.positive for part in (rows.truth, rows.decided))
    frame = MetricFrame(
        metrics=_ERROR_RATES,
        y_true=truth.astype(int),
        y_pred=decided.astype(int),
        sensitive_features=np.where(inside, "inside", "outside"),
    )
    found = {}
    for name, among in (("false_positive", ~truth), ("false_negative", truth)):
        here, there = (estimate_error_rate(rows, among & side) for side in (inside, ~inside))
        if (among & inside).any():
            here = here._replace(value=float(frame.by_group.loc["inside", name]))
        found[f"{name}_rate"] = here
        found[f"{name}_gap"] = subtract_shares(here, there)
    return found
