"""The model card of a bundle and the page of its training, with what test scored."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from miko_clf import bundle, manifest, metrics
from miko_clf.bundle import Calibration, Threshold
from miko_clf.data.labels import TaskLabels
from miko_clf.evaluate.calibration import calibrate_logits
from miko_clf.evaluate.formatting import (
    METRIC_TITLES,
    format_interval,
    format_markdown_table,
    get_metric_title,
)
from miko_clf.evaluate.predictions import name_report_arm
from miko_clf.evaluate.reliability import NUM_BINS, find_bins, pair_with_truth
from miko_clf.evaluate.report import Report, ReportRow
from miko_clf.fuse.build import Model
from miko_clf.intervals import compute_wilson_bounds
from miko_clf.questions import Question, Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import list_arms, predict_logits

_BLUE, _ORANGE, _GREY = "#1f77b4", "#d95f02", "#777777"


def draw_reliability(
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
    stated, true = pair_with_truth(probabilities, truth, positive)
    ece_of = "the most probable class"
    if truth.ndim == 2:
        ece = metrics.measure_multilabel(probabilities, truth, names=["ece"])["ece"]
        stated_of, true_of, ece_of = "probability of a label", "share where it holds", "a label"
    else:
        one = metrics.measure_classification(probabilities, truth, positive=positive, names=["ece"])
        ece = one["ece"]
        stated_of, true_of = "probability of the positive class", "share that is positive"
        if positive is None:
            stated_of, true_of = "confidence of the most probable class", "share that is right"
    figure = _make_figure(5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="as stated")
    bins = find_bins(stated)
    counts = np.bincount(bins, minlength=NUM_BINS)
    filled = counts > 0
    mean = np.bincount(bins, stated, NUM_BINS)[filled] / counts[filled]
    share = np.bincount(bins, true, NUM_BINS)[filled] / counts[filled]
    low, high = compute_wilson_bounds(share, counts[filled])
    # rounding can put a bound past its own share by 1e-17, which matplotlib refuses
    errors = np.maximum([share - low, high - share], 0)
    upper.errorbar(mean, share, errors, fmt="o-", color=_BLUE, capsize=2, label="observed")
    upper.set(ylabel=true_of, ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
    upper.set_title(f"{len(truth)} rows; ECE of {ece_of} {ece:.3f}", fontsize=10)
    upper.legend(loc="upper left", frameon=False)
    edges = np.linspace(0, 1, NUM_BINS + 1)[:-1]
    lower.bar(edges, counts, width=1 / NUM_BINS, align="edge", color=_BLUE, edgecolor="white")
    lower.set(xlabel=stated_of, ylabel="rows")
    _save_figure(figure, path)


def draw_training_curves(metrics_lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the losses and the validation metrics of each stage over its steps (SVG or PNG).

    A line is one of `metrics.jsonl`: `stage`, `step`, and `loss`, `validation` or both. A `loss`
    inside `validation` is drawn beside the training loss.
    """
    assert metrics_lines, "nothing to draw"
    stages = list(dict.fromkeys(str(line["stage"]) for line in metrics_lines))
    figure = _make_figure(5.2 * len(stages), 5.6)
    axes = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for stage, (upper, lower) in zip(stages, axes.T, strict=True):
        lines = [line for line in metrics_lines if str(line["stage"]) == stage]
        _draw_losses(upper, lines)
        _draw_validation(lower, lines)
        upper.set_title(f"{stage} stage", fontsize=10)
        lower.set_xlabel("step")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("validation metric")
    _save_figure(figure, path)


