"""What the trials of an experiment add up to: scores by arm, differences, and a report."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.held import fingerprint
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.evaluate.analyses import audited
from miko_clf.evaluate.comparison import COMPARED, Arm, Comparison, Line, Tested, compared
from miko_clf.evaluate.curves import learning
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.ranked import ranked
from miko_clf.evaluate.report import Difference, Report, Row
from miko_clf.evaluate.seeds import Scores
from miko_clf.evaluate.threads import threads
from miko_clf.evaluate.verdict import paragraph
from miko_clf.experiment import plan, sides, trial
from miko_clf.experiment.plan import Experiment, Trial
from miko_clf.experiment.systems import System


def report(
    out: Path,
    split: str,
    *,
    num_resamples: int,
    command: str,
    started: float,
    extra: dict[str, Any],
) -> Report:
    """Return the report of all trials on a split; `extra` are findings to lay beside."""
    experiment = plan.read(out)
    posts = sides.posts(experiment.source, split)
    labels, every = _arms(out, experiment, split, posts)
    truth = np.array([labels.index(str(post.label)) for post in posts])
    positive = 1 if len(labels) == 2 else None
    groups = threads(posts)
    found = compared(every, truth, positive=positive, groups=groups, num_resamples=num_resamples)
    train = [] if experiment.folds else sides.posts(experiment.source, "train")
    return Report(
        rows=[_row(line, found.posts) for line in found.lines],
        data=experiment.source.path,
        fingerprint=fingerprint(posts),
        split=split if experiment.folds is None else f"{experiment.folds} folds, each asked once",
        counts=dict(Counter(labels[index] for index in truth)),
        positive=None if positive is None else labels[positive],
        versions=manifest.versions(),
        command=command,
        seconds=round(time.monotonic() - started, 1),
        groups=0 if groups is None else len(set(groups.tolist())),
        differences=[
            Difference(each.a, each.b, each.metric, Interval(*each.gap[:3]))
            for each in found.differences
        ],
        num_resamples=num_resamples,
        findings={
            "comparison": plain(found),
            "ranked": ranked(every, truth, positive=positive, groups=groups),
            "training": _training(out, experiment),
            "audit": audited(train, posts, split) if train else {"lines": []},
            **extra,
        },
    )


def bundles(out: Path) -> list[Bundle]:
    """Return the bundles of every trial; raises `BundleError` where one is not trained."""
    return [bundle.read(plan.bundle_of(out, each)) for each in plan.read(out).trials()]


def arms(out: Path, experiment: Experiment, split: str, posts: list[Post]) -> list[Arm]:
    """Return what every system said of the posts in each of its arms, seed by seed."""
    return _arms(out, experiment, split, posts)[1]


def plain(found: Comparison) -> dict[str, Any]:
    """Return a comparison as a report keeps it."""
    shares = next(iter(found.recovery.values()), {})
    return {
        "seeds": found.seeds,
        "rows": [
            asdict(line) | {"metrics": {name: m._asdict() for name, m in line.metrics.items()}}
            for line in found.lines
        ],
        "differences": [_tested(each) for each in found.differences],
        "recovery": shares.get("macro_f1"),
        "recovery_by_system": found.recovery,
        "words": "\n".join(paragraph(found, metric) for metric in COMPARED),
    }


def _training(out: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """Return each trial's validation over its steps; of folds none, as their bundles are gone."""
    found = [
        {
            "system": each.system.label,
            "arm": each.system.control or next(iter(each.system.reported)),
            "seed": each.seed,
            "lines": [
                line
                for line in learning(plan.bundle_of(out, each) / bundle.METRICS)
                if line.get("validation")
            ],
        }
        for each in experiment.trials()
        if each.fold is None
    ]
    return [each for each in found if each["lines"]]


def _tested(each: Tested) -> dict[str, Any]:
    rest = {"p_holm": each.p_holm, "permutation_p": each.permutation_p, "mcnemar": each.mcnemar}
    return {"a": each.a, "b": each.b, "metric": each.metric, **each.gap._asdict(), **rest}


def _row(line: Line, num_posts: int) -> Row:
    intervals = {name: Interval(m.mean, m.low, m.high) for name, m in line.metrics.items()}
    note = f"mean of {line.seeds} seeds" if line.seeds > 1 else "one seed"
    return Row(line.system, line.arm, num_posts, intervals, note=note)


def _arms(
    out: Path, experiment: Experiment, split: str, posts: list[Post]
) -> tuple[tuple[str, ...], list[Arm]]:
    trials, arms, labels = experiment.trials(), [], None
    for system in experiment.systems():
        of_seeds = [
            _seed(out, [t for t in trials if t.system == system and t.seed == seed], split, posts)
            for seed in range(experiment.seeds)
        ]
        for names, _, _ in of_seeds:
            if labels not in (None, names):
                raise BundleError(f"{out}: trials answer {labels} and {names}")
            labels = names
        seconds = float(np.mean([each for _, _, each in of_seeds]))
        arms += [
            Arm(system.label, arm, [said[arm] for _, said, _ in of_seeds], seconds)
            for arm in _reported(system, experiment.arms)
        ]
    assert labels is not None
    return labels, arms


def _reported(system: System, wanted: Sequence[str]) -> list[str]:
    return [arm for arm in system.reported if not wanted or arm in wanted]


def _seed(
    out: Path, trials: Sequence[Trial], split: str, posts: list[Post]
) -> tuple[tuple[str, ...], dict[str, Scores], float]:
    """Return labels, scores by arm of all posts, and seconds; folds are put together."""
    found = [trial.answer(out, each, split, posts) for each in trials]
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
        said[arm] = Scores(probabilities, limits, strata if len(found) > 1 else None)
    return labels, said, float(sum(each.seconds for each in found))
