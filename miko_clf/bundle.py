"""A bundle: the directory that `fit` writes and everything else reads. Free of torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miko_clf import manifest, recipe
from miko_clf.errors import BundleError
from miko_clf.questions import Questions
from miko_clf.recipe import Recipe

RECIPE = "recipe.yaml"
LABELS = "labels.json"
PREPROCESS = "preprocess.json"
TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.json"
TOWERS = "towers.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.jsonl"

Threshold = float | Mapping[str, float]


class Calibration(BaseModel):
    """What was fitted on validation for a question: a temperature, and for each arm thresholds.

    A post is the positive class where its calibrated probability is at or above the threshold;
    where any number of labels may hold each has a threshold of its own. There is neither a
    positive class nor a threshold where one of more than two labels holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    positive: str | None
    arm: str
    thresholds: Mapping[str, Threshold]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all found unchanged.

    `manifest` holds their digests, versions, seeds and the fingerprint of the data.
    """

    path: Path
    recipe: Recipe
    questions: Questions
    calibrations: tuple[Calibration, ...]
    manifest: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each logit; where one question is asked, its labels."""
        return self.questions.names

    @property
    def calibration(self) -> Calibration:
        """What was fitted for the first question, which most systems have alone."""
        return self.calibrations[0]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature of each question."""
        return tuple(each.temperature for each in self.calibrations)

    @property
    def preprocess(self) -> dict[str, Any]:
        """How posts become arrays, as `data.collate.Preparation` reads it."""
        return _json(self.path / PREPROCESS)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.path / TOKENIZER

    def graph(self, name: str) -> Path:
        """Return the path of an exported graph; raises `BundleError` where there is none."""
        path = self.path / "onnx" / f"{name}.onnx"
        if f"onnx/{name}.onnx" not in self.manifest["files"]:
            raise BundleError(
                f"{self.path}: no exported graph; make it by: miko-clf export {self.path}"
            )
        return path


def read(path: Path) -> Bundle:
    """Return the bundle at a path, every file checked against the manifest.

    Raises `BundleError` naming the file that is missing, changed or unreadable.
    """
    facts = manifest.read(path)
    try:
        questions = Questions.from_json(_json(path / LABELS))
        return Bundle(
            path=path,
            recipe=recipe.load(path / RECIPE),
            questions=questions,
            calibrations=_calibrations(questions, _json(path / CALIBRATION)),
            manifest=facts,
        )
    except (ValidationError, TypeError, AttributeError, KeyError):
        raise BundleError(f"{path}: its files do not describe a bundle of this version") from None


def calibration_json(questions: Questions, fitted: Sequence[Calibration]) -> Any:
    """Return what `calibration.json` holds, by question where there are several."""
    rows = [each.model_dump(mode="json") for each in fitted]
    if len(rows) == 1:
        return rows[0]
    return {one.name: row for one, row in zip(questions, rows, strict=True)}


def _calibrations(questions: Questions, value: Any) -> tuple[Calibration, ...]:
    rows = [value] if len(questions) == 1 else [value[one.name] for one in questions]
    return tuple(Calibration.model_validate(row) for row in rows)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
