"""The metrics of every report; torchmetrics computes them all."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import torch
import torchmetrics.functional.classification as measure
from jaxtyping import Float, Int
from torch import Tensor


class _Scored(NamedTuple):
    """Rows as torchmetrics takes them; `decision` is the class that was decided for."""

    probabilities: Tensor  # (row, label)
    truth: Tensor
    decision: Tensor
    positive: int | None
    bins: int

    @property
    def num_labels(self) -> int:
        return self.probabilities.shape[1]

    @property
    def lacks_a_class(self) -> bool:
        """Whether some class has nothing to be ranked above, or below."""
        return len(self.truth.unique()) < self.num_labels


def _accuracy(rows: _Scored) -> float:
    return float(measure.multiclass_accuracy(*_decided(rows), average="micro", validate_args=False))


def _macro_f1(rows: _Scored) -> float:
    return float(measure.multiclass_f1_score(*_decided(rows), average="macro", validate_args=False))


def _positive_f1(rows: _Scored) -> float:
    assert rows.positive is not None
    decided = torch.eq(rows.decision, rows.positive).long()
    true = torch.eq(rows.truth, rows.positive).long()
    if not (decided.any() or true.any()):
        return math.nan
    return float(measure.binary_f1_score(decided, true, validate_args=False))


def _auroc(rows: _Scored) -> float:
    return _ranking(rows, measure.binary_auroc, measure.multiclass_auroc)


def _average_precision(rows: _Scored) -> float:
    return _ranking(rows, measure.binary_average_precision, measure.multiclass_average_precision)


def _ece(rows: _Scored) -> float:
    return float(
        measure.multiclass_calibration_error(
            rows.probabilities,
            rows.truth,
            rows.num_labels,
            n_bins=rows.bins,
            norm="l1",
            validate_args=False,
        )
    )


def _decided(rows: _Scored) -> tuple[Tensor, Tensor, int]:
    return rows.decision, rows.truth, rows.num_labels


def _ranking(rows: _Scored, of_two: Callable[..., Tensor], of_many: Callable[..., Tensor]) -> float:
    if rows.lacks_a_class:
        return math.nan
    if rows.positive is None:
        given = (rows.probabilities, rows.truth, rows.num_labels)
        return float(of_many(*given, average="macro", validate_args=False))
    score = rows.probabilities[:, rows.positive]
    return float(of_two(score, torch.eq(rows.truth, rows.positive).long(), validate_args=False))


_MEASURES: dict[str, Callable[[_Scored], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "positive_f1": _positive_f1,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "ece": _ece,
}
NAMES = tuple(_MEASURES)


def names_for(positive: int | None) -> tuple[str, ...]:
    """Return the metrics that exist with, or without, a positive class."""
    return tuple(name for name in NAMES if name != "positive_f1" or positive is not None)


def decide(
    probabilities: Float[np.ndarray, "row label"],
    *,
    positive: int | None,
    threshold: float | None = None,
) -> Int[np.ndarray, " row"]:
    """Return the class each row is decided for.

    With a `positive` class of two: that class where its probability reaches `threshold` (.5 if
    none is given). Without one: the most probable class.
    """
    if positive is None:
        assert threshold is None, "a threshold needs a positive class"
        most_probable: Int[np.ndarray, " row"] = probabilities.argmax(1)
        return most_probable
    assert probabilities.shape[1] == 2, "a positive class needs exactly two classes"
    reached = probabilities[:, positive] >= (0.5 if threshold is None else threshold)
    return np.where(reached, positive, 1 - positive)


def classification(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    threshold: float | None = None,
    bins: int = 15,
    names: Collection[str] = NAMES,
) -> dict[str, float]:
    """Return the metrics in `names`; one that the rows leave undefined is NaN, never a number.

    With a `positive` class: its F1, AUROC and average precision. Without: `positive_f1` is absent
    and AUROC and average precision are the mean over classes, one against the rest; they are NaN
    unless `truth` holds every class. Macro-F1 is the mean over the classes that are true or decided
    somewhere. ECE is of the confidence of the most probable class, in `bins` equal-width bins, and
    so does not depend on `threshold`. Raises ValueError for probabilities outside [0, 1].
    """
    assert probabilities.ndim == 2
    assert truth.shape == probabilities.shape[:1]
    assert len(truth)
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")
    rows = _Scored(
        # torchmetrics takes anything above 1, be it by rounding, for logits
        torch.from_numpy(probabilities.clip(0, 1)),
        torch.from_numpy(truth),
        torch.from_numpy(decide(probabilities, positive=positive, threshold=threshold)),
        positive,
        bins,
    )
    return {name: _MEASURES[name](rows) for name in names_for(positive) if name in names}
