"""Two pictures: whether the probabilities mean what they say, and how training went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from miko_clf import metrics
from miko_clf.evaluate.proportion import wilson

_NUM_BINS = 15
_BLUE, _ORANGE, _GREY = "#1f77b4", "#d95f02", "#777777"


def reliability(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"] | Int[np.ndarray, "row label"],
    positive: int | None,
    path: Path,
) -> None:
    """Draw how often a class is true against the probability given to it, in 15 bins (SVG or PNG).

    The class is `positive`; where that is None, the most probable one, and every label where
    `truth` (row, label) says of each whether it holds. Bars of the points are 95 % Wilson
    intervals; below stands how many rows each bin holds.
    """
    if truth.ndim == 2:
        stated, true = probabilities.ravel(), truth.ravel() == 1
        stated_of, true_of = "probability of a label", "share where it holds"
        ece, ece_of = metrics.multilabel(probabilities, truth, names=["ece"])["ece"], "a label"
    else:
        known = metrics.classification(probabilities, truth, positive=positive, names=["ece"])
        ece, ece_of = known["ece"], "the most probable class"
        if positive is None:
            stated, true = probabilities.max(1), probabilities.argmax(1) == truth
            stated_of, true_of = "confidence of the most probable class", "share that is right"
        else:
            stated, true = probabilities[:, positive], truth == positive
            stated_of, true_of = "probability of the positive class", "share that is positive"
    figure = _figure(5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="as stated")
    edges = np.linspace(0, 1, _NUM_BINS + 1)
    bins = np.digitize(stated, edges[1:-1])
    counts = np.bincount(bins, minlength=_NUM_BINS)
    held = counts > 0
    mean = np.bincount(bins, stated, _NUM_BINS)[held] / counts[held]
    share = np.bincount(bins, true, _NUM_BINS)[held] / counts[held]
    low, high = wilson(share, counts[held])
    # rounding can put a bound past its own share by 1e-17, which matplotlib refuses
    errors = np.maximum([share - low, high - share], 0)
    upper.errorbar(mean, share, errors, fmt="o-", color=_BLUE, capsize=2, label="observed")
    upper.set(ylabel=true_of, ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
    upper.set_title(f"{len(truth)} rows; ECE of {ece_of} {ece:.3f}", fontsize=10)
    upper.legend(loc="upper left", frameon=False)
    lower.bar(edges[:-1], counts, width=1 / _NUM_BINS, align="edge", color=_BLUE, edgecolor="white")
    lower.set(xlabel=stated_of, ylabel="rows")
    _save(figure, path)


def curves(metrics_lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the losses and the validation metrics of each stage over its steps (SVG or PNG).

    A line is one of `metrics.jsonl`: `stage`, `step`, and `loss`, `validation` or both. A `loss`
    inside `validation` is drawn beside the training loss.
    """
    assert metrics_lines, "nothing to draw"
    stages = list(dict.fromkeys(str(line["stage"]) for line in metrics_lines))
    figure = _figure(5.2 * len(stages), 5.6)
    axes = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for stage, (upper, lower) in zip(stages, axes.T, strict=True):
        lines = [line for line in metrics_lines if str(line["stage"]) == stage]
        _losses(upper, lines)
        _validation(lower, lines)
        upper.set_title(f"{stage} stage", fontsize=10)
        lower.set_xlabel("step")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("validation metric")
    _save(figure, path)


def _losses(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    train = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    validation = _series(lines, "loss")
    if train:
        axes.plot(*zip(*train, strict=True), color=_BLUE, linewidth=1, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color=_ORANGE, label="validation")
    _legend(axes)


def _validation(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    names = dict.fromkeys(name for line in lines for name in line.get("validation") or {})
    for name in names:
        points = _series(lines, name)
        if name != "loss" and points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
    _legend(axes)


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    found = ((line["step"], (line.get("validation") or {}).get(name)) for line in lines)
    return [(step, float(value)) for step, value in found if isinstance(value, int | float)]


def _legend(axes: Axes) -> None:
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=_GREY)


def _figure(width: float, height: float) -> Figure:
    """Return a figure that is no part of pyplot's state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "miko"}):  # the same rows, the same file
        figure.savefig(path, dpi=144, metadata=undated)
