"""How a system does by where posts come from: month by month, and source by source."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from miko_clf.data.post import Post, parse_moment
from miko_clf.evaluate.analysis import estimates
from miko_clf.evaluate.analysis.slices import MIN_SLICE_POSTS
from miko_clf.evaluate.formatting import format_interval, get_metric_title
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval, draw_resamples

MIN_PERIOD_POSTS = 30
"""Posts under which a month is taken together with the next."""


@dataclass(frozen=True)
class OriginScore:
    """How a system does on the posts of a month, of some months in a row, or of a source.

    `positives` needs a positive class. `change` is each metric minus that of the first period, on
    the same resamples; the first period and sources have none.
    """

    value: str
    posts: int
    positives: int | None
    metrics: Mapping[str, Interval]
    change: Mapping[str, Interval] = field(default_factory=dict)


def measure_periods(
    predictions: SystemPredictions, *, num_resamples: int = estimates.NUM_RESAMPLES, seed: int = 0
) -> list[OriginScore]:
    """Return how the system does month by month, by UTC; none where there is but one period.

    A month of fewer than 30 posts is taken together with those after it, the last with those
    before. Posts without a date are left out.
    """
    months = [name_month(post) for post in predictions.posts]
    counts = Counter(month for month in months if month is not None)
    periods = merge_months(counts, MIN_PERIOD_POSTS)
    if len(periods) < 2:
        return []
    masks = {
        _name_period(period): np.array([month in period for month in months]) for period in periods
    }
    return _score_parts(predictions, masks, num_resamples, seed, changes=True)


def measure_sources(
    predictions: SystemPredictions, *, num_resamples: int = estimates.NUM_RESAMPLES, seed: int = 0
) -> tuple[list[OriginScore], dict[str, int]]:
    """Return how the system does on each source, and those with fewer than 10 posts, with counts.

    Nothing is said of posts that are all of one source.
    """
    sources = [post.source for post in predictions.posts]
    counts = Counter(source for source in sources if source is not None)
    if len(counts) < 2:
        return [], {}
    few = {name: count for name, count in sorted(counts.items()) if count < MIN_SLICE_POSTS}
    named = sorted((name for name in counts if name not in few), key=lambda n: (-counts[n], n))
    masks = {name: np.array([source == name for source in sources]) for name in named}
    return _score_parts(predictions, masks, num_resamples, seed, changes=False), few


def analyse_origins(predictions: SystemPredictions, num_resamples: int) -> dict[str, Any]:
    """Return findings by name, `over_time` and `by_source`, each where posts say enough of it."""
    periods = measure_periods(predictions, num_resamples=num_resamples)
    sources, few = measure_sources(predictions, num_resamples=num_resamples)
    findings: dict[str, Any] = {}
    if periods:
        findings["over_time"] = {
            "rows": [asdict(period) for period in periods],
            "undated": sum(post.date is None for post in predictions.posts),
            "words": describe_change(periods),
        }
    if sources or few:
        findings["by_source"] = {
            "rows": [asdict(source) for source in sources],
            "left_out": few,
        }
    return findings


def describe_change(periods: Sequence[OriginScore]) -> str:
    """Return in words whether ranking is another in the last period than in the first."""
    first, last = periods[0], periods[-1]
    change = last.change["auroc"]
    if np.isnan(change.low):
        return f"Whether AUROC changes from {first.value} to {last.value} cannot be said."
    shown = format_interval(*change, signed=True)
    between = f"from {first.value} to {last.value}"
    if change.low <= 0 <= change.high:
        return f"No evidence that AUROC changes {between}: {shown}; the interval contains 0."
    way = "falls" if change.value < 0 else "rises"
    return f"AUROC {way} {between}: {shown}; the interval excludes 0."


def list_origin_cells(
    rows: Sequence[Mapping[str, Any]], positive: str | None
) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells of the rows of `over_time` or `by_source` as text."""
    names = list(rows[0]["metrics"])
    changes = any(row["change"] for row in rows)
    titles = ["", "posts", *(["positive"] if rows[0]["positives"] is not None else [])]
    for name in names:
        title = get_metric_title(name, positive)
        titles += [title, f"{title} change"] if changes else [title]
    lines = []
    for row in rows:
        cells = [row["value"], f"{row['posts']:,}"]
        cells += [f"{row['positives']:,}"] if row["positives"] is not None else []
        for name in names:
            cells.append(format_interval(*row["metrics"][name]))
            change = row["change"].get(name)
            cells += [format_interval(*change, signed=True) if change else ""] if changes else []
        lines.append(cells)
    return titles, lines


def name_month(post: Post) -> str | None:
    """Return the month of a post in UTC, such as 2021-06, None without a date."""
    return None if post.date is None else f"{parse_moment(post.date):%Y-%m}"


def merge_months(counts: Mapping[str, int], least: int) -> list[list[str]]:
    """Return months in order, taken together until each part has `least` posts, if all have."""
    parts: list[list[str]] = []
    current: list[str] = []
    for month in sorted(counts):
        current.append(month)
        if sum(counts[name] for name in current) >= least:
            parts.append(current)
            current = []
    if current and parts:
        parts[-1] += current
    elif current:
        parts.append(current)
    return parts


def _name_period(months: Sequence[str]) -> str:
    """Return the month, or the first and the last as ISO 8601 writes an interval."""
    return months[0] if len(months) == 1 else f"{months[0]}/{months[-1]}"


def _score_parts(
    predictions: SystemPredictions,
    masks: Mapping[str, estimates.RowMask],
    num_resamples: int,
    seed: int,
    *,
    changes: bool,
) -> list[OriginScore]:
    rows = estimates.decide_posts(predictions)
    weights = draw_resamples(len(rows.truth), num_resamples, seed, rows.groups)
    names = estimates.BOOTSTRAPPED_METRICS
    first: Float[np.ndarray, "resample metric"] | None = None
    scores: list[OriginScore] = []
    for value, inside in masks.items():
        part = rows.of(inside)
        drawn: Float[np.ndarray, "resample metric"]
        drawn = estimates.measure_on_resamples(part, weights[:, inside])
        first = drawn if first is None else first
        moved = estimates.bound_columns(names, drawn - first) if changes and scores else {}
        positive = part.positive
        scores.append(
            OriginScore(
                value=value,
                posts=len(part.truth),
                positives=None if positive is None else int((part.truth == positive).sum()),
                metrics=estimates.drop_still_bounds(estimates.bound_columns(names, drawn)),
                change=moved,
            )
        )
    return scores
