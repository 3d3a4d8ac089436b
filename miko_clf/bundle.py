"""A bundle: the directory that `fit` writes and everything else reads. Free of torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miko_clf import manifest, recipe
from miko_clf.errors import BundleError
from miko_clf.recipe import Recipe

RECIPE = "recipe.yaml"
LABELS = "labels.json"
PREPROCESS = "preprocess.json"
TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.json"
TOWERS = "towers.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.jsonl"


class Calibration(BaseModel):
    """What was fitted on validation: a temperature, and for each arm a threshold.

    A post is the positive class where its calibrated probability is at or above the
    threshold; both are null where there are more than two classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    positive: str | None
    arm: str
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all found unchanged.

    `manifest` holds their digests, versions, seeds and the fingerprint of the data.
    """

    path: Path
    recipe: Recipe
    labels: tuple[str, ...]
    calibration: Calibration
    manifest: Mapping[str, Any]

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
        return Bundle(
            path=path,
            recipe=recipe.load(path / RECIPE),
            labels=tuple(_json(path / LABELS)),
            calibration=Calibration.model_validate(_json(path / CALIBRATION)),
            manifest=facts,
        )
    except (ValidationError, TypeError, AttributeError):
        raise BundleError(f"{path}: its files do not describe a bundle of this version") from None


def positive(labels: tuple[str, ...]) -> int | None:
    """Return the index of the positive class of a two-class system, none where there are more.

    Labels are ordered so that the positive class is the second.
    """
    return 1 if len(labels) == 2 else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