def _draw_losses(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    train = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    validation = _read_series(lines, "loss")
    if train:
        axes.plot(*zip(*train, strict=True), color=_BLUE, linewidth=1, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color=_ORANGE, label="validation")
    _draw_legend(axes)


def _draw_validation(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    names = dict.fromkeys(name for line in lines for name in line.get("validation") or {})
    for name in names:
        points = _read_series(lines, name)
        if name != "loss" and points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
    _draw_legend(axes)


def _read_series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    points = ((line["step"], (line.get("validation") or {}).get(name)) for line in lines)
    return [(step, float(value)) for step, value in points if isinstance(value, int | float)]


def _draw_legend(axes: Axes) -> None:
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=_GREY)


def _make_figure(width: float, height: float) -> Figure:
    """Return a figure that is no part of pyplot's state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save_figure(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "miko"}):  # the same rows, the same file
        figure.savefig(path, dpi=144, metadata=undated)


_CARD_TEMPLATE = """---
{metadata}
---
# {name}

Reads {inputs} and answers {labels}.

| | |
| --- | --- |
| recipe | `{name}` (whole in `recipe.yaml`) |
| image tower | {image} |
| text tower | {text} |
| parameters that learned | {learned:,} of {parameters:,} |
| training posts / validation posts | {rows_train:,} / {rows_val:,} |
| data fingerprint (train) | `{fingerprint}` |
| seed | {seed} |
| calibration | {calibration} |
| threshold for | {aim} |
| positive class | {positive} |
| training took | {seconds} s |

{validated} `evaluate.py` measures it on posts it has not seen and adds what it finds below.

{table}

## Use

To rank or flag posts like those it was trained on for people to look at, to study them, and to be
compared with other systems. Not to act on a person without a person looking, not on posts of
another kind, language or time unless it was measured there, and not as a measure of anybody's
character.

## Limits

Scores say how likely a label is among posts like the training posts. Labels are people's judgements
and carry their disagreements; a score is no ground to act on a person without a person looking.
"""


_MASKED_REMARK = """

`masked` is this one model with its intentions hidden from it, not a system trained without any."""


def predict_validation(
    recipe: Recipe, model: Model, val: EncodedDataset, fitted: Sequence[Calibration]
) -> dict[str, np.ndarray]:
    """Return what a model says of val in each arm, (post, label), as it is calibrated."""
    return {
        arm: calibrate_logits(predict_logits(model, val, arm), val.truth.questions, fitted)
        for arm in list_arms(recipe)
    }


def write_model_card(
    folder: Path,
    recipe: Recipe,
    model: Model,
    val: EncodedDataset,
    fitted: Sequence[Calibration],
    probabilities: Mapping[str, np.ndarray],
    facts: dict[str, Any],
) -> None:
    """Write `README.md` and `report.html` of the bundle in `folder`.

    `probabilities` are those of val, by arm (`predict_validation`).
    """
    questions = val.truth.questions
    tables = {
        part.question.name: _build_validation_table(recipe, probabilities, part, own)
        for part, own in zip(val.truth.split_by_question(), fitted, strict=True)
    }
    values = _list_card_values(recipe, model, questions, fitted, facts) | {
        "table": "\n\n".join(f"### {n}\n\n{t}" if n else t for n, t in tables.items())
        + (_MASKED_REMARK if len(probabilities) > 1 else ""),
    }
    card = _CARD_TEMPLATE.format(**values)
    (folder / manifest.CARD_FILE).write_text(card, encoding="utf-8")
    shown, parts = probabilities[fitted[0].arm], val.truth.split_by_question()
    says = _say_what_val_did(recipe, facts)
    page = _write_training_page(recipe.name, says, tables, folder, shown, parts)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _list_card_values(
    recipe: Recipe,
    model: Model,
    questions: Questions,
    fitted: Sequence[Calibration],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the card says besides its table, by the names in the template."""
    return {
        "name": recipe.name,
        "inputs": ", ".join(recipe.inputs),
        "labels": "; ".join(question.line().replace(" of ", " of: ", 1) for question in questions),
        "image": _describe_tower(recipe.image),
        "text": _describe_tower(recipe.text),
        "learned": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows_train": facts["rows"]["train"],
        "rows_val": facts["rows"]["val"],
        "fingerprint": facts["data"]["train"][:16],
        "seed": recipe.seed,
        "metadata": ModelCardData(
            library_name="miko_clf",
            license="other",
            tags=["multimodal", "text-classification", "image-classification"],
        ).to_yaml(),
        "calibration": ", ".join(
            f"temperature {own.temperature:.3f}" if own.method == "temperature" else own.method
            for own in fitted
        ),
        "aim": ", ".join(own.aim.line() for own in fitted),
        "positive": ", ".join(map(_describe_positive, questions, fitted)),
        "seconds": facts["seconds"],
        "validated": fill(_say_what_val_did(recipe, facts), 99),
    }


def _describe_positive(question: Question, fitted: Calibration) -> str:
    if question.kind == "many":
        return "each label"
    return fitted.positive or "none, more than two classes"


def _build_validation_table(
    recipe: Recipe, probabilities: Mapping[str, np.ndarray], part: TaskLabels, fitted: Calibration
) -> str:
    rows = {
        name_report_arm(recipe, arm): _measure_arm(
            values[part.rows, part.span], part, fitted.thresholds.get(arm)
        )
        for arm, values in probabilities.items()
    }
    names = list(next(iter(rows.values())))
    lines = [[arm, *(_format_figure(row[name]) for name in names)] for arm, row in rows.items()]
    return format_markdown_table(["arm", *names], lines)


def _measure_arm(
    probabilities: np.ndarray, part: TaskLabels, threshold: Threshold | None
) -> dict[str, float]:
    if isinstance(threshold, Mapping):
        limits = [threshold[label] for label in part.question.labels]
        return metrics.measure_multilabel(probabilities, part.truth, thresholds=limits)
    positive = part.question.positive
    return metrics.measure_classification(
        probabilities, part.truth, positive=positive, threshold=threshold
    )


def _format_figure(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _describe_tower(tower: Any) -> str:
    if tower is None:
        return "none"
    state = "frozen" if tower.frozen else "learned"
    return f"{tower.name} ({tower.source}, {state})"


def _say_what_val_did(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """Say what validation decided of the system, and so how far its figures flatter it."""
    chosen = []
    if recipe.task.epochs and not recipe.fitted:
        chosen.append("the epoch")
    if recipe.based:
        chosen.append("the share of the reader")
    also = f", which also chose {' and '.join(chosen)}" if chosen else ""
    says = (
        "Calibration and thresholds were fitted on validation. The figures below were measured "
        f"on those same validation posts{also}, so they flatter the system"
    )
    again = "val" in facts.get("learned_from", ())
    return says + ("; then it was fitted once more, on train and validation." if again else ".")


def _write_training_page(
    name: str,
    says: str,
    tables: Mapping[str, str],
    folder: Path,
    probabilities: np.ndarray,
    parts: Sequence[TaskLabels],
) -> str:
    lines = (folder / bundle.METRICS_FILE).read_text(encoding="utf-8").splitlines()
    with TemporaryDirectory() as drawing:
        path = Path(drawing) / "drawn.svg"
        draw_training_curves([json.loads(line) for line in lines], path)
        figures = _embed_figure(path)
        for part in parts:
            seen = probabilities[part.rows, part.span]
            draw_reliability(seen, part.truth, part.question.positive, path)
            figures += _make_heading(part.question.name) + _embed_figure(path)
    shown = "".join(_make_heading(task) + _convert_to_html(table) for task, table in tables.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "figure{margin:2rem 0}svg{max-width:100%;height:auto}td,th{padding:.2rem .8rem;"
        "text-align:right;border-bottom:1px solid #ddd}</style>"
        f"<h1>{escape(name)}</h1><p>{escape(says)}</p>{shown}{figures}</html>\n"
    )


def _make_heading(task: str) -> str:
    return f"<h2>{escape(task)}</h2>" if task else ""


def _embed_figure(path: Path) -> str:
    picture = path.read_text(encoding="utf-8")
    return f"<figure>{picture[picture.index('<svg') :]}</figure>"


def _convert_to_html(table: str) -> str:
    """Return a Markdown table as one of HTML."""
    head, _, *body = [line.strip("| ").split(" | ") for line in table.splitlines()]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in body)
    return f"<table><tr>{''.join(f'<th>{escape(c)}</th>' for c in head)}</tr>{rows}</table>"


_TEST_HEADING = "## On test"
_TEST_END = "\n## Use\n"


def add_test_results(bundle: Path, report: Report) -> None:
    """Put the figures of a bundle's arms into its card: a table, and metadata that hubs read.

    What stood there of an earlier opening is replaced; how often test was opened is told. The card
    is written whole or not at all. Without a card nothing is done.
    """
    path = bundle / manifest.CARD_FILE
    rows = [row for row in report.rows if row.system == bundle.name]
    if not path.is_file() or not rows:
        return
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    data: Any = card.data
    data.model_name = bundle.name
    data.eval_results = [result for row in rows for result in _list_eval_results(row, report)]
    before, _, after = card.text.partition(_TEST_END)
    before = before.partition(_TEST_HEADING)[0].rstrip()
    parts = [_TEST_HEADING, _describe_opening(report), _build_test_table(rows, report)]
    section = "\n\n".join(parts)
    text = f"{before}\n\n{section}\n{_TEST_END}{after}" if after else f"{before}\n\n{section}\n"
    manifest.write_text(path, f"---\n{data.to_yaml()}\n---\n{text.lstrip()}")


def _describe_opening(report: Report) -> str:
    openings = report.findings.get("lockbox", {}).get("openings")
    times = f", which was opened {openings} time{'s' * (openings != 1)} for it" if openings else ""
    return (
        f"From the lockbox: {report.rows[0].rows:,} posts of {report.data}, split "
        f"{report.split}{times}. Fingerprint `{report.fingerprint[:16]}`. In brackets the "
        f"{100 * report.level:g} % interval over posts. Made by `{report.command}`."
    )


def _build_test_table(rows: Sequence[ReportRow], report: Report) -> str:
    names = [name for name in METRIC_TITLES if name in rows[0].metrics]
    titles = [get_metric_title(name, report.positive) for name in names]
    lines = [[row.arm, *(format_interval(*row.metrics[name]) for name in names)] for row in rows]
    return format_markdown_table(["arm", *titles], lines)


def _list_eval_results(row: ReportRow, report: Report) -> list[EvalResult]:
    """Return the metadata of an arm; hubs read macro-F1 as `f1`."""
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=Path(report.data).name,
            dataset_name=Path(report.data).name,
            dataset_split=report.split,
            dataset_config=row.arm,
            metric_type={"macro_f1": "f1", "auroc": "roc_auc"}.get(name, name),
            metric_name=get_metric_title(name, report.positive),
            metric_value=round(row.metrics[name].value, 4),
        )
        for name in ("accuracy", "macro_f1", "auroc")
        if name in row.metrics and not math.isnan(row.metrics[name].value)
    ]
