"""What a bundle says of itself: a model card and a page of its training."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData

from miko_clf import bundle, manifest, metrics
from miko_clf.bundle import Calibration, Threshold
from miko_clf.data.labels import Part
from miko_clf.evaluate import plots
from miko_clf.evaluate.predict import linked
from miko_clf.fuse.model import Model
from miko_clf.questions import Question
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import arms, logits

CARD = """---
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

Calibration and thresholds were fitted on validation. The figures below were measured on those
same validation posts, which also chose the epoch, so they flatter the system; `evaluate.py`
measures it on posts it has not seen and adds what it finds below.

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


def write_card(
    folder: Path,
    recipe: Recipe,
    model: Model,
    val: Feed,
    fitted: Sequence[Calibration],
    facts: dict[str, Any],
) -> None:
    """Write `README.md` and `report.html` of the bundle in `folder`."""
    questions = val.truth.questions
    probabilities = {
        arm: linked(logits(model, val, arm), questions, fitted) for arm in arms(recipe)
    }
    tables = {
        part.question.name: _table(probabilities, part, each)
        for part, each in zip(val.truth.parts(), fitted, strict=True)
    }
    values = {
        "name": recipe.name,
        "inputs": ", ".join(recipe.inputs),
        "labels": "; ".join(map(_asked, questions)),
        "image": _tower(recipe.image),
        "text": _tower(recipe.text),
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
        "calibration": ", ".join(map(_calibration, fitted)),
        "aim": ", ".join(each.aim.line() for each in fitted),
        "positive": ", ".join(_positive(*each) for each in zip(questions, fitted, strict=True)),
        "seconds": facts["seconds"],
        "table": "\n\n".join(f"### {n}\n\n{t}" if n else t for n, t in tables.items()),
    }
    card = CARD.format(**values)
    (folder / manifest.CARD).write_text(card, encoding="utf-8")
    page = _page(recipe.name, tables, folder, probabilities[fitted[0].arm], val.truth.parts())
    (folder / "report.html").write_text(page, encoding="utf-8")


def _calibration(fitted: Calibration) -> str:
    if fitted.method == "temperature":
        return f"temperature {fitted.temperature:.3f}"
    return fitted.method


def _asked(question: Question) -> str:
    """Say what a question's answer is: `one of: a, b`, behind the question's name if it has one."""
    return question.line().replace(" of ", " of: ", 1)


def _positive(question: Question, fitted: Calibration) -> str:
    if question.kind == "many":
        return "each label"
    return fitted.positive or "none, more than two classes"


def _table(probabilities: dict[str, np.ndarray], part: Part, fitted: Calibration) -> str:
    rows = {
        arm: _measured(values[part.rows, part.span], part, fitted.thresholds.get(arm))
        for arm, values in probabilities.items()
    }
    names = list(next(iter(rows.values())))
    lines = [f"| arm | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for arm, row in rows.items():
        lines.append(f"| {arm} | {' | '.join(f'{row[name]:.3f}' for name in names)} |")
    return "\n".join(lines)


def _measured(
    probabilities: np.ndarray, part: Part, threshold: Threshold | None
) -> dict[str, float]:
    if isinstance(threshold, Mapping):
        limits = [threshold[label] for label in part.question.labels]
        return metrics.multilabel(probabilities, part.truth, thresholds=limits)
    positive = part.question.positive
    return metrics.classification(probabilities, part.truth, positive=positive, threshold=threshold)


def _tower(tower: Any) -> str:
    if tower is None:
        return "none"
    state = "frozen" if tower.frozen else "learned"
    return f"{tower.name} ({tower.source}, {state})"


def _page(
    name: str,
    tables: Mapping[str, str],
    folder: Path,
    probabilities: np.ndarray,
    parts: Sequence[Part],
) -> str:
    lines = (folder / bundle.METRICS).read_text(encoding="utf-8").splitlines()
    with TemporaryDirectory() as drawing:
        path = Path(drawing) / "drawn.svg"
        plots.curves([json.loads(line) for line in lines], path)
        figures = _figure(path)
        for part in parts:
            seen = probabilities[part.rows, part.span]
            plots.reliability(seen, part.truth, part.question.positive, path)
            figures += _heading(part.question.name) + _figure(path)
    shown = "".join(_heading(task) + _as_html(table) for task, table in tables.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "figure{margin:2rem 0}svg{max-width:100%;height:auto}td,th{padding:.2rem .8rem;"
        "text-align:right;border-bottom:1px solid #ddd}</style>"
        f"<h1>{escape(name)}</h1><p>Measured on validation, which also chose the epoch, the "
        f"temperature and the thresholds.</p>{shown}{figures}</html>\n"
    )


def _heading(task: str) -> str:
    return f"<h2>{escape(task)}</h2>" if task else ""


def _figure(path: Path) -> str:
    picture = path.read_text(encoding="utf-8")
    return f"<figure>{picture[picture.index('<svg') :]}</figure>"


def _as_html(table: str) -> str:
    """Return a Markdown table as one of HTML."""
    head, _, *body = [line.strip("| ").split(" | ") for line in table.splitlines()]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in body)
    return f"<table><tr>{''.join(f'<th>{escape(c)}</th>' for c in head)}</tr>{rows}</table>"
