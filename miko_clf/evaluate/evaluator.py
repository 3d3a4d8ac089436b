"""Bundles and their arms on the same posts, beside baselines, with their analyses."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle, Threshold
from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.dataset import DataFolder
from miko_clf.data.labels import TaskLabels
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.evaluate.analysis.mistakes import analyse_errors
from miko_clf.evaluate.analysis.robustness import measure_robustness
from miko_clf.evaluate.bootstrap import DecisionThresholds as Limit
from miko_clf.evaluate.bootstrap import (
    MetricDifference,
    bootstrap_paired_difference,
    bootstrap_scores,
)
from miko_clf.evaluate.curves import measure_curves
from miko_clf.evaluate.explain.attribution import attribute_decisions
from miko_clf.evaluate.explain.neighbours import find_neighbours
from miko_clf.evaluate.explain.relations import measure_relations
from miko_clf.evaluate.explain.shapley import measure_shapley
from miko_clf.evaluate.lockbox import describe_openings as lockbox_said
from miko_clf.evaluate.lockbox import open_lockbox
from miko_clf.evaluate.predictions import (
    ArmPredictions,
    Predictor,
    QuestionPosts,
    QuestionPredictions,
    SystemPredictions,
    list_questions,
    number_groups,
    predict_system,
    select_question,
)
from miko_clf.evaluate.reliability import measure_calibration
from miko_clf.evaluate.report import Report, ReportRow
from miko_clf.intervals import RowGroups
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.train.predict import list_arms, list_serving_arms

# Both chosen once by 5-fold cross-validation on the training rows of Harm-C, text with and without
# captions: mean macro-F1 .748; .3 to 30, with and without class weights, were tried.
_INVERSE_REGULARISATION = 3.0
_CLASS_WEIGHT = "balanced"


def predict_majority(
    train_truth: Int[np.ndarray, " train"] | Int[np.ndarray, "train label"],
    num_labels: int,
    num_rows: int,
) -> Float[np.ndarray, "row label"]:
    """Return each class's share of the training rows, the same for every row.

    The truth is the index of a row's class or, where any may hold, 1 for each that does.
    """
    if train_truth.ndim == 2:
        return np.tile(train_truth.mean(0), (num_rows, 1))
    shares = np.bincount(train_truth, minlength=num_labels) / len(train_truth)
    return np.tile(shares, (num_rows, 1))


def predict_tfidf_logistic(
    train_texts: Sequence[str],
    train_truth: Int[np.ndarray, " train"] | Int[np.ndarray, "train label"],
    texts: Sequence[str],
    num_labels: int,
) -> Float[np.ndarray, "row label"]:
    """Return the probabilities of a logistic regression on TF-IDF of words and word pairs.

    A class without training rows gets 0. Training rows of one class, or without a word, give what
    `majority` gives. Where any number of classes may hold there is a regression for each.
    """
    if train_truth.ndim == 2:
        each = [predict_tfidf_logistic(train_texts, held, texts, 2)[:, 1] for held in train_truth.T]
        return np.stack(each, axis=1)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    analyse = vectoriser.build_analyzer()
    spread = Counter(term for text in train_texts for term in set(analyse(text)))
    if not spread or len(np.unique(train_truth)) < 2:
        return predict_majority(train_truth, num_labels, len(texts))
    vectoriser.set_params(min_df=min(2, max(spread.values())))  # a few rows may share no term
    model = make_pipeline(
        vectoriser,
        LogisticRegression(C=_INVERSE_REGULARISATION, class_weight=_CLASS_WEIGHT, max_iter=1000),
    ).fit(train_texts, train_truth)
    probabilities = np.zeros((len(texts), num_labels))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return probabilities


def explain_decisions(
    subject: SystemPredictions,
    rows: Sequence[int],
    *,
    num_resamples: int = 1000,
    attribution: bool = False,
) -> dict[str, Any]:
    """Return `shapley`, `relations`, `neighbours` and, if asked for, `attribution`.

    The first two are over all posts; `rows` are the posts whose neighbours, words and patches are
    wanted. A key is absent where the system has nothing of the kind. Values are plain apart from
    `Interval`. Raises `MikoError` where attribution is wanted and captum is not there.
    """
    attributed = attribute_decisions(subject, rows) if attribution else None
    found = {
        "shapley": asdict(measure_shapley(subject, num_resamples)),
        "relations": [asdict(each) for each in measure_relations(subject, num_resamples)],
        "neighbours": [asdict(each) for each in find_neighbours(subject, rows)],
        "attribution": asdict(attributed) if attributed else {},
    }
    return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class AnalysisOptions:
    """What is looked into. `few` leaves everything out but the scores.

    `images` lays small pictures of mistakes into the report, `groups` are lists of words by the
    name of a group. Robustness runs the towers again for each change; attribution needs captum.
    """

    few: bool = False
    images: bool = False
    robustness: bool = False
    attribution: bool = False
    groups: Mapping[str, Sequence[str]] | None = None


def analyse_system(
    opened: Bundle,
    one: QuestionPosts,
    wanted: AnalysisOptions,
    *,
    cache: Path | None,
    num_resamples: int,
) -> dict[str, Any]:
    """Return findings by name, of the bundle in its usual arm on the posts that answer a question.

    Empty where any number of labels may hold. Values are plain apart from `Interval`.
    """
    predictor = Predictor(opened, one.posts, cache)
    seen = predict_system(opened, predictor, one.here, one.train, cache)
    if wanted.few or seen is None:
        return {}
    found = {
        "system": opened.path.name,
        "arm": seen.arm,
        "curves": asdict(measure_curves(seen, num_resamples=num_resamples)),
        "calibration": asdict(measure_calibration(seen, num_resamples)),
        **analyse_errors(seen, images=wanted.images, groups=wanted.groups),
    }
    places = {post.id: row for row, post in enumerate(seen.posts)}
    rows = [places[each["id"]] for each in found.get("mistakes", [])]
    found |= explain_decisions(
        seen, rows, num_resamples=num_resamples, attribution=wanted.attribution
    )
    if wanted.robustness:
        changed = measure_robustness(seen, num_resamples=num_resamples)
        found["robustness"] = [asdict(each) for each in changed]
    return found


def audit_split(train: Sequence[Post], posts: Sequence[Post], split: str) -> dict[str, Any]:
    """Return the lines of the cheap audit of a split beside train."""
    return {
        "lines": list_quick_warnings(
            {"train": train, split: posts} if split != "train" else {"train": train}
        )
    }


_COMPARED = ("macro_f1", "auroc")
_SCORES_ALONE = AnalysisOptions(few=True)


def compare(
    bundles: Sequence[Path],
    data: DataFolder,
    split: str,
    *,
    cache: Path | None,
    num_resamples: int,
    command: str,
    wanted: AnalysisOptions = _SCORES_ALONE,
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
    opened = [bundle.load_bundle(path) for path in bundles]
    questions = _common_questions(opened)
    openings = open_lockbox(opened, data, split, command)
    posts, train = data.read(split), data.read("train")
    asks = list_questions(posts, train, questions, data.path, split)
    said = [one for each in opened for one in _predict_arms(each, posts, cache, _note(each, data))]
    whole = Report(
        rows=[],
        data=str(data.path),
        fingerprint=data.fingerprint(split),
        split=split,
        counts={},
        positive=None,
        versions=manifest.collect_versions(),
        command=command,
        seconds=0.0,
        num_resamples=num_resamples,
    )
    first, *others = [_report_question(whole, one, said, opened) for one in asks]
    found = analyse_system(opened[0], asks[0], wanted, cache=cache, num_resamples=num_resamples)
    if not wanted.few:
        found |= {"lockbox": lockbox_said(openings), "audit": audit_split(train, posts, split)}
    first = replace(first, findings=found)
    seconds = round(time.monotonic() - started, 1)
    others = [replace(each, seconds=seconds) for each in others]
    return replace(first, seconds=seconds, others=others)


def _report_question(
    whole: Report, one: QuestionPosts, said: Sequence[ArmPredictions], opened: Sequence[Bundle]
) -> Report:
    question, truth = one.here.question, one.here.truth
    known = _predict_baselines(one, opened) + [select_question(each, one.here) for each in said]
    positive, labels = question.positive, question.labels
    resamples, groups = whole.num_resamples, number_groups(one.posts)
    if question.kind == "many":
        counts = dict(zip(labels, truth.sum(0).tolist(), strict=True))
    else:
        counts = dict(Counter(labels[index] for index in truth))
    return replace(
        whole,
        question=question.name,
        kind=question.kind,
        rows=[_score_row(each, one.here, groups, resamples) for each in known],
        counts=counts,
        groups=0 if groups is None else len(set(groups.tolist())),
        positive=None if positive is None else labels[positive],
        differences=_differences(known, opened, truth, positive, groups, resamples),
    )


def _predict_arms(
    opened: Bundle, posts: list[Post], cache: Path | None, note: str
) -> list[ArmPredictions]:
    """Score every arm, and without intentions each kind of content alone."""
    predictor = Predictor(opened, posts, cache)
    inputs, name = opened.recipe.inputs, opened.path.name

    def say(arm: str, shown: str, without: tuple[str, ...] = ()) -> ArmPredictions:
        fitted = zip(opened.questions, opened.calibrations, strict=True)
        limits = {q.name: c.thresholds[arm] for q, c in fitted if arm in c.thresholds}
        return ArmPredictions(name, shown, predictor.probabilities(arm, without), limits, note)

    found = [say(arm, arm) for arm in list_arms(opened.recipe)]
    content = [kind for kind in inputs if kind != "intention"]
    for kind in content if len(content) > 1 else ():
        others = tuple(other for other in content if other != kind)
        found.append(say("without", f"without, {kind} only", others))
    return found


def _predict_baselines(one: QuestionPosts, opened: Sequence[Bundle]) -> list[QuestionPredictions]:
    truth, posts, train = one.learned.truth, one.posts, one.train
    num_labels = len(one.here.question.labels)
    if not train:
        return []
    rows = [
        QuestionPredictions("majority", "-", predict_majority(truth, num_labels, len(posts)), None)
    ]
    reads = {name for each in opened for name in each.recipe.inputs}
    mixes = [("text",), ("text", "description")] if "description" in reads else [("text",)]
    for mix in mixes:
        probabilities = predict_tfidf_logistic(
            _join_texts(train, mix), truth, _join_texts(posts, mix), num_labels
        )
        rows.append(QuestionPredictions("TF-IDF + logistic", " + ".join(mix), probabilities, None))
    return rows


def _join_texts(posts: list[Post], names: tuple[str, ...]) -> list[str]:
    return [" ".join(getattr(post, name) or "" for name in names) for post in posts]


def _score_row(
    one: QuestionPredictions, part: TaskLabels, groups: RowGroups, num_resamples: int
) -> ReportRow:
    intervals = bootstrap_scores(
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
    return ReportRow(one.system, one.arm, len(part.rows), intervals, threshold, one.note)


def _differences(
    scored: Sequence[QuestionPredictions],
    opened: Sequence[Bundle],
    truth: NDArray[np.int64],
    positive: int | None,
    groups: RowGroups,
    num_resamples: int,
) -> list[MetricDifference]:
    """Compare the arms of each bundle with its `without`, and later bundles with the first."""
    by_name = {one.name: one for one in scored}
    pairs = [
        (f"{each.path.name}/{arm}", f"{each.path.name}/without")
        for each in opened
        for arm in list_arms(each.recipe)
        if arm != "without"
    ]
    first, *later = [f"{each.path.name}/{_usual(each.recipe)}" for each in opened]
    pairs += [(name, first) for name in later]
    return [
        MetricDifference(
            a,
            b,
            metric,
            bootstrap_paired_difference(
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
        for metric in _COMPARED
    ]


def _usual(recipe: Recipe) -> str:
    return list_serving_arms(recipe)[0]


def _thresholds(a: QuestionPredictions, b: QuestionPredictions) -> tuple[Limit, Limit] | None:
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
