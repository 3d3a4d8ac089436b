"""From recipes to a report: train every trial, score it, and say what differs."""

import time
from pathlib import Path

from miko_clf import manifest
from miko_clf.data.held import Held, fingerprint
from miko_clf.errors import BundleError
from miko_clf.evaluate.lockbox import said, unlock
from miko_clf.evaluate.report import Report
from miko_clf.experiment import measure, plan, run, sides
from miko_clf.experiment.plan import Experiment
from miko_clf.experiment.sides import OUT_OF_FOLD


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
    experiment.systems()  # a recipe that is wrong is told of before anything is written
    split = "val" if experiment.folds is None else OUT_OF_FOLD
    names = ("train", "val") if experiment.folds is None else (OUT_OF_FOLD,)
    data = {name: fingerprint(sides.posts(experiment.source, name)) for name in names}
    with manifest.alone(out):
        plan.claim(out, experiment, {"data": data, "versions": manifest.versions()})
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
