"""Whether a system is unfair to a target group: what it ranks wrongly, and whom it accuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from miko_clf.evaluate.analysis import estimates
from miko_clf.evaluate.analysis.slices import has_enough_posts
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import UNDEFINED, Interval, ResampleWeights, draw_resamples


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
    predictions: SystemPredictions,
    members: Mapping[str, estimates.RowMask],
    *,
    num_resamples: int = estimates.NUM_RESAMPLES,
    seed: int = 0,
) -> list[GroupFairness]:
    """Return the groups that have, and leave, enough posts; none without a positive class.

    All intervals are over the same resamples of all posts; without threads those of rates are
    Wilson's and of gaps Newcombe's. What a group leaves undefined, such as a false-positive rate
    without negatives, is NaN.
    """
    rows = estimates.decide_posts(predictions)
    if rows.positive is None:
        return []
    weights = draw_resamples(len(rows.truth), num_resamples, seed, rows.groups)
    return [
        _measure_group(name, rows, inside, weights)
        for name, inside in members.items()
        if has_enough_posts(inside)
    ]


def _measure_group(
    name: str, rows: estimates.DecidedPosts, inside: estimates.RowMask, weights: ResampleWeights
) -> GroupFairness:
    positive = rows.truth == rows.positive
    rates = _measure_rates(rows, inside, weights)
    return GroupFairness(
        group=name,
        posts=int(inside.sum()),
        subgroup_auroc=_bound_area(rows, inside, weights),
        bpsn_auroc=_bound_area(rows, inside ^ positive, weights),
        bnsp_auroc=_bound_area(rows, inside == positive, weights),
        **rates,
    )


def _bound_area(
    rows: estimates.DecidedPosts, among: estimates.RowMask, weights: ResampleWeights
) -> Interval:
    if not among.any():
        return UNDEFINED
    return estimates.bootstrap_decided_posts(rows.of(among), weights[:, among], ("auroc",))["auroc"]


def _measure_rates(
    rows: estimates.DecidedPosts, inside: estimates.RowMask, weights: ResampleWeights
) -> dict[str, Interval]:
    """Return both error rates and both gaps; fairlearn says 0 where there is nobody to wrong."""
    truth, decided = (part == rows.positive for part in (rows.truth, rows.decided))
    fairlearn = import_module("fairlearn.metrics")  # an extra, which takes seconds to load
    frame = fairlearn.MetricFrame(
        metrics={
            "false_positive": fairlearn.false_positive_rate,
            "false_negative": fairlearn.false_negative_rate,
        },
        y_true=truth.astype(int),
        y_pred=decided.astype(int),
        sensitive_features=np.where(inside, "inside", "outside"),
    )
    rates = {}
    for name, among in (("false_positive", ~truth), ("false_negative", truth)):
        here, there = among & inside, among & ~inside
        rate = estimates.estimate_share(rows.wrong, here, weights, rows.groups)
        if here.any():
            rate = rate._replace(value=float(frame.by_group.loc["inside", name]))
        rates[f"{name}_rate"] = rate
        rates[f"{name}_gap"] = estimates.estimate_share_gap(
            rows.wrong, here, there, weights, rows.groups
        )
    return rates
