"""Labels that are probably wrong, by confident learning (Northcutt et al., 2021; cleanlab)."""

import math
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from miko_clf.evaluate.predictions import SystemPredictions

_MAX_SHARE = 0.05
"""Share of the posts that are shown to a person at most."""


@dataclass(frozen=True)
class SuspectLabel:
    """A post whose label is doubtful: `likely` is the more probable one.

    `quality` is the probability of the label it has. `issue` says that confident learning too,
    which knows how sure the system is of each class on average, holds the label for wrong.
    """

    id: str
    text: str | None
    label: str
    likely: str
    quality: float
    issue: bool


def find_suspect_labels(
    predictions: SystemPredictions, *, share: float = _MAX_SHARE
) -> list[SuspectLabel]:
    """Return the posts of least label quality, the worst first: at most a share of them.

    Probabilities must be of posts that the system did not learn from, so posts of the training
    split are passed over. A post on which it agrees with the label is no suspect.
    """
    learned = {post.id for post in predictions.train}
    rows = np.array([i for i, post in enumerate(predictions.posts) if post.id not in learned])
    if not len(rows):
        return []
    stated, labels = predictions.probabilities[rows], predictions.truth[rows]
    stated = stated / stated.sum(1, keepdims=True)
    quality = get_label_quality_scores(labels, stated)
    issues = (
        find_label_issues(labels, stated, n_jobs=1) if _has_every_class(labels, stated) else None
    )
    worst = np.argsort(quality, kind="stable")[: math.ceil(share * len(rows))]
    names = predictions.question.labels
    return [
        SuspectLabel(
            id=predictions.posts[rows[at]].id,
            text=predictions.posts[rows[at]].text,
            label=names[labels[at]],
            likely=names[stated[at].argmax()],
            quality=float(quality[at]),
            issue=issues is not None and bool(issues[at]),
        )
        for at in worst
        if stated[at].argmax() != labels[at]
    ]


def _has_every_class(labels: np.ndarray, stated: np.ndarray) -> bool:
    """Return whether every class has a row, without which no class's usual confidence is known."""
    return len(np.unique(labels)) == stated.shape[1]
