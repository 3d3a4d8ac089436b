"""A bundle: the directory that `fit` writes and everything else reads. Free of torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miko_clf import manifest
from miko_clf.errors import BundleError
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe, load_recipe
from miko_clf.recipe.sections import AimName

RECIPE_FILE = "recipe.yaml"
LABELS_FILE = "labels.json"
PREPROCESS_FILE = "preprocess.json"
TOKENIZER_FILE = "tokenizer.json"
CALIBRATION_FILE = "calibration.json"
TOWERS_FILE = "towers.json"
WEIGHTS_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
CONTENTS_FILE = "contents.json"  # marks of the posts that it was fitted on

Threshold = float | Mapping[str, float]

TIE_TOLERANCE = 1e-6
"""By how much roundings of one probability may differ: those of float32 do by some 1e-7.

Isotonic lines have plateaus, so that many posts stand exactly at a limit.
"""

_Number = TypeVar("_Number", float, NDArray[np.float64])


def loosen_threshold(threshold: _Number) -> _Number:
    """Return the least probability that reaches a threshold, which a tie does.

    It is less by a share and not by a step, so that thresholds of 1e-7 stay above what is below
    them. A threshold above 1 is there to be reached by none.
    """
    return threshold * (1 - TIE_TOLERANCE * (threshold <= 1))


def bound_conformal_set(quantile: float) -> float:
    """Return the least probability of a label in a conformal set, where a tie is inside.

    Less by a step: small probabilities are here 1 minus another, and round as that one does.
    """
    return 1 - quantile - TIE_TOLERANCE


class _Fitted(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlattScaling(_Fitted):
    """A factor above 0 and a shift for each logit, before the softmax or the sigmoid."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]


class IsotonicKnots(_Fitted):
    """A line that never falls, level outside its knots: from margins to probabilities.

    The margin of the second of two labels is its logit minus the other's; that of a label which
    may hold beside others is its logit.
    """

    margins: tuple[float, ...]
    probabilities: tuple[float, ...]


class ThresholdAim(_Fitted):
    """What thresholds are the best for, and the number that they keep to."""

    name: AimName = "macro_f1"
    value: float | None = None

    def line(self) -> str:
        """Say the aim in a few words."""
        value = "" if self.value is None else f" {self.value:g}"
        return f"{self.name.replace('_', ' ')}{value}"


class ThresholdFit(_Fitted):
    """What a threshold gave on the rows it was fitted on; a share of no rows is null.

    `score` is the figure that the aim makes large, or for aim cost small: the mean cost of a row
    where a false positive costs the aim's value and a false negative the rest of 1.
    """

    score: float | None
    precision: float | None
    recall: float | None
    false_positive_rate: float | None
    met: bool


class ConformalQuantiles(_Fitted):
    """For each arm the quantile q: the set of a post are the labels of probability 1 - q or more.

    On posts like those of validation it holds the true label in a share of `level`.
    """

    level: float = Field(gt=0, lt=1)
    quantiles: Mapping[str, float]


def is_none(value: object) -> bool:
    """Say whether a field is left out of what is written."""
    return value is None


class Calibration(_Fitted):
    """What was fitted on validation for a question: a temperature, and for each arm thresholds.

    A post is the positive class where its calibrated probability reaches the threshold (see
    `loosen_threshold`); where any number of labels may hold each has a threshold of its own.
    There is neither a positive class nor a threshold where one of more than two labels holds.
    Where there is `platt` or `isotonic` it stands in for the temperature. `prior` is the share of
    the positive class that the probabilities stand for.
    """

    temperature: float = Field(gt=0)
    positive: str | None
    arm: str
    thresholds: Mapping[str, Threshold]
    platt: PlattScaling | None = Field(default=None, exclude_if=is_none)
    isotonic: tuple[IsotonicKnots, ...] | None = Field(default=None, exclude_if=is_none)
    aim: ThresholdAim = ThresholdAim()
    reached: Mapping[str, ThresholdFit | Mapping[str, ThresholdFit]] = Field(default_factory=dict)
    prior: float | None = Field(default=None, gt=0, lt=1, exclude_if=is_none)
    conformal: ConformalQuantiles | None = Field(default=None, exclude_if=is_none)

    @property
    def method(self) -> str:
        """The calibration in use: temperature, platt or isotonic."""
        if self.isotonic is not None:
            return "isotonic"
        return "platt" if self.platt is not None else "temperature"


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
    def preprocess(self) -> dict[str, Any]:
        """How posts become arrays, as `data.preprocess.Preparation` reads it."""
        return _read_json(self.path / PREPROCESS_FILE)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.path / TOKENIZER_FILE

    def graph(self, name: str) -> Path:
        """Return the path of an exported graph; raises `BundleError` where there is none."""
        if f"onnx/{name}.onnx" not in self.manifest["files"]:
            raise BundleError(
                f"{self.path}: no exported graph; make it by: miko-clf export {self.path}"
            )
        return self.path / "onnx" / f"{name}.onnx"


def load_bundle(path: Path) -> Bundle:
    """Return the bundle at a path, every file checked against the manifest.

    Raises `BundleError` naming the file that is missing, changed or unreadable.
    """
    facts = manifest.read_manifest(path)
    try:
        questions = Questions.from_json(_read_json(path / LABELS_FILE))
        recipe = load_recipe(path / RECIPE_FILE)
        value = _read_json(path / CALIBRATION_FILE)
        rows = [value] if len(questions) == 1 else [value[question.name] for question in questions]
        return Bundle(path, recipe, questions, tuple(map(Calibration.model_validate, rows)), facts)
    except (ValidationError, TypeError, AttributeError, KeyError):
        raise BundleError(f"{path}: its files do not describe a bundle of this version") from None


def dump_calibrations(questions: Questions, calibrations: Sequence[Calibration]) -> Any:
    """Return what `calibration.json` holds, by question where there are several."""
    rows = [calibration.model_dump(mode="json") for calibration in calibrations]
    if len(rows) == 1:
        return rows[0]
    return {question.name: row for question, row in zip(questions, rows, strict=True)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
