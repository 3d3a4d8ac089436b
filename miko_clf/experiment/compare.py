"""From recipes to a report: train every trial, score it, and say what differs."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from miko_clf import manifest
from miko_clf.data.held import Held, fingerprint
from miko_clf.data.labels import find
from miko_clf.errors import BundleError
from miko_clf.evaluate.lockbox import said, unlock
from miko_clf.evaluate.report import Report
from miko_clf.experiment import measure, plan, run, sides
from miko_clf.experiment.plan import Experiment
from miko_clf.experiment.sides import OUT_OF_FOLD
from miko_clf.experiment.systems import System


def compare(
    out: Path,
    experiment: Experiment,
    *,
    cache: Path | None,
    jobs: int | None,
    num_resamples: int,
    command: str,
) -> Report:
    """Train and score every trial, and return what they show on val, or out of fold.

    The test split is not opened. Trials that are done are not done again. Raises a `MikoError`.
    """
    started = time.monotonic()
    every = experiment.systems()  # a wrong recipe is told of before anything is written
    experiment = _told(experiment)
    split = "val" if experiment.folds is None else OUT_OF_FOLD
    facts = _facts(experiment, every) | {"versions": manifest.versions()}
    with manifest.alone(out):
        plan.claim(out, experiment, facts)
        run.run(out, split, cache=cache, jobs=jobs or run.usual_jobs())
        return measure.report(
            out,
            split,
            num_resamples=num_resamples,
            command=command,
            started=started,
            extra={},
        )


def evaluate(
    out: Path,
    data: Path,
    split: str,
    *,
    cache: Path | None,
    jobs: int | None,
    num_resamples: int,
    command: str,
) -> Report:
    """Return what a comparison shows on a split; opening test is counted in every bundle of it.

    Raises `BundleError` where it is not finished or `data` is not what it was trained on.
    """
    started = time.monotonic()
    experiment = plan.read(out)
    if experiment.folds is not None:
        raise BundleError(f"{out}: was cross-validated, which asked about every post already")
    if Path(experiment.source.path).resolve() != data.resolve():
        raise BundleError(f"{out}: was trained on {experiment.source.path}, not on {data}")
    with manifest.alone(out):
        plan.claim(out, experiment, _facts(experiment, experiment.systems()))
        posts = {name: sides.posts(experiment.source, name) for name in ("val", split)}
        openings = unlock(measure.bundles(out), Held(data, posts), split, command)
        run.run(out, split, cache=cache, jobs=jobs or run.usual_jobs())
        return measure.report(
            out,
            split,
            num_resamples=num_resamples,
            command=command,
            started=started,
            extra={"lockbox": said(openings)},
        )


def _told(experiment: Experiment) -> Experiment:
    """Return the experiment with its positive class named, which each fold would choose anew."""
    if experiment.folds is None or experiment.positive is not None:
        return experiment
    (question,) = find(sides.posts(experiment.source, OUT_OF_FOLD))
    if question.positive is None:
        return experiment
    return replace(experiment, positive=question.labels[question.positive])


def _facts(experiment: Experiment, every: Sequence[System]) -> dict[str, Any]:
    """Return what a comparison that goes on must find as it was."""
    names = ("train", "val") if experiment.folds is None else (OUT_OF_FOLD,)
    return {
        "data": {name: fingerprint(sides.posts(experiment.source, name)) for name in names},
        "systems": {each.slug: each.recipe.model_dump(mode="json") for each in every},
    }
