"""Bundles and their arms on the same posts, beside baselines, with their analyses."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from miko_clf import manifest
from miko_clf.bundle import Bundle, load_bundle
from miko_clf.data.audit.drift import describe_drift, measure_drift
from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.dataset import DataFolder
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.evaluate.analysis.mistakes import analyse_errors
from miko_clf.evaluate.analysis.origins import analyse_origins
from miko_clf.evaluate.analysis.overlap import measure_overlap
from miko_clf.evaluate.analysis.review_desk import measure_review_desk
from miko_clf.evaluate.analysis.robustness import measure_robustness
from miko_clf.evaluate.bootstrap import (
    MetricDifference,
    bootstrap_paired_difference,
    bootstrap_scores,
)
from miko_clf.evaluate.comparison import COMPARED_METRICS
from miko_clf.evaluate.curves import measure_curves
from miko_clf.evaluate.explain.attribution import attribute_decisions
from miko_clf.evaluate.explain.neighbours import find_neighbours
from miko_clf.evaluate.explain.relations import measure_relations
from miko_clf.evaluate.explain.shapley import measure_shapley
from miko_clf.evaluate.lockbox import describe_openings, open_lockbox
from miko_clf.evaluate.predictions import (
    ArmPredictions,
    Predictor,
    QuestionPosts,
    QuestionPredictions,
    SystemPredictions,
    list_questions,
    name_report_arm,
    number_groups,
    predict_system,
    refuse_equal_names,
    select_question,
)
from miko_clf.evaluate.reliability import measure_calibration
from miko_clf.evaluate.report import Report, ReportRow
from miko_clf.intervals import RowGroups
from miko_clf.questions import Questions
from miko_clf.train.predict import list_arms, list_serving_arms


@dataclass(frozen=True)
class AnalysisOptions:
    """What is looked into besides the scores.

    `images` lays small pictures of mistakes into the report, `groups` are lists of words by the
    name of a group. Robustness runs the towers again for each change; attribution needs captum.
    """

    images: bool = False
    robustness: bool = False
    attribution: bool = False
    groups: Mapping[str, Sequence[str]] | None = None


def evaluate_bundles(
    paths: Sequence[Path],
    data: DataFolder,
    split: str,
    *,
    cache: Path | None,
    num_resamples: int,
    command: str,
    analyses: AnalysisOptions | None = None,
    allow_overlap: bool = False,
) -> Report:
    """Return what each bundle scores in each of its arms on one split.

    Thresholds and temperatures are the bundles' own, fitted on validation. Baselines are
    fitted on the train split of the same data. Intervals draw posts of one group together.
    Where several questions are asked the report is of the first, with those of the others, each on
    the posts that answer it. The `analyses`, if any, are of the first bundle. Opening the test
    split is counted in every bundle. Raises a `MikoError` where bundles answer different labels, a
    post has none that they know, or, unless allowed, over a tenth of test was learned from.
    """
    started = time.monotonic()
    bundles = [load_bundle(path) for path in paths]
    questions = _find_common_questions(bundles)
    _refuse_learned_split(bundles, data, split)
    openings = open_lockbox(bundles, data, split, command, allow_overlap=allow_overlap)
    posts, train = data.read(split), data.read("train")
    tasks = list_questions(posts, train, questions, data.path, split)
    predictions = [
        arm for b in bundles for arm in _predict_arms(b, posts, cache, _note_training_data(b, data))
    ]
    bare = Report(
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
    first, *others = [_report_question(bare, task, predictions, bundles) for task in tasks]
    if analyses is not None:
        findings = _analyse_system(bundles[0], tasks[0], analyses, cache, num_resamples)
        findings["lockbox"] = describe_openings(openings, data.fingerprint(split))
        findings["audit"] = audit_split(train, posts, split)
        first = replace(first, findings=findings)
    seconds = round(time.monotonic() - started, 1)
    return replace(first, seconds=seconds, others=[replace(o, seconds=seconds) for o in others])


def _find_common_questions(bundles: Sequence[Bundle]) -> Questions:
    first = bundles[0]
    for other in bundles:
        if other.questions != first.questions:
            raise BundleError(
                f"{other.path} answers {', '.join(other.labels)} and {first.path} "
                f"{', '.join(first.labels)}; only systems with the same labels compare"
            )
    refuse_equal_names(bundles)
    return first.questions


def _refuse_learned_split(bundles: Sequence[Bundle], data: DataFolder, split: str) -> None:
    """Raise where a bundle that was fitted once more with val would be asked about it."""
    for bundle in bundles:
        learned = set(bundle.manifest.get("learned_from", ())) - {"train"}
        if data.fingerprint(split) in {bundle.manifest["data"][name] for name in learned}:
            raise BundleError(
                f"{bundle.path} learned from {split} too (task.refit), so it says nothing of "
                "itself there; ask about test, or train it with task.refit: false"
            )


def _note_training_data(bundle: Bundle, data: DataFolder) -> str:
    if bundle.manifest["data"]["train"] == data.fingerprint("train"):
        return ""
    Console(stderr=True).print(
        f"{bundle.path} was trained on other posts than the train split of {data.path}",
        highlight=False,
    )
    return "trained on other posts than this data's train split"


def _predict_arms(
    bundle: Bundle, posts: list[Post], cache: Path | None, note: str
) -> list[ArmPredictions]:
    """Score every arm, and without intentions each kind of content alone."""
    predictor = Predictor(bundle, posts, cache)
    fitted = list(zip(bundle.questions, bundle.calibrations, strict=True))
    bare = name_report_arm(bundle.recipe, "without")

    def predict(arm: str, name: str, hidden: tuple[str, ...] = ()) -> ArmPredictions:
        limits = {q.name: c.thresholds[arm] for q, c in fitted if arm in c.thresholds}
        probabilities = predictor.probabilities(arm, hidden)
        return ArmPredictions(bundle.path.name, name, probabilities, limits, note)

    arms = list_arms(bundle.recipe)
    predictions = [predict(arm, name_report_arm(bundle.recipe, arm)) for arm in arms]
    content = [kind for kind in bundle.recipe.inputs if kind != "intention"]
    for kind in content if len(content) > 1 else ():
        others = tuple(other for other in content if other != kind)
        predictions.append(predict("without", f"{bare}, {kind} only", others))
    return predictions


def _report_question(
    bare: Report,
    task: QuestionPosts,
    predictions: Sequence[ArmPredictions],
    bundles: Sequence[Bundle],
) -> Report:
    question, truth = task.here.question, task.here.truth
    rows = _predict_baselines(task, bundles)
    rows += [select_question(arm, task.here) for arm in predictions]
    positive, labels, groups = question.positive, question.labels, number_groups(task.posts)
    if question.kind == "many":
        counts = dict(zip(labels, truth.sum(0).tolist(), strict=True))
    else:
        counts = dict(Counter(labels[index] for index in truth))
    return replace(
        bare,
        question=question.name,
        kind=question.kind,
        rows=[_score_row(row, task, groups, bare.num_resamples) for row in rows],
        counts=counts,
        groups=0 if groups is None else len(np.unique(groups)),
        positive=None if positive is None else labels[positive],
        differences=_list_differences(rows, bundles, task, groups, bare.num_resamples),
    )


def _predict_baselines(task: QuestionPosts, bundles: Sequence[Bundle]) -> list[QuestionPredictions]:
    truth, posts, train = task.learned.truth, task.posts, task.train
    num_labels = len(task.here.question.labels)
    if not train:
        return []
    shares = predict_majority(truth, num_labels, len(posts))
    rows = [QuestionPredictions("majority", "-", shares, None)]
    inputs = {name for bundle in bundles for name in bundle.recipe.inputs}
    mixes = [("text",), ("text", "description")] if "description" in inputs else [("text",)]
    for mix in mixes:
        train_texts, texts = (
            [" ".join(getattr(post, name) or "" for name in mix) for post in some]
            for some in (train, posts)
        )
        probabilities = predict_tfidf_logistic(train_texts, truth, texts, num_labels)
        rows.append(QuestionPredictions("TF-IDF + logistic", " + ".join(mix), probabilities, None))
    return rows


def _score_row(
    row: QuestionPredictions, task: QuestionPosts, groups: RowGroups, num_resamples: int
) -> ReportRow:
    question, threshold = task.here.question, row.threshold
    intervals = bootstrap_scores(
        row.probabilities,
        task.here.truth,
        positive=question.positive,
        threshold=threshold,
        groups=groups,
        num_resamples=num_resamples,
    )
    shown = (
        dict(zip(question.labels, threshold, strict=True))
        if isinstance(threshold, tuple)
        else threshold
    )
    return ReportRow(row.system, row.arm, len(task.posts), intervals, shown, row.note)


def _list_differences(
    rows: Sequence[QuestionPredictions],
    bundles: Sequence[Bundle],
    task: QuestionPosts,
    groups: RowGroups,
    num_resamples: int,
) -> list[MetricDifference]:
    """Compare the arms of each bundle with its `masked`, and later bundles with the first."""
    by_name = {row.name: row for row in rows}
    pairs = [
        (f"{bundle.path.name}/{arm}", f"{bundle.path.name}/masked")
        for bundle in bundles
        for arm in list_arms(bundle.recipe)
        if arm != "without"
    ]
    first, *later = [f"{b.path.name}/{list_serving_arms(b.recipe)[0]}" for b in bundles]
    pairs += [(name, first) for name in later]

    def subtract(a: QuestionPredictions, b: QuestionPredictions, metric: str) -> MetricDifference:
        known = a.threshold is not None and b.threshold is not None
        interval = bootstrap_paired_difference(
            a.probabilities,
            b.probabilities,
            task.here.truth,
            positive=task.here.question.positive,
            threshold=(a.threshold, b.threshold) if known else None,
            groups=groups,
            metric=metric,
            num_resamples=num_resamples,
        )
        return MetricDifference(a.name, b.name, metric, interval)

    return [subtract(by_name[a], by_name[b], m) for a, b in pairs for m in COMPARED_METRICS]


def _analyse_system(
    bundle: Bundle,
    task: QuestionPosts,
    options: AnalysisOptions,
    cache: Path | None,
    num_resamples: int,
) -> dict[str, Any]:
    """Return findings by name, of the bundle in its usual arm on the posts that answer a question.

    Empty where any number of labels may hold. Values are plain apart from `Interval`.
    """
    predictor = Predictor(bundle, task.posts, cache)
    predictions = predict_system(bundle, predictor, task.here, task.train, cache)
    if predictions is None:
        return {}
    findings = {
        "system": bundle.path.name,
        "arm": predictions.arm,
        "curves": asdict(measure_curves(predictions, num_resamples=num_resamples)),
        "calibration": asdict(measure_calibration(predictions, num_resamples)),
        "review_desk": [
            load._asdict() for load in measure_review_desk(predictions, num_resamples=num_resamples)
        ],
        **measure_overlap(predictions, num_resamples),
        **analyse_errors(predictions, images=options.images, groups=options.groups),
        **analyse_origins(predictions, num_resamples),
    }
    places = {post.id: row for row, post in enumerate(predictions.posts)}
    rows = [places[mistake["id"]] for mistake in findings.get("mistakes", [])]
    findings |= explain_decisions(
        predictions, rows, num_resamples=num_resamples, attribution=options.attribution
    )
    if options.robustness:
        effects = measure_robustness(predictions, num_resamples=num_resamples)
        findings["robustness"] = [asdict(effect) for effect in effects]
    return findings


def explain_decisions(
    predictions: SystemPredictions,
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
    attributed = attribute_decisions(predictions, rows) if attribution else None
    relations = measure_relations(predictions, num_resamples)
    findings = {
        "shapley": asdict(measure_shapley(predictions, num_resamples)),
        "relations": [asdict(relation) for relation in relations],
        "neighbours": [asdict(post) for post in find_neighbours(predictions, rows)],
        "attribution": asdict(attributed) if attributed else {},
    }
    return {name: value for name, value in findings.items() if value}


def audit_split(train: Sequence[Post], posts: Sequence[Post], split: str) -> dict[str, Any]:
    """Return the lines of the cheap audit of a split beside train, drift of words among them."""
    if split == "train":
        return {"lines": list_quick_warnings({"train": train})}
    lines = list_quick_warnings({"train": train, split: posts})
    drift = describe_drift(measure_drift(split, train, posts))
    return {"lines": [*lines, drift] if drift else lines}


# Both chosen once by 5-fold cross-validation on the training rows of Harm-C, text with and without
# captions: mean macro-F1 .748; .3 to 30, with and without class weights, were tried.
_INVERSE_REGULARISATION = 3.0
_CLASS_WEIGHT = "balanced"


def predict_majority(
    train_truth: Int[np.ndarray, " train"] | Int[np.ndarray, "train label"],
    num_labels: int,
    num_rows: int,
) -> Float[np.ndarray, "row label"]:
    """Return each class's share of the training rows, the same for every row."""
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
    `predict_majority` gives. Where any number of classes may hold there is a regression for each.
    """
    if train_truth.ndim == 2:
        columns = [
            predict_tfidf_logistic(train_texts, label, texts, 2)[:, 1] for label in train_truth.T
        ]
        return np.stack(columns, axis=1)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    analyse = vectoriser.build_analyzer()
    num_texts = Counter(term for text in train_texts for term in set(analyse(text)))
    if not num_texts or len(np.unique(train_truth)) < 2:
        return predict_majority(train_truth, num_labels, len(texts))
    vectoriser.set_params(min_df=min(2, max(num_texts.values())))  # a few rows may share no term
    model = make_pipeline(
        vectoriser,
        LogisticRegression(C=_INVERSE_REGULARISATION, class_weight=_CLASS_WEIGHT, max_iter=1000),
    ).fit(train_texts, train_truth)
    probabilities = np.zeros((len(texts), num_labels))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return probabilities
