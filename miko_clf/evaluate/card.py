"""What a bundle says of itself: a model card and a page of its training."""

import json
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.special import softmax

from miko_clf import bundle, metrics
from miko_clf.bundle import Calibration
from miko_clf.evaluate import plots
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import arms, logits

CARD = """---
library_name: miko_clf
license: other
tags: [multimodal, text-classification, image-classification]
---
# {name}

Reads {inputs} and answers one of: {labels}.

| | |
| --- | --- |
| recipe | `{name}` (whole in `recipe.yaml`) |
| image tower | {image} |
| text tower | {text} |
| parameters that learned | {learned:,} of {parameters:,} |
| training posts / validation posts | {rows_train:,} / {rows_val:,} |
| data fingerprint (train) | `{fingerprint}` |
| seed | {seed} |
| temperature | {temperature:.3f} |
| positive class | {positive} |
| training took | {seconds} s |

Temperature and thresholds were fitted on validation. The figures below were measured on those
same validation posts, which also chose the epoch, so they flatter the system; `evaluate.py`
measures it on posts it has not seen.

{table}

## Limits

Scores say how likely a label is among posts like the training posts. Labels are people's judgements
and carry their disagreements; a score is no ground to act on a person without a person looking.
"""


def write_card(
    folder: Path,
    recipe: Recipe,
    model: MikoClassifier,
    val: Feed,
    labels: tuple[str, ...],
    fitted: Calibration,
    facts: dict[str, Any],
) -> None:
    """Write `README.md` and `report.html` of the bundle in `folder`."""
    truth = np.array(val.labels)
    probabilities = {
        arm: softmax(logits(model, val, arm) / fitted.temperature, axis=1) for arm in arms(recipe)
    }
    table = _table(probabilities, truth, bundle.positive(labels), fitted)
    values = {
        "name": recipe.name,
        "inputs": ", ".join(recipe.inputs),
        "labels": ", ".join(labels),
        "image": _tower(recipe.image),
        "text": _tower(recipe.text),
        "learned": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows_train": facts["rows"]["train"],
        "rows_val": facts["rows"]["val"],
        "fingerprint": facts["data"]["train"][:16],
        "seed": recipe.seed,
        "temperature": fitted.temperature,
        "positive": fitted.positive or "none, more than two classes",
        "seconds": facts["seconds"],
        "table": table,
    }
    card = CARD.format(**values)
    (folder / "README.md").write_text(card, encoding="utf-8")
    usual = probabilities[fitted.arm]
    page = _page(recipe.name, table, folder, usual, truth, bundle.positive(labels))
    (folder / "report.html").write_text(page, encoding="utf-8")


def _table(
    probabilities: dict[str, np.ndarray],
    truth: np.ndarray,
    positive: int | None,
    fitted: Calibration,
) -> str:
    rows = {
        arm: metrics.classification(
            values, truth, positive=positive, threshold=fitted.thresholds.get(arm)
        )
        for arm, values in probabilities.items()
    }
    names = list(next(iter(rows.values())))
    lines = [f"| arm | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for arm, row in rows.items():
        lines.append(f"| {arm} | {' | '.join(f'{row[name]:.3f}' for name in names)} |")
    return "\n".join(lines)


def _tower(tower: Any) -> str:
    if tower is None:
        return "none"
    state = "frozen" if tower.frozen else "learned"
    return f"{tower.name} ({tower.source}, {state})"


def _page(
    name: str,
    table: str,
    folder: Path,
    probabilities: np.ndarray,
    truth: np.ndarray,
    positive: int | None,
) -> str:
    lines = (folder / bundle.METRICS).read_text(encoding="utf-8").splitlines()
    with TemporaryDirectory() as drawing:
        curves, reliability = Path(drawing) / "curves.svg", Path(drawing) / "reliability.svg"
        plots.curves([json.loads(line) for line in lines], curves)
        plots.reliability(probabilities, truth, positive, reliability)
        pictures = [path.read_text(encoding="utf-8") for path in (curves, reliability)]
    figures = "".join(
        f"<figure>{picture[picture.index('<svg') :]}</figure>" for picture in pictures
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "figure{margin:2rem 0}svg{max-width:100%;height:auto}td,th{padding:.2rem .8rem;"
        "text-align:right;border-bottom:1px solid #ddd}</style>"
        f"<h1>{escape(name)}</h1><p>Measured on validation, which also chose the epoch, the "
        f"temperature and the thresholds.</p>{_as_html(table)}{figures}</html>\n"
    )


def _as_html(table: str) -> str:
    """Return a Markdown table as one of HTML."""
    head, _, *body = [line.strip("| ").split(" | ") for line in table.splitlines()]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in body)
    return f"<table><tr>{''.join(f'<th>{escape(c)}</th>' for c in head)}</tr>{rows}</table>"
