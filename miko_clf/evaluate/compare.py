"""Systems and their arms on the same posts, beside the baselines that every table needs."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle, Threshold
from miko_clf.data.folder import DataFolder
from miko_clf.data.labels import Part
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.evaluate import baselines
from miko_clf.evaluate.analyses import Wanted, audited, look_into
from miko_clf.evaluate.asked import Asked, Said, Scored, asked, scored
from miko_clf.evaluate.interval import Groups, bootstrap, paired_difference
from miko_clf.evaluate.interval import Threshold as Limit
from miko_clf.evaluate.lockbox import said as lockbox_said
from miko_clf.evaluate.lockbox import unlock
from miko_clf.evaluate.predict import Predictor
from miko_clf.evaluate.report import Difference, Report, Row
from miko_clf.evaluate.threads import threads
from miko_clf.questions import Questions
from miko_clf.recipe import Recipe
from miko_clf.train.infer import arms, serving_arms

COMPARED = ("macro_f1", "auroc")
SCORES_ALONE = Wanted(few=True)


def compare(
    bundles: Sequence[Path],
    data: DataFolder,
    split: str,
    *,
    cache: Path | None,
    num_resamples: int,
    command: str,
    wanted: Wanted = SCORES_ALONE,
) -> Report:
    """Return what each bundle scores in each of its arms on one split.

    Thresholds and temperatures are the bundles' own, fitted on validation. Baselines are
    fitted on the train split of the same data. Intervals draw posts of one group together. Where
    several questions are asked the report is of the first, with those of the others, each on the
    posts that answer it. What is looked into besides is of the first bundle. Opening the test
    split is counted in every bundle. Raises a `MikoError` where bundles answer different labels,
    or a post has a label that none of them knows.
    """
    started = time.monotonic()
    opened = [bundle.read(path) for path in bundles]
    questions = _common_questions(opened)
    openings = unlock(opened, data, split, command)
    posts, train = data.read(split), data.read("train")
    asks = asked(posts, train, questions, data.path, split)
    said = [one for each in opened for one in _arms(each, posts, cache, _note(each, data))]
    whole = Report(
        rows=[],
        data=str(data.path),
        fingerprint=data.fingerprint(split),
        split=split,
        counts={},
        positive=None,
        versions=manifest.versions(),
        command=command,
        seconds=0.0,
        num_resamples=num_resamples,
    )
    first, *others = [_answered(whole, one, said, opened) for one in asks]
    found = look_into(opened[0], asks[0], wanted, cache=cache, num_resamples=num_resamples)
    if not wanted.few:
        found |= {"lockbox": lockbox_said(openings), "audit": audited(train, posts, split)}
    first = replace(first, findings=found)
    seconds = round(time.monotonic() - started, 1)
    others = [replace(each, seconds=seconds) for each in others]
    return replace(first, seconds=seconds, others=others)


def _answered(whole: Report, one: Asked, said: Sequence[Said], opened: Sequence[Bundle]) -> Report:
    question, truth = one.here.question, one.here.truth
    known = _baselines(one, opened) + [scored(each, one.here) for each in said]
    positive, labels = question.positive, question.labels
    resamples, groups = whole.num_resamples, threads(one.posts)
    if question.kind == "many":
        counts = dict(zip(labels, truth.sum(0).tolist(), strict=True))
    else:
        counts = dict(Counter(labels[index] for index in truth))
    return replace(
        whole,
        question=question.name,
        kind=question.kind,
        rows=[_row(each, one.here, groups, resamples) for each in known],
        counts=counts,
        groups=0 if groups is None else len(set(groups.tolist())),
        positive=None if positive is None else labels[positive],
        differences=_differences(known, opened, truth, positive, groups, resamples),
    )


def _arms(opened: Bundle, posts: list[Post], cache: Path | None, note: str) -> list[Said]:
    """Score every arm, and without intentions each kind of content alone."""
    predictor = Predictor(opened, posts, cache)
    inputs, name = opened.recipe.inputs, opened.path.name

    def say(arm: str, shown: str, without: tuple[str, ...] = ()) -> Said:
        fitted = zip(opened.questions, opened.calibrations, strict=True)
        limits = {q.name: c.thresholds[arm] for q, c in fitted if arm in c.thresholds}
        return Said(name, shown, predictor.probabilities(arm, without), limits, note)

    found = [say(arm, arm) for arm in arms(opened.recipe)]
    content = [kind for kind in inputs if kind != "intention"]
    for kind in content if len(content) > 1 else ():
        others = tuple(other for other in content if other != kind)
        found.append(say("without", f"without, {kind} only", others))
    return found


def _baselines(one: Asked, opened: Sequence[Bundle]) -> list[Scored]:
    truth, posts, train = one.learned.truth, one.posts, one.train
    num_labels = len(one.here.question.labels)
    if not train:
        return []
    rows = [Scored("majority", "-", baselines.majority(truth, num_labels, len(posts)), None)]
    reads = {name for each in opened for name in each.recipe.inputs}
    mixes = [("text",), ("text", "description")] if "description" in reads else [("text",)]
    for mix in mixes:
        probabilities = baselines.tfidf_logistic(
            _joined(train, mix), truth, _joined(posts, mix), num_labels
        )
        rows.append(Scored("TF-IDF + logistic", " + ".join(mix), probabilities, None))
    return rows


def _joined(posts: list[Post], names: tuple[str, ...]) -> list[str]:
    return [" ".join(getattr(post, name) or "" for name in names) for post in posts]


def _row(one: Scored, part: Part, groups: Groups, num_resamples: int) -> Row:
    intervals = bootstrap(
        one.probabilities,
        part.truth,
        positive=part.question.positive,
        threshold=one.threshold,
        groups=groups,
        num_resamples=num_resamples,
    )
    threshold: Threshold | None
    if isinstance(one.threshold, tuple):
        threshold = dict(zip(part.question.labels, one.threshold, strict=True))
    else:
        threshold = one.threshold
    return Row(one.system, one.arm, len(part.rows), intervals, threshold, one.note)


def _differences(
    scored: Sequence[Scored],
    opened: Sequence[Bundle],
    truth: NDArray[np.int64],
    positive: int | None,
    groups: Groups,
    num_resamples: int,
) -> list[Difference]:
    """Compare the arms of each bundle with its `without`, and later bundles with the first."""
    by_name = {one.name: one for one in scored}
    pairs = [
        (f"{each.path.name}/{arm}", f"{each.path.name}/without")
        for each in opened
        for arm in arms(each.recipe)
        if arm != "without"
    ]
    first, *later = [f"{each.path.name}/{_usual(each.recipe)}" for each in opened]
    pairs += [(name, first) for name in later]
    return [
        Difference(
            a,
            b,
            metric,
            paired_difference(
                by_name[a].probabilities,
                by_name[b].probabilities,
                truth,
                positive=positive,
                threshold=_thresholds(by_name[a], by_name[b]),
                groups=groups,
                metric=metric,
                num_resamples=num_resamples,
            ),
        )
        for a, b in pairs
        for metric in COMPARED
    ]


def _usual(recipe: Recipe) -> str:
    return serving_arms(recipe)[0]


def _thresholds(a: Scored, b: Scored) -> tuple[Limit, Limit] | None:
    if a.threshold is None or b.threshold is None:
        return None
    return a.threshold, b.threshold


def _common_questions(opened: Sequence[Bundle]) -> Questions:
    first = opened[0]
    for each in opened[1:]:
        if each.questions != first.questions:
            raise BundleError(
                f"{each.path} answers {', '.join(each.labels)} and {first.path} "
                f"{', '.join(first.labels)}; only systems with the same labels compare"
            )
    names = Counter(each.path.name for each in opened)
    for name, count in names.items():
        if count > 1:
            raise BundleError(f"two bundles are called {name}; rename one")
    return first.questions


def _note(opened: Bundle, data: DataFolder) -> str:
    if opened.manifest["data"]["train"] == data.fingerprint("train"):
        return ""
    Console(stderr=True).print(
        f"{opened.path} was trained on other posts than the train split of {data.path}",
        highlight=False,
    )
    return "trained on other posts than this data's train split"
