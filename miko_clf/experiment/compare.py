"""From recipes to a report: train every trial, score it, and say what differs."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miko_clf import bundle, manifest
from miko_clf.data.dataset import DataFolder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory, fingerprint_posts
from miko_clf.errors import BundleError, MikoError
from miko_clf.evaluate import comparison
from miko_clf.evaluate.bootstrap import MetricDifference
from miko_clf.evaluate.comparison import SeedArm, compare_arms
from miko_clf.evaluate.curves import measure_seed_curves, read_training_log
from miko_clf.evaluate.evaluator import audit_split
from miko_clf.evaluate.lockbox import describe_openings, open_lockbox
from miko_clf.evaluate.predictions import number_groups
from miko_clf.evaluate.report import Report, ReportRow, write_report
from miko_clf.evaluate.seeds import SeedPredictions
from miko_clf.experiment import design
from miko_clf.experiment.design import Experiment, PostSource, System, Trial
from miko_clf.experiment.folds import OUT_OF_FOLD, read_labelled_posts
from miko_clf.experiment.trial import TrialPredictions, read_trial_predictions, run_trials
from miko_clf.intervals import Interval
from miko_clf.recipe.schema import Recipe
from miko_clf.train.loop import check_single_process

_LOOKS_FILE = "looks.json"  # with how many seeds each split was asked, in order
_FLATTERED = (
    "These are the validation posts, which also chose each trial's epoch and threshold, so that "
    "all scores flatter; miko-clf evaluate DIR --data D --split test asks posts that chose nothing."
)


def compare(
    recipes: Recipe | str | Path | Sequence[Recipe | str | Path],
    data: DataFolder | PostSource | str | Path,
    out: str | Path,
    *,
    seeds: int = 5,
    arms: Sequence[str] | None = None,
    folds: int | None = None,
    jobs: int | None = None,
    cache: Path | None = None,
    positive: str | None = None,
    leaks: bool = False,
    margin: float | None = None,
    num_resamples: int = 1000,
    command: str = "",
) -> Report:
    """Train recipes in all their arms from several seeds, and return the report of what differs.

    A recipe that reads intentions is trained `with` them, `without` them, and on posts whose
    intentions are `shuffled`, those of an `other-post`, `empty` or `noise`; where it guesses them,
    the model of `with` answers as `student` too. Other recipes are trained as they are. `arms`
    chooses; `jobs` trials run at a time, by default one a core or one on a GPU.

    `recipes` may be names, `NAME,key=value`, YAML files or objects; later ones are compared with
    the first. Of `data` train is learned from and val judges; test stays shut. `folds` ask about
    all other posts instead, grouped and drawn anew for each seed. `positive` is the positive class,
    else the rarer; `leaks` lets texts be read that give the label away; `cache` holds features of
    frozen towers; `command` is what the report says made it. `margin` is the difference below which
    two systems count as equal: of which pairs that is shown is then said too.

    Into `out` go `trials/` (bundles), `scores/`, `logs/` and `report/` (JSON, Markdown, HTML). What
    is done is not done again: stopped, the same call goes on, and may add recipes and seeds.

    Raises a `MikoError` for recipes, posts or a place that cannot be used, and a trial that fails.
    A script needs `if __name__ == "__main__":`, as each process imports it.
    """
    check_single_process()
    if seeds < 1 or (folds is not None and folds < 2):
        raise MikoError(f"seeds={seeds}, folds={folds}: a seed, and two folds or none, are needed")
    _check_margin(margin)
    several = [recipes] if isinstance(recipes, Recipe | str | Path) else recipes
    names = tuple(map(design.write_recipe_source, several))
    source, wanted = PostSource.of(data), tuple(arms or ())
    experiment = Experiment(names, source, seeds, wanted, folds, positive, leaks)
    asked = _Asked(margin, num_resamples, command)
    return _run(Path(out), experiment, cache, jobs, asked)


class _Asked(NamedTuple):
    """How a report was asked for, which changes no trial."""

    margin: float | None
    num_resamples: int
    command: str


def _check_margin(margin: float | None) -> None:
    if margin is not None and not 0 < margin < 1:
        raise MikoError(f"margin={margin:g}: a difference of scores above 0 and below 1 is needed")


def _run(
    out: Path, experiment: Experiment, cache: Path | None, jobs: int | None, asked: _Asked
) -> Report:
    started = time.monotonic()
    systems = experiment.systems()  # a wrong recipe is told of before anything is written
    experiment = _name_positive(experiment)
    split = "val" if experiment.folds is None else OUT_OF_FOLD
    facts = _collect_facts(experiment, systems) | {"versions": manifest.collect_versions()}
    with manifest.lock_folder(out):
        design.claim_experiment(out, experiment, facts)
        run_trials(out, split, cache=cache, jobs=jobs)
        report = _report(out, experiment, split, asked, started)
        write_report(report, out / "report")
    return report


def evaluate_comparison(
    out: Path,
    data: Path,
    split: str,
    *,
    cache: Path | None,
    jobs: int | None,
    num_resamples: int,
    command: str,
    margin: float | None = None,
    allow_overlap: bool = False,
) -> Report:
    """Return what a comparison shows on a split; opening test is counted in every bundle of it.

    Raises `BundleError` where it is not finished or `data` is not what it was trained on.
    """
    check_single_process()
    _check_margin(margin)
    started, experiment = time.monotonic(), design.read_experiment(out)
    source = experiment.source
    if experiment.folds is not None:
        raise BundleError(f"{out}: was cross-validated, which asked about every post already")
    if Path(source.path).resolve() != data.resolve():
        raise BundleError(f"{out}: was trained on {source.path}, not on {data}")
    with manifest.lock_folder(out):
        design.claim_experiment(out, experiment, _collect_facts(experiment, experiment.systems()))
        posts = {name: read_labelled_posts(source, name) for name in ("val", split)}
        bundles = [bundle.load_bundle(trial.locate_bundle(out)) for trial in experiment.trials()]
        shut = PostsInMemory(data, posts)
        openings = open_lockbox(bundles, shut, split, command, allow_overlap=allow_overlap)
        run_trials(out, split, cache=cache, jobs=jobs)
        asked = _Asked(margin, num_resamples, command)
        report = _report(out, experiment, split, asked, started)
    described = describe_openings(openings, shut.fingerprint(split))
    return replace(report, findings={**report.findings, "lockbox": described})


def _name_positive(experiment: Experiment) -> Experiment:
    """Return the experiment with its positive class named, which each fold would choose anew."""
    if experiment.folds is None or experiment.positive is not None:
        return experiment
    (question,) = find_questions(read_labelled_posts(experiment.source, OUT_OF_FOLD))
    if question.positive is None:
        return experiment
    return replace(experiment, positive=question.labels[question.positive])


def _collect_facts(experiment: Experiment, systems: Sequence[System]) -> dict[str, Any]:
    """Return what a comparison that goes on must find as it was."""
    names = ("train", "val") if experiment.folds is None else (OUT_OF_FOLD,)
    posts = {name: read_labelled_posts(experiment.source, name) for name in names}
    return {
        "data": {name: fingerprint_posts(part) for name, part in posts.items()},
        "systems": {system.slug: system.recipe.model_dump(mode="json") for system in systems},
    }


def _report(out: Path, experiment: Experiment, split: str, asked: _Asked, started: float) -> Report:
    """Return the report of all trials on a split, which counts as a look at it."""
    posts = read_labelled_posts(experiment.source, split)
    labels, arms = collect_arms(out, experiment, split, posts)
    truth = np.array([labels.index(str(post.label)) for post in posts])
    positive = 1 if len(labels) == 2 else None
    groups = number_groups(posts)
    outcome = compare_arms(
        arms,
        truth,
        positive=positive,
        groups=groups,
        num_resamples=asked.num_resamples,
        looks=_count_looks(out, split, experiment.seeds),
        margin=asked.margin,
    )
    audit: dict[str, Any] = {"lines": []}
    if experiment.folds is None:
        audit = audit_split(read_labelled_posts(experiment.source, "train"), posts, split)
    return Report(
        rows=[_make_row(line, outcome.posts) for line in outcome.lines],
        data=experiment.source.path,
        fingerprint=fingerprint_posts(posts),
        split=split if experiment.folds is None else f"{experiment.folds} folds, each asked once",
        counts=dict(Counter(labels[index] for index in truth)),
        positive=None if positive is None else labels[positive],
        versions=manifest.collect_versions(),
        command=asked.command,
        seconds=round(time.monotonic() - started, 1),
        groups=0 if groups is None else len(set(groups.tolist())),
        differences=[
            MetricDifference(tested.a, tested.b, tested.metric, Interval(*tested.gap[:3]))
            for tested in outcome.differences
        ],
        num_resamples=asked.num_resamples,
        findings={
            "comparison": serialise_comparison(outcome, _FLATTERED if split == "val" else ""),
            "ranked": measure_seed_curves(arms, truth, positive=positive, groups=groups),
            "training": _read_training(out, experiment),
            "audit": audit,
        },
    )


def _count_looks(out: Path, split: str, num_seeds: int) -> int:
    """Return the how-manieth number of seeds this is that the split was asked with; keep it."""
    path = out / _LOOKS_FILE
    looks = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seen = looks.setdefault(split, [])
    if num_seeds not in seen:
        seen.append(num_seeds)
        manifest.write_json(path, looks)
    return int(seen.index(num_seeds)) + 1


def _make_row(line: comparison.ArmSummary, num_posts: int) -> ReportRow:
    intervals = {name: Interval(m.mean, m.low, m.high) for name, m in line.metrics.items()}
    note = f"mean of {line.seeds} seeds" if line.seeds > 1 else "one seed"
    return ReportRow(line.system, line.arm, num_posts, intervals, note=note)


def serialise_comparison(outcome: comparison.SeedComparison, remark: str = "") -> dict[str, Any]:
    """Return a comparison as a report keeps it; a `remark` follows the verdicts."""
    shares = next(iter(outcome.recovery.values()), {})
    return {
        "seeds": outcome.seeds,
        "looks": outcome.looks,
        "margin": outcome.margin,
        "rows": [
            asdict(line) | {"metrics": {name: m._asdict() for name, m in line.metrics.items()}}
            for line in outcome.lines
        ],
        "differences": [_serialise_difference(tested) for tested in outcome.differences],
        "recovery": shares.get("macro_f1"),
        "recovery_by_system": outcome.recovery,
        "words": "\n".join(
            [
                *(
                    comparison.describe_comparison(outcome, metric)
                    for metric in comparison.COMPARED_METRICS
                ),
                *([remark] if remark else []),
            ]
        ),
    }


def _serialise_difference(tested: comparison.TestedDifference) -> dict[str, Any]:
    rest = {
        name: getattr(tested, name) for name in ("p_holm", "permutation_p", "mcnemar", "p_equal")
    }
    names = {"a": tested.a, "b": tested.b, "metric": tested.metric}
    return {**names, **tested.gap._asdict(), **rest}


def _read_training(out: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """Return each trial's validation over its steps; of folds none, as their bundles are gone."""
    found = []
    for trial in experiment.trials() if experiment.folds is None else ():
        log = read_training_log(trial.locate_bundle(out) / bundle.METRICS_FILE)
        lines = [line for line in log if line.get("validation")]
        arm: str = trial.system.control or next(iter(trial.system.reported))
        if lines:
            system = trial.system.label
            found.append({"system": system, "arm": arm, "seed": trial.seed, "lines": lines})
    return found


