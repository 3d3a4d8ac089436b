"""What a system scores on the posts that it was not fitted on, where it was fitted on some."""

from typing import Any

import numpy as np

from miko_clf.evaluate.bootstrap import bootstrap_scores
from miko_clf.evaluate.lockbox import find_overlap
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import RowGroups

_NUM_EXAMPLES = 5
_FEWEST_LEFT = 10  # posts, under which nothing is said of the rest


def measure_overlap(predictions: SystemPredictions, num_resamples: int) -> dict[str, Any]:
    """Return `overlap`: how many posts it knew, and every metric with them and without.

    Empty where it knew none, or does not know.
    """
    found = find_overlap(predictions.opened, predictions.posts)
    if found is None or not found.rows:
        return {}
    rest = np.ones(len(predictions.posts), dtype=bool)
    everyone = rest.copy()
    rest[found.rows] = False
    sides = {"with": everyone}
    if rest.sum() >= _FEWEST_LEFT:
        sides["without"] = rest
    return {
        "overlap": {
            "posts": len(found.rows),
            "of": len(predictions.posts),
            "examples": [predictions.posts[row].id for row in found.rows[:_NUM_EXAMPLES]],
            "same_text": found.same_text,
            "same_image": found.same_image,
            **{name: _score(predictions, rows, num_resamples) for name, rows in sides.items()},
        }
    }


def _score(predictions: SystemPredictions, rows: np.ndarray, num_resamples: int) -> dict[str, Any]:
    return bootstrap_scores(
        predictions.probabilities[rows],
        predictions.truth[rows],
        positive=predictions.question.positive,
        threshold=predictions.threshold,
        groups=_renumber(predictions.groups, rows),
        num_resamples=num_resamples,
    )


def _renumber(groups: RowGroups, rows: np.ndarray) -> RowGroups:
    return None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
