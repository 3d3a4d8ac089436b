"""Which posts to abstain from: conformal sets of labels, by MAPIE."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import LACConformityScore

from miko_clf.evaluate.thresholds import FEWEST_FIT_ROWS

_Rows = Float[np.ndarray, "row label"]


class _Stated:
    """A classifier, as scikit-learn knows them, of rows that are their own probabilities."""

    def __init__(self, num_labels: int) -> None:
        self.classes_ = np.arange(num_labels)

    def fit(self, rows: _Rows, truth: Int[np.ndarray, " row"]) -> "_Stated":
        """Return itself; there is nothing to learn."""
        return self

    def predict(self, rows: _Rows) -> Int[np.ndarray, " row"]:
        """Return the most probable label."""
        most_probable: Int[np.ndarray, " row"] = rows.argmax(1)
        return most_probable

    def predict_proba(self, rows: _Rows) -> _Rows:
        """Return the probabilities."""
        return rows

    def __sklearn_is_fitted__(self) -> bool:
        return True


def fit_conformal_quantile(
    probabilities: _Rows, truth: Int[np.ndarray, " row"], level: float
) -> float | None:
    """Return the quantile q such that labels of probability 1 - q or more make the conformal set.

    Sadinle, Lei & Wasserman, JASA 2019 (the least ambiguous sets). On rows that are exchangeable
    with these the set holds the true label in a share of `level` or more. None where the rows are
    too few for the level, or lack a label.
    """
    num_rows, num_labels = probabilities.shape
    fewest = max(FEWEST_FIT_ROWS, 1 / level, 1 / (1 - level))
    if num_rows <= fewest or len(np.unique(truth)) < num_labels:
        return None
    score: Any = LACConformityScore()
    model = SplitConformalClassifier(
        _Stated(num_labels), confidence_level=level, conformity_score=score, prefit=True
    )
    model.conformalize(probabilities, truth).predict_set(probabilities[:1])
    return float(score.quantiles_[0])