def collect_arms(
    out: Path, experiment: Experiment, split: str, posts: list[Post]
) -> tuple[tuple[str, ...], list[SeedArm]]:
    """Return the labels, and what every system said of the posts in each arm, seed by seed."""
    trials, arms, labels = experiment.trials(), [], None
    for system in experiment.systems():
        seeds = []
        for seed in range(experiment.seeds):
            folds = [trial for trial in trials if trial.system == system and trial.seed == seed]
            seeds.append(_join_folds(out, folds, split, posts))
            if labels not in (None, seeds[-1].labels):
                raise BundleError(f"{out}: trials answer {labels} and {seeds[-1].labels}")
            labels = seeds[-1].labels
        mean_seconds = float(np.mean([said.seconds for said in seeds]))
        arms += [
            SeedArm(system.label, arm, [said.arms[arm] for said in seeds], mean_seconds)
            for arm in system.reported
            if not experiment.arms or arm in experiment.arms
        ]
    assert labels is not None
    return labels, arms


def _join_folds(
    out: Path, trials: Sequence[Trial], split: str, posts: list[Post]
) -> TrialPredictions:
    """Return what the trials of one seed said of all posts; folds are put together."""
    folds = [read_trial_predictions(out, trial, split, posts) for trial in trials]
    labels, said = folds[0].labels, {}
    if any(fold.labels != labels for fold in folds):
        answers = " and ".join(sorted({str(fold.labels) for fold in folds}))
        raise BundleError(
            f"{out}: folds of one seed answer {answers}: one lacks a label; give fewer folds"
        )
    for arm in folds[0].arms:
        probabilities = np.full((len(posts), len(labels)), np.nan)
        thresholds, strata = np.full(len(posts), 0.5), np.zeros(len(posts), dtype=np.int64)
        for number, fold in enumerate(folds):
            own = fold.arms[arm]
            probabilities[fold.rows] = own.probabilities
            thresholds[fold.rows] = 0.5 if own.threshold is None else own.threshold
            strata[fold.rows] = number
        if np.isnan(probabilities).any():
            raise BundleError(f"{out}: some posts of {split} were never asked about")
        limits = thresholds if len(labels) == 2 else None
        asked_in = strata if len(folds) > 1 else None
        said[arm] = SeedPredictions(probabilities, limits, asked_in, asked_in)
    seconds = float(sum(fold.seconds for fold in folds))
    return TrialPredictions(said, list(range(len(posts))), labels, seconds)
