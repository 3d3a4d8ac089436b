"""What the page draws of one system: ROC, precision against recall, confusion, training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.metrics import confusion_matrix

from miko_clf import bundle
from miko_clf.evaluate.heights import GRID, Heights, heights
from miko_clf.evaluate.interval import Interval, bootstrap
from miko_clf.evaluate.subject import Subject
from miko_clf.evaluate.weighted import draw

_LOSSES = 200  # points of a stage's training loss that are kept


@dataclass(frozen=True)
class Point:
    """The height of a curve at `x`, and the bounds that the bootstrap puts around it there."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curves:
    """Curves of one system on labelled posts; `confusion` (label, decided) counts posts.

    `learning` are lines of the bundle's `metrics.jsonl`, with the training losses thinned.
    """

    roc: list[Point]
    precision_recall: list[Point]
    area: dict[str, Interval]
    confusion: list[list[int]]
    labels: list[str]
    learning: list[dict[str, Any]]


def curves(subject: Subject, *, num_resamples: int = 1000, seed: int = 0) -> Curves:
    """Return the curves of a system with their bands, 95 % at each place by itself.

    Bands are percentiles over bootstrap resamples of the `heights`. Half a second for 1000
    resamples of 354.
    """
    truth, said = subject.truth, subject.probabilities
    weights = draw(len(truth), num_resamples, np.random.default_rng(seed))
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    positive, labels = subject.question.positive, list(subject.question.labels)
    found = heights(said, truth, weights, positive=positive)
    metrics = bootstrap(said, truth, positive=positive, num_resamples=num_resamples, seed=seed)
    return Curves(
        roc=_drawn(found["roc"]),
        precision_recall=_drawn(found["precision_recall"]),
        area={"roc": metrics["auroc"], "precision_recall": metrics["average_precision"]},
        confusion=_confusion(truth, subject.decided, len(labels)),
        labels=labels,
        learning=learning(subject.opened.path / bundle.METRICS),
    )


def learning(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, of each stage at most 200 that hold but a loss."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    kept: list[dict[str, Any]] = []
    for stage in dict.fromkeys(line.get("stage") for line in lines):
        here = [line for line in lines if line.get("stage") == stage]
        bare = [line for line in here if not line.get("validation")]
        thin = {id(line) for line in bare[:: -(-len(bare) // _LOSSES) or 1]}
        kept += [line for line in here if line.get("validation") or id(line) in thin]
    return kept


def _confusion(
    truth: Int[np.ndarray, " row"], decided: Int[np.ndarray, " row"], num_labels: int
) -> list[list[int]]:
    found: list[list[int]] = confusion_matrix(truth, decided, labels=range(num_labels)).tolist()
    return found


def _drawn(found: Heights) -> list[Point]:
    """Return the curve of the rows as they are, which come first, and its band."""
    if np.isnan(found[0]).any():
        return []
    value, drawn = found[0], found[1:][~np.isnan(found[1:]).any(1)]
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0) if len(drawn) else [value * np.nan] * 2
    rows = zip(GRID.tolist(), value.tolist(), *(map(float, each) for each in bounds), strict=True)
    return [Point(*row) for row in rows]
