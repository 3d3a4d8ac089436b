"""From recipes to a report: train every trial, score it, and say what differs."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory, fingerprint_posts
from miko_clf.errors import BundleError
from miko_clf.evaluate.bootstrap import MetricDifference
from miko_clf.evaluate.comparison import (
    COMPARED_METRICS,
    ArmSummary,
    SeedArm,
    SeedComparison,
    TestedDifference,
    compare_arms,
    describe_comparison,
)
from miko_clf.evaluate.curves import measure_seed_curves, read_training_log
from miko_clf.evaluate.evaluator import audit_split
from miko_clf.evaluate.lockbox import describe_openings, open_lockbox
from miko_clf.evaluate.predictions import number_groups
from miko_clf.evaluate.report import Report, ReportRow
from miko_clf.evaluate.seeds import SeedPredictions
from miko_clf.experiment import design, folds, trial, workers
from miko_clf.experiment.design import Experiment, System, Trial
from miko_clf.experiment.folds import OUT_OF_FOLD
from miko_clf.intervals import Interval


def report_experiment(
    out: Path,
    split: str,
    *,
    num_resamples: int,
    command: str,
    started: float,
    extra: dict[str, Any],
) -> Report:
    """Return the report of all trials on a split; `extra` are findings to lay beside."""
    experiment = design.read_experiment(out)
    posts = folds.read_labelled_posts(experiment.source, split)
    labels, every = _collect_labels_and_arms(out, experiment, split, posts)
    truth = np.array([labels.index(str(post.label)) for post in posts])
    positive = 1 if len(labels) == 2 else None
    groups = number_groups(posts)
    found = compare_arms(
        every, truth, positive=positive, groups=groups, num_resamples=num_resamples
    )
    train = [] if experiment.folds else folds.read_labelled_posts(experiment.source, "train")
    return Report(
        rows=[_report_row(line, found.posts) for line in found.lines],
        data=experiment.source.path,
        fingerprint=fingerprint_posts(posts),
        split=split if experiment.folds is None else f"{experiment.folds} folds, each asked once",
        counts=dict(Counter(labels[index] for index in truth)),
        positive=None if positive is None else labels[positive],
        versions=manifest.collect_versions(),
        command=command,
        seconds=round(time.monotonic() - started, 1),
        groups=0 if groups is None else len(set(groups.tolist())),
        differences=[
            MetricDifference(each.a, each.b, each.metric, Interval(*each.gap[:3]))
            for each in found.differences
        ],
        num_resamples=num_resamples,
        findings={
            "comparison": serialise_comparison(found),
            "ranked": measure_seed_curves(every, truth, positive=positive, groups=groups),
            "training": _read_training(out, experiment),
            "audit": audit_split(train, posts, split) if train else {"lines": []},
            **extra,
        },
    )


def read_trial_bundles(out: Path) -> list[Bundle]:
    """Return the bundles of every trial; raises `BundleError` where one is not trained."""
    return [
        bundle.load_bundle(design.locate_bundle(out, each))
        for each in design.read_experiment(out).trials()
    ]


def collect_arms(out: Path, experiment: Experiment, split: str, posts: list[Post]) -> list[SeedArm]:
    """Return what every system said of the posts in each of its arms, seed by seed."""
    return _collect_labels_and_arms(out, experiment, split, posts)[1]


def serialise_comparison(found: SeedComparison) -> dict[str, Any]:
    """Return a comparison as a report keeps it."""
    shares = next(iter(found.recovery.values()), {})
    return {
        "seeds": found.seeds,
        "rows": [
            asdict(line) | {"metrics": {name: m._asdict() for name, m in line.metrics.items()}}
            for line in found.lines
        ],
        "differences": [_serialise_difference(each) for each in found.differences],
        "recovery": shares.get("macro_f1"),
        "recovery_by_system": found.recovery,
        "words": "\n".join(describe_comparison(found, metric) for metric in COMPARED_METRICS),
    }


def _read_training(out: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """Return each trial's validation over its steps; of folds none, as their bundles are gone."""
    found = [
        {
            "system": each.system.label,
            "arm": each.system.control or next(iter(each.system.reported)),
            "seed": each.seed,
            "lines": [
                line
                for line in read_training_log(design.locate_bundle(out, each) / bundle.METRICS_FILE)
                if line.get("validation")
            ],
        }
        for each in experiment.trials()
        if each.fold is None
    ]
    return [each for each in found if each["lines"]]


def _serialise_difference(each: TestedDifference) -> dict[str, Any]:
    rest = {"p_holm": each.p_holm, "permutation_p": each.permutation_p, "mcnemar": each.mcnemar}
    return {"a": each.a, "b": each.b, "metric": each.metric, **each.gap._asdict(), **rest}


