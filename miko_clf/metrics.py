"""The metrics of every report; torchmetrics computes them all."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchmetrics.functional.classification as measure
from jaxtyping import Float, Int
from torch import Tensor

from miko_clf.bundle import reaching


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
    threshold: float | Float[np.ndarray, " row"] | None = None,
) -> Int[np.ndarray, " row"]:
    """Return the class each row is decided for.

    With a `positive` class of two: that class where its probability reaches `threshold` (.5 if
    none is given), which may be one for each row; a tie does, as `bundle.reaching` says. Without
    one: the most probable class.
    """
    if positive is None:
        assert threshold is None, "a threshold needs a positive class"
        most_probable: Int[np.ndarray, " row"] = probabilities.argmax(1)
        return most_probable
    assert probabilities.shape[1] == 2, "a positive class needs exactly two classes"
    limit = reaching(np.asarray(0.5 if threshold is None else threshold))
    reached = probabilities[:, positive] >= limit
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


class _Held(NamedTuple):
    """Rows any number of whose labels may hold; `decision` is which of them are decided for."""

    probabilities: Tensor  # (row, label), as truth and decision
    truth: Tensor
    decision: Tensor
    bins: int

    def of(self, labels: Tensor) -> "_Held":
        """Return the columns of these labels alone."""
        return self._replace(
            probabilities=self.probabilities[:, labels],
            truth=self.truth[:, labels],
            decision=self.decision[:, labels],
        )


def _label_macro_f1(rows: _Held) -> float:
    known = rows.of((rows.truth | rows.decision).any(0))
    return _over_labels(measure.multilabel_f1_score, known.decision, known.truth)


def _micro_f1(rows: _Held) -> float:
    if not (rows.truth | rows.decision).any():
        return math.nan
    given = (rows.decision.long(), rows.truth.long(), rows.truth.shape[1])
    return float(measure.multilabel_f1_score(*given, average="micro", validate_args=False))


def _label_auroc(rows: _Held) -> float:
    known = rows.of(rows.truth.any(0) & ~rows.truth.all(0))
    return _over_labels(measure.multilabel_auroc, known.probabilities, known.truth)


def _mean_average_precision(rows: _Held) -> float:
    known = rows.of(rows.truth.any(0) & ~rows.truth.all(0))
    return _over_labels(measure.multilabel_average_precision, known.probabilities, known.truth)


def _subset_accuracy(rows: _Held) -> float:
    return float(torch.eq(rows.decision, rows.truth).all(1).double().mean())


def _label_ece(rows: _Held) -> float:
    found = [
        measure.binary_calibration_error(
            stated.contiguous(), held.long(), n_bins=rows.bins, norm="l1", validate_args=False
        )
        for stated, held in zip(rows.probabilities.T, rows.truth.T, strict=True)
    ]
    return float(torch.stack(found).double().mean())


def _over_labels(score: Callable[..., Tensor], said: Tensor, truth: Tensor) -> float:
    """Return the mean over labels, which torchmetrics takes for a vector where there is but one."""
    if not truth.shape[1]:
        return math.nan
    said = said.long() if said.dtype == torch.bool else said
    given = (said, truth.long(), truth.shape[1])
    return float(score(*given, average="macro", validate_args=False))


_LABEL_MEASURES: dict[str, Callable[[_Held], float]] = {
    "subset_accuracy": _subset_accuracy,
    "macro_f1": _label_macro_f1,
    "micro_f1": _micro_f1,
    "auroc": _label_auroc,
    "average_precision": _mean_average_precision,
    "ece": _label_ece,
}
LABEL_NAMES = tuple(_LABEL_MEASURES)


def multilabel(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, "row label"],
    *,
    thresholds: Sequence[float] | None = None,
    bins: int = 15,
    names: Collection[str] = LABEL_NAMES,
) -> dict[str, float]:
    """Return the metrics in `names` of rows any number of whose labels may hold.

    A label is decided for where its probability reaches its threshold (.5 if none are given).
    Macro-F1 is the mean over the labels that are true or decided somewhere, AUROC and average
    precision the mean over those that hold in some rows and not in others, ECE over all. Subset
    accuracy counts the rows that are right in every label. What the rows leave undefined is NaN.
    Raises ValueError for probabilities outside [0, 1].
    """
    assert probabilities.shape == truth.shape
    assert len(truth)
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")
    limits = np.full(truth.shape[1], 0.5) if thresholds is None else np.asarray(thresholds)
    rows = _Held(
        torch.from_numpy(probabilities.clip(0, 1)),
        torch.from_numpy(truth.astype(bool)),
        torch.from_numpy(probabilities >= reaching(limits)),
        bins,
    )
    return {name: _LABEL_MEASURES[name](rows) for name in LABEL_NAMES if name in names}
