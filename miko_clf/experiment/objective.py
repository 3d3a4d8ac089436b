"""What a trial of a sweep is worth: its recipe trained, and measured on validation."""

import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from miko_clf import bundle, manifest
from miko_clf.data.held import Held, Splits
from miko_clf.errors import PostError, RecipeError
from miko_clf.experiment.ranges import Value
from miko_clf.experiment.record import Attempt, Sweep, claim
from miko_clf.experiment.sweep import sweep
from miko_clf.pipeline import Plan, fit, labelled
from miko_clf.recipe import Recipe
from miko_clf.train.loop import StoppedError


@dataclass(frozen=True)
class Training:
    """Trains a trial from each seed, and says what validation measured in the epoch it kept.

    `data` holds train and val, and nothing of test. What training prints goes to `logs/`.
    """

    plan: Sweep
    data: Held
    cache: Path | None

    def __call__(self, number: int, params: Mapping[str, Value]) -> list[float]:
        """Return the metric by seed; raises a `MikoError`, or KeyboardInterrupt on Ctrl-C."""
        recipe, values = self.plan.recipe_of(params), []
        for seed in range(self.plan.seeds):
            place = self.plan.bundle(number, seed)
            if not place.exists():
                self._fit(recipe.model_copy(update={"seed": recipe.seed + seed}), place, number)
            values.append(measured(place, recipe.task.early.metric, self.plan.metric))
        return values

    def _fit(self, recipe: Recipe, place: Path, number: int) -> None:
        logs = self.plan.out / "logs"
        logs.mkdir(exist_ok=True)
        how = Plan(place, self.cache, positive=self.plan.positive, leaks=self.plan.leaks)
        with (
            (logs / f"{number}.log").open("a", encoding="utf-8") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                fit(recipe, self.data, how)
            except torch.OutOfMemoryError:
                raise RecipeError("does not fit into the memory of the accelerator") from None
            except StoppedError as error:
                raise KeyboardInterrupt(str(error)) from None


def tune(plan: Sweep, data: Splits, cache: Path | None) -> list[Attempt]:
    """Sweep by training, and return every trial; the test split is not opened.

    Nothing is written before ranges and posts are found good. Raises a `MikoError`.
    """
    plan.check()
    held = Held(data.path, {split: labelled(data, split) for split in ("train", "val")})
    facts = {
        "data": {split: held.fingerprint(split) for split in held.splits},
        "versions": {**manifest.versions(), "optuna": metadata.version("optuna")},
    }
    with manifest.alone(plan.out):
        claim(plan, facts)
        return sweep(plan, Training(plan, held, cache))


def measured(place: Path, early: str, metric: str) -> float:
    """Return a validation metric of the epoch that a bundle was kept from, the best by `early`.

    Raises `PostError` where validation does not measure it.
    """
    lines = (place / bundle.METRICS).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["stage"] == "task"]
    sign = -1 if early == "loss" else 1
    epochs = [row["validation"] for row in rows if "validation" in row]
    kept = max(epochs, key=lambda measures: sign * measures[early])
    if metric not in kept:
        raise PostError(f"val has no {metric}; --metric may be {', '.join(kept)}")
    return float(kept[metric])