def _report_row(line: ArmSummary, num_posts: int) -> ReportRow:
    intervals = {name: Interval(m.mean, m.low, m.high) for name, m in line.metrics.items()}
    note = f"mean of {line.seeds} seeds" if line.seeds > 1 else "one seed"
    return ReportRow(line.system, line.arm, num_posts, intervals, note=note)


def _collect_labels_and_arms(
    out: Path, experiment: Experiment, split: str, posts: list[Post]
) -> tuple[tuple[str, ...], list[SeedArm]]:
    trials, arms, labels = experiment.trials(), [], None
    for system in experiment.systems():
        of_seeds = [
            _join_folds(
                out, [t for t in trials if t.system == system and t.seed == seed], split, posts
            )
            for seed in range(experiment.seeds)
        ]
        for names, _, _ in of_seeds:
            if labels not in (None, names):
                raise BundleError(f"{out}: trials answer {labels} and {names}")
            labels = names
        seconds = float(np.mean([each for _, _, each in of_seeds]))
        arms += [
            SeedArm(system.label, arm, [said[arm] for _, said, _ in of_seeds], seconds)
            for arm in _list_reported(system, experiment.arms)
        ]
    assert labels is not None
    return labels, arms


def _list_reported(system: System, wanted: Sequence[str]) -> list[str]:
    return [arm for arm in system.reported if not wanted or arm in wanted]


def _join_folds(
    out: Path, trials: Sequence[Trial], split: str, posts: list[Post]
) -> tuple[tuple[str, ...], dict[str, SeedPredictions], float]:
    """Return labels, scores by arm of all posts, and seconds; folds are put together."""
    found = [trial.read_trial_predictions(out, each, split, posts) for each in trials]
    labels, said = found[0].labels, {}
    if any(each.labels != labels for each in found):
        answers = " and ".join(sorted({str(each.labels) for each in found}))
        raise BundleError(
            f"{out}: folds of one seed answer {answers}: one lacks a label; give fewer folds"
        )
    for arm in found[0].said:
        probabilities = np.full((len(posts), len(labels)), np.nan)
        thresholds, strata = np.full(len(posts), 0.5), np.zeros(len(posts), dtype=np.int64)
        for number, each in enumerate(found):
            probabilities[each.rows] = each.said[arm].probabilities
            limit = each.said[arm].threshold
            thresholds[each.rows] = 0.5 if limit is None else limit
            strata[each.rows] = number
        if np.isnan(probabilities).any():
            raise BundleError(f"{out}: some posts of {split} were never asked about")
        limits = thresholds if len(labels) == 2 else None
        said[arm] = SeedPredictions(probabilities, limits, strata if len(found) > 1 else None)
    return labels, said, float(sum(each.seconds for each in found))


def run_comparison(
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
    experiment = _name_positive(experiment)
    split = "val" if experiment.folds is None else OUT_OF_FOLD
    facts = _collect_facts(experiment, every) | {"versions": manifest.collect_versions()}
    with manifest.lock_folder(out):
        design.claim_experiment(out, experiment, facts)
        workers.run_trials(out, split, cache=cache, jobs=jobs or workers.count_default_jobs())
        return report_experiment(
            out,
            split,
            num_resamples=num_resamples,
            command=command,
            started=started,
            extra={},
        )


def evaluate_comparison(
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
    experiment = design.read_experiment(out)
    if experiment.folds is not None:
        raise BundleError(f"{out}: was cross-validated, which asked about every post already")
    if Path(experiment.source.path).resolve() != data.resolve():
        raise BundleError(f"{out}: was trained on {experiment.source.path}, not on {data}")
    with manifest.lock_folder(out):
        design.claim_experiment(out, experiment, _collect_facts(experiment, experiment.systems()))
        posts = {
            name: folds.read_labelled_posts(experiment.source, name) for name in ("val", split)
        }
        openings = open_lockbox(read_trial_bundles(out), PostsInMemory(data, posts), split, command)
        workers.run_trials(out, split, cache=cache, jobs=jobs or workers.count_default_jobs())
        return report_experiment(
            out,
            split,
            num_resamples=num_resamples,
            command=command,
            started=started,
            extra={"lockbox": describe_openings(openings)},
        )


def _name_positive(experiment: Experiment) -> Experiment:
    """Return the experiment with its positive class named, which each fold would choose anew."""
    if experiment.folds is None or experiment.positive is not None:
        return experiment
    (question,) = find_questions(folds.read_labelled_posts(experiment.source, OUT_OF_FOLD))
    if question.positive is None:
        return experiment
    return replace(experiment, positive=question.labels[question.positive])


def _collect_facts(experiment: Experiment, every: Sequence[System]) -> dict[str, Any]:
    """Return what a comparison that goes on must find as it was."""
    names = ("train", "val") if experiment.folds is None else (OUT_OF_FOLD,)
    return {
        "data": {
            name: fingerprint_posts(folds.read_labelled_posts(experiment.source, name))
            for name in names
        },
        "systems": {each.slug: each.recipe.model_dump(mode="json") for each in every},
    }
