"""Systems and their arms on the same posts, beside the baselines that every table needs."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.folder import DataFolder
from miko_clf.data.post import Post
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate import baselines
from miko_clf.evaluate.interval import bootstrap, paired_difference
from miko_clf.evaluate.predict import Predictor
from miko_clf.evaluate.report import Difference, Report, Row
from miko_clf.recipe import Recipe
from miko_clf.train.infer import arms, serving_arms

COMPARED = ("macro_f1", "auroc")


class Scored(NamedTuple):
    """The probabilities, (post, label), of one system in one arm."""

    system: str
    arm: str
    probabilities: NDArray[np.float64]
    threshold: float | None
    note: str = ""

    @property
    def name(self) -> str:
        """System and arm in one word."""
        return f"{self.system}/{self.arm}"


def compare(
    bundles: Sequence[Path],
    data: DataFolder,
    split: str,
    *,
    cache: Path | None,
    num_resamples: int,
    command: str,
) -> Report:
    """Return what each bundle scores in each of its arms on one split.

    Thresholds and temperatures are the bundles' own, fitted on validation. Baselines are
    fitted on the train split of the same data. Raises a `MikoError` where bundles answer
    different labels, or a post has a label that none of them knows.
    """
    started = time.monotonic()
    opened = [bundle.read(path) for path in bundles]
    labels = _common_labels(opened)
    posts, train = data.read(split), data.read("train")
    truth, train_truth = _truth(posts, labels, split), _truth(train, labels, "train")
    scored = _baselines(train, train_truth, posts, labels, opened)
    for each in opened:
        scored += _arms(each, posts, cache, _note(each, data))
    positive = bundle.positive(labels)
    return Report(
        rows=[_row(one, truth, positive, num_resamples) for one in scored],
        data=str(data.path),
        fingerprint=data.fingerprint(split),
        split=split,
        counts=dict(Counter(labels[index] for index in truth)),
        positive=None if positive is None else labels[positive],
        versions=manifest.versions(),
        command=command,
        seconds=round(time.monotonic() - started, 1),
        differences=_differences(scored, opened, truth, positive, num_resamples),
        num_resamples=num_resamples,
    )


def _arms(opened: Bundle, posts: list[Post], cache: Path | None, note: str) -> list[Scored]:
    """Score every arm, and without intentions each kind of content alone."""
    predictor = Predictor(opened, posts, cache)
    thresholds, inputs = opened.calibration.thresholds, opened.recipe.inputs
    name = opened.path.name
    scored = [
        Scored(name, arm, predictor.probabilities(arm), thresholds.get(arm), note)
        for arm in arms(opened.recipe)
    ]
    content = [kind for kind in inputs if kind != "intention"]
    for kind in content if len(content) > 1 else ():
        others = tuple(other for other in content if other != kind)
        probabilities = predictor.probabilities("without", others)
        arm = f"without, {kind} only"
        scored.append(Scored(name, arm, probabilities, thresholds.get("without"), note))
    return scored


def _baselines(
    train: list[Post],
    train_truth: NDArray[np.int64],
    posts: list[Post],
    labels: tuple[str, ...],
    opened: Sequence[Bundle],
) -> list[Scored]:
    rows = [Scored("majority", "-", baselines.majority(train_truth, len(labels), len(posts)), None)]
    reads = {name for each in opened for name in each.recipe.inputs}
    mixes = [("text",), ("text", "description")] if "description" in reads else [("text",)]
    for mix in mixes:
        probabilities = baselines.tfidf_logistic(
            _joined(train, mix), train_truth, _joined(posts, mix), len(labels)
        )
        rows.append(Scored("TF-IDF + logistic", " + ".join(mix), probabilities, None))
    return rows


def _joined(posts: list[Post], names: tuple[str, ...]) -> list[str]:
    return [" ".join(getattr(post, name) or "" for name in names) for post in posts]


def _row(one: Scored, truth: NDArray[np.int64], positive: int | None, num_resamples: int) -> Row:
    intervals = bootstrap(
        one.probabilities,
        truth,
        positive=positive,
        threshold=one.threshold,
        num_resamples=num_resamples,
    )
    return Row(one.system, one.arm, len(truth), intervals, one.threshold, one.note)


def _differences(
    scored: Sequence[Scored],
    opened: Sequence[Bundle],
    truth: NDArray[np.int64],
    positive: int | None,
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
                metric=metric,
                num_resamples=num_resamples,
            ),
        )
        for a, b in pairs
        for metric in COMPARED
    ]


def _usual(recipe: Recipe) -> str:
    return serving_arms(recipe)[0]


def _thresholds(a: Scored, b: Scored) -> tuple[float, float] | None:
    if a.threshold is None or b.threshold is None:
        return None
    return a.threshold, b.threshold


def _common_labels(opened: Sequence[Bundle]) -> tuple[str, ...]:
    first = opened[0]
    for each in opened[1:]:
        if each.labels != first.labels:
            raise BundleError(
                f"{each.path} answers {', '.join(each.labels)} and {first.path} "
                f"{', '.join(first.labels)}; only systems with the same labels compare"
            )
    names = Counter(each.path.name for each in opened)
    for name, count in names.items():
        if count > 1:
            raise BundleError(f"two bundles are called {name}; rename one")
    return first.labels


def _truth(posts: list[Post], labels: tuple[str, ...], split: str) -> NDArray[np.int64]:
    for post in posts:
        if post.label not in labels:
            raise PostError(
                f"post {post.id!r} of {split} is labelled {post.label!r}; "
                f"the bundles know {', '.join(labels)} (--label-map renames labels)"
            )
    return np.array([labels.index(str(post.label)) for post in posts], dtype=np.int64)


def _note(opened: Bundle, data: DataFolder) -> str:
    if opened.manifest["data"]["train"] == data.fingerprint("train"):
        return ""
    Console(stderr=True).print(
        f"{opened.path} was trained on other posts than the train split of {data.path}",
        highlight=False,
    )
    return "trained on other posts than this data's train split"
