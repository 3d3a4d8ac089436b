"""Calibration of probabilities on validation: temperature, Platt, isotonic, conformal."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from rich.console import Console
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import KFold

from miko_clf import bundle
from miko_clf.data.labels import TaskLabels
from miko_clf.errors import MikoError, RecipeError
from miko_clf.evaluate.thresholds import (
    FEWEST_FIT_ROWS,
    fit_label_thresholds,
    fit_threshold,
    get_label_aim,
    lacks_evidence,
    measure_threshold,
)
from miko_clf.fuse.build import Model
from miko_clf.questions import Question, Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import DecisionSection
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import list_arms, list_serving_arms, predict_logits

TEMPERATURE_BOUNDS = (0.05, 20.0)
_SCALES = (1 / TEMPERATURE_BOUNDS[1], 1 / TEMPERATURE_BOUNDS[0])
_FARTHEST = 40.0  # a shift in logits past which a float64 probability no longer moves
_NUM_FOLDS = 10  # in which each validation row is calibrated by others

_Rows = Float[np.ndarray, "row label"]
_Truth = Int[np.ndarray, " row"] | Int[np.ndarray, "row label"]
_Reached = bundle.ThresholdFit | Mapping[str, bundle.ThresholdFit]


def check_decision(decision: DecisionSection, questions: Questions) -> None:
    """Raise `RecipeError` where no decision of this kind is to be had, before anything is trained.

    Isotonic calibration and every aim but macro-F1 need labels that are decided one by one.
    """
    for question in questions:
        if question.kind != "one" or question.positive is not None:
            continue
        for key, refused, choices in (
            ("calibration", decision.calibration == "isotonic", "auto, temperature or platt"),
            ("aim", decision.aim != "macro_f1", "macro_f1"),
        ):
            if refused:
                raise RecipeError(
                    f"decision.{key}: {getattr(decision, key)} decides between two labels, "
                    f"and posts are labelled for {question.line()}; choose {choices}"
                )
    if decision.conformal is not None and find_spec("mapie") is None:
        raise RecipeError("decision.conformal needs MAPIE; pip install mapie")


def choose_calibration(recipe: Recipe) -> Literal["temperature", "platt", "isotonic"]:
    """Return the calibration of a recipe, which for auto depends on how it learns.

    Weighing classes shifts their logits against each other, which Platt's shift undoes and a
    temperature cannot. The likelihood of label strings, and what is not trained, weigh none.
    """
    task, method = recipe.task, recipe.decision.calibration
    if method != "auto":
        return method
    learns = task.epochs > 0 or recipe.fitted
    weighs = learns and task.class_weights == "balanced" and not task.likelihood
    return "platt" if weighs else "temperature"


def fit_calibrations(
    recipe: Recipe, model: Model, val: EncodedDataset
) -> tuple[bundle.Calibration, ...]:
    """Return what each question needs, fitted on validation alone.

    The calibration is fitted in the usual arm, and in each arm the threshold of the positive
    class, or of every label where any may hold. An aim that validation does not reach is a line
    on stderr. Raises `MikoError` for posts that were not opened as the validation split.
    """
    if val.split != "val":
        raise MikoError(
            f"calibration and thresholds are fitted on split val alone, and these posts are of "
            f"{val.split or 'no split that was named'}"
        )
    usual, method = list_serving_arms(recipe)[0], choose_calibration(recipe)
    decision = recipe.decision.model_copy(update={"calibration": method})
    logits = {arm: predict_logits(model, val, arm) for arm in list_arms(recipe)}
    return tuple(
        _fit_question(part, logits, usual, decision) for part in val.truth.split_by_question()
    )


def _fit_question(
    part: TaskLabels, logits: Mapping[str, _Rows], usual: str, decision: DecisionSection
) -> bundle.Calibration:
    question = part.question
    own = {arm: values[part.rows, part.span] for arm, values in logits.items()}
    fitted = _fit_calibrator(own[usual], part, usual, decision)
    probabilities = {arm: calibrate_question(rows, question, fitted) for arm, rows in own.items()}
    thresholds, reached = _fit_thresholds(probabilities, part, fitted.aim)
    _warn_of_missed_aims(question, reached, fitted.aim)
    prior = conformal = None
    if question.positive is not None:
        positive = probabilities[usual][:, question.positive]
        prior = fit_prior(positive, part.truth == question.positive)
    if decision.conformal is not None and question.kind == "one":
        if fitted.isotonic is not None:
            probabilities = _calibrate_out_of_fold(own, part, usual, decision)
        conformal = _fit_conformal(probabilities, part, decision.conformal)
    fields = {"thresholds": thresholds, "reached": reached, "prior": prior, "conformal": conformal}
    return fitted.model_copy(update=fields)


def _fit_calibrator(
    logits: _Rows, part: TaskLabels, usual: str, decision: DecisionSection
) -> bundle.Calibration:
    assert decision.calibration != "auto", "chosen by then"
    question = part.question
    fitted = bundle.Calibration(
        temperature=fit_temperature(logits, part.truth),
        positive=None if question.positive is None else question.labels[question.positive],
        arm=usual,
        thresholds={},
        aim=bundle.ThresholdAim(name=decision.aim, value=decision.value),
    )
    if decision.calibration == "platt":
        return fitted.model_copy(update={"platt": fit_platt(logits, part.truth)})
    if decision.calibration == "isotonic":
        truth = part.truth if question.kind == "many" else part.truth[:, None]
        columns = zip(compute_margins(logits, question).T, truth.T, strict=True)
        knots = tuple(fit_isotonic(margins, labels) for margins, labels in columns)
        return fitted.model_copy(update={"isotonic": knots if all(knots) else None})
    return fitted


def _fit_thresholds(
    probabilities: Mapping[str, _Rows], part: TaskLabels, aim: bundle.ThresholdAim
) -> tuple[dict[str, bundle.Threshold], dict[str, _Reached]]:
    """Return for each arm the threshold, or that of every label, and what it gives."""
    question, label_aim = part.question, get_label_aim(aim)
    thresholds: dict[str, bundle.Threshold] = {}
    reached: dict[str, _Reached] = {}
    for arm, rows in probabilities.items():
        if question.kind == "many":
            limits = fit_label_thresholds(rows, part.truth, question.labels, aim)
            columns = zip(question.labels, rows.T, part.truth.T, strict=True)
            reached[arm] = {
                name: measure_threshold(stated, truth, limits[name], label_aim)
                for name, stated, truth in columns
            }
            thresholds[arm] = limits
        elif question.positive is not None:
            positive, truth = rows[:, question.positive], part.truth == question.positive
            limit = fit_threshold(positive, truth, aim)
            reached[arm] = measure_threshold(positive, truth, limit, aim)
            thresholds[arm] = limit
    return thresholds, reached


def _warn_of_missed_aims(
    question: Question, reached: Mapping[str, _Reached], aim: bundle.ThresholdAim
) -> None:
    """Say on stderr which thresholds do not keep to the aim, even on validation."""
    for arm, fit in reached.items():
        by_label = {question.labels[-1]: fit} if isinstance(fit, bundle.ThresholdFit) else fit
        for label in (label for label, fit in by_label.items() if not fit.met):
            _print_remark(
                f"arm {arm}: no threshold for {label!r} serves {aim.line()} on validation; "
                "the most cautious one stands in, which decides for it on none of those posts"
            )


def _print_remark(line: str) -> None:
    Console(stderr=True).print(f"calibration: {line}", highlight=False, soft_wrap=True)


def _calibrate_out_of_fold(
    logits: Mapping[str, _Rows], part: TaskLabels, usual: str, decision: DecisionSection
) -> dict[str, _Rows]:
    """Return each row's probabilities by a calibration that was fitted on other rows.

    An isotonic line knows the labels of its own rows, and conformal sets whose quantile is taken
    from those hold the true label in less than their level.
    """
    probabilities = {arm: np.empty_like(values) for arm, values in logits.items()}
    folds = KFold(min(_NUM_FOLDS, len(part.truth)), shuffle=True, random_state=0)
    for others, fold in folds.split(part.truth):
        rest = part._replace(rows=part.rows[others], truth=part.truth[others])
        fitted = _fit_calibrator(logits[usual][others], rest, usual, decision)
        for arm, values in logits.items():
            probabilities[arm][fold] = calibrate_question(values[fold], part.question, fitted)
    return probabilities


def _fit_conformal(
    probabilities: Mapping[str, _Rows], part: TaskLabels, level: float
) -> bundle.ConformalQuantiles | None:
    quantiles = {}
    for arm, rows in probabilities.items():
        quantile = fit_conformal_quantile(rows, part.truth, level)
        if quantile is None:
            asked = part.question.line()
            _print_remark(f"{asked}: too few validation posts for conformal sets of {level:g}")
            return None
        quantiles[arm] = quantile
    return bundle.ConformalQuantiles(level=level, quantiles=quantiles)


def calibrate_logits(
    logits: _Rows, questions: Questions, fitted: Sequence[bundle.Calibration]
) -> _Rows:
    """Return the calibrated probabilities of logits (post, label), question by question."""
    probabilities = np.empty_like(logits)
    for (question, span), own in zip(questions.spans(), fitted, strict=True):
        probabilities[:, span] = calibrate_question(logits[:, span], question, own)
    return probabilities


def calibrate_question(logits: _Rows, question: Question, fitted: bundle.Calibration) -> _Rows:
    """Return one question's probabilities: a softmax where one label holds, or else sigmoids."""
    if fitted.isotonic is not None:
        columns = zip(compute_margins(logits, question).T, fitted.isotonic, strict=True)
        stated = np.stack([np.interp(m, k.margins, k.probabilities) for m, k in columns], axis=1)
        return stated if question.kind == "many" else np.concatenate([1 - stated, stated], axis=1)
    if fitted.platt is not None:
        scaled = logits * np.array(fitted.platt.scale) + np.array(fitted.platt.shift)
    else:
        scaled = logits / fitted.temperature
    return softmax(scaled, axis=1) if question.kind == "one" else expit(scaled)


def compute_margins(logits: _Rows, question: Question) -> _Rows:
    """Return what each decision is made of: the second logit above the first, or each logit.

    Rounded to float32, as a graph's are: where isotonic lines are steep the rest would be seen.
    """
    if question.kind == "one":
        assert logits.shape[1] == 2, "one of more than two labels has no margin"
        logits = logits[:, 1:] - logits[:, :1]
    return logits.astype(np.float32).astype(np.float64)


def select_conformal_labels(probabilities: _Rows, quantile: float) -> Bool[np.ndarray, "row label"]:
    """Return which labels are in the conformal set of each row; a tie is inside."""
    return probabilities >= bundle.bound_conformal_set(quantile)


def fit_temperature(logits: Float[np.ndarray, "row label"], truth: _Truth) -> float:
    """Return the T in `TEMPERATURE_BOUNDS` that minimises the NLL of softmax(logits / T).

    Where `truth` is 1 for each label that holds, that of sigmoid(logits / T) over all labels.
    Guo et al., ICML 2017. Rows that say nothing of confidence give 1, which changes nothing: too
    few of them, one class only, equal logits, or every row right (the best T would be 0).
    Raises ValueError for logits that are not finite.
    """
    assert logits.ndim == 2
    if truth.ndim == 2:
        logits, truth = _set_beside_zero(logits.ravel()), truth.ravel()
    assert truth.shape == logits.shape[:1]
    _check_finite(logits)
    all_right = bool((logits.argmax(1) == truth).all())
    if lacks_evidence(truth) or not np.ptp(logits, axis=1).any() or all_right:
        return 1.0
    logits = logits.astype(np.float64)

    def nll(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scores[np.arange(len(truth)), truth].mean())

    # convex in 1/T (Boyd & Vandenberghe, 3.1.5), hence one minimum in log T
    best = minimize_scalar(nll, bounds=tuple(np.log(TEMPERATURE_BOUNDS)), method="bounded")
    return float(np.exp(best.x).clip(*TEMPERATURE_BOUNDS))


def fit_platt(logits: Float[np.ndarray, "row label"], truth: _Truth) -> bundle.PlattScaling | None:
    """Return a factor and a shift for each logit that minimise the NLL, factors above 0.

    Of two labels it is Platt's sigmoid of the margin (1999), of more vector scaling (Guo et al.,
    ICML 2017); where `truth` is 1 for each label that holds, Platt's sigmoid for each. Factors
    stay within those of `TEMPERATURE_BOUNDS`, so that rows which can be told apart have a best one.
    None where the rows say too little: fewer than `FEWEST_FIT_ROWS`, or a label that never, or
    always, holds. Raises ValueError for logits that are not finite.
    """
    _check_finite(logits)
    num_labels = logits.shape[1]
    one_hot = truth if truth.ndim == 2 else np.eye(num_labels, dtype=np.int64)[truth]
    if any(lacks_evidence(column) for column in one_hot.T):
        return None
    if truth.ndim == 2:
        columns = zip(logits.T, truth.T, strict=True)
        fits = [_fit_scales(_set_beside_zero(own), labels) for own, labels in columns]
        scale, shift = zip(*((a[1], b[1]) for a, b in fits), strict=True)
    elif num_labels == 2:
        a, b = _fit_scales(_set_beside_zero(logits[:, 1] - logits[:, 0]), truth)
        scale, shift = (a[1], a[1]), tuple(b)
    else:
        scale, shift = map(tuple, _fit_scales(logits, truth))
    return bundle.PlattScaling(scale=tuple(map(float, scale)), shift=tuple(map(float, shift)))


def fit_isotonic(
    margins: Float[np.ndarray, " row"], truth: Int[np.ndarray, " row"]
) -> bundle.IsotonicKnots | None:
    """Return the line that never falls and is nearest to `truth` in the least squares.

    Zadrozny & Elkan, KDD 2002, by scikit-learn. Margins are told apart in float32, as a graph
    tells them apart. None where the rows say too little, as for `fit_platt`.
    """
    _check_finite(margins)
    if lacks_evidence(truth):
        return None
    rounded = margins.astype(np.float32).astype(np.float64)
    line = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(rounded, truth)
    return bundle.IsotonicKnots(
        margins=tuple(line.X_thresholds_.tolist()),
        probabilities=tuple(line.y_thresholds_.clip(0, 1).tolist()),
    )


def fit_prior(
    positive_probabilities: Float[np.ndarray, " row"], positive_truth: Bool[np.ndarray, " row"]
) -> float | None:
    """Return the share of the positive class that probabilities stand for.

    It is the prior from which moving to the rows' own share (Saerens et al., 2002) makes the mean
    probability that share: the share itself where Platt or isotonic was fitted, and another where
    training weighed the classes and a temperature could not undo it. None where the rows say too
    little.
    """
    if lacks_evidence(positive_truth):
        return None
    share = float(positive_truth.mean())
    with np.errstate(divide="ignore"):
        odds = logit(positive_probabilities.astype(np.float64))

    def gap(shift: float) -> float:
        return float(expit(odds + shift).mean()) - share

    if gap(-_FARTHEST) >= 0 or gap(_FARTHEST) <= 0:
        return share
    prior = float(expit(logit(share) - brentq(gap, -_FARTHEST, _FARTHEST)))
    return prior if 0 < prior < 1 else share


def _fit_scales(
    logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " label"], Float[np.ndarray, " label"]]:
    """Return the factors and shifts of the least NLL; the first shift is 0, as one is free."""
    logits = logits.astype(np.float64)
    num_rows, num_labels = logits.shape
    one_hot = np.eye(num_labels)[truth]

    def nll(both: Float[np.ndarray, " both"]) -> tuple[float, Float[np.ndarray, " both"]]:
        scores = log_softmax(logits * both[:num_labels] + both[num_labels:], axis=1)
        errors = (np.exp(scores) - one_hot) / num_rows
        slopes = np.append((errors * logits).sum(0), errors.sum(0))
        return -float((scores * one_hot).sum()) / num_rows, slopes

    start = np.append(np.ones(num_labels), np.zeros(num_labels))
    bounds = [_SCALES] * num_labels + [(0, 0)] + [(None, None)] * (num_labels - 1)
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    best = minimize(nll, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return best[:num_labels], best[num_labels:]


def _set_beside_zero(margin: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 2"]:
    """Return logits of two labels with this margin; a sigmoid is the softmax over it and 0."""
    return np.stack([np.zeros_like(margin), margin], axis=1)


def _check_finite(values: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("logits hold NaN or infinity")


def fit_conformal_quantile(
    probabilities: _Rows, truth: Int[np.ndarray, " row"], level: float
) -> float | None:
    """Return the quantile q such that labels of probability 1 - q or more make the conformal set.

    Sadinle, Lei & Wasserman, JASA 2019 (the least ambiguous sets), by MAPIE. On rows that are
    exchangeable with these the set holds the true label in a share of `level` or more. None where
    the rows are too few for the level, or lack a label.
    """
    num_rows, num_labels = probabilities.shape
    fewest = max(FEWEST_FIT_ROWS, 1 / level, 1 / (1 - level))
    if num_rows <= fewest or len(np.unique(truth)) < num_labels:
        return None
    # MAPIE is an extra, and takes seconds to load
    classifier = import_module("mapie.classification").SplitConformalClassifier
    score: Any = import_module("mapie.conformity_scores").LACConformityScore()
    model = classifier(
        _GivenProbabilities(num_labels), confidence_level=level, conformity_score=score, prefit=True
    )
    model.conformalize(probabilities, truth).predict_set(probabilities[:1])
    return float(score.quantiles_[0])


class _GivenProbabilities:
    """A classifier, as scikit-learn knows them, of rows that are their own probabilities."""

    def __init__(self, num_labels: int) -> None:
        self.classes_ = np.arange(num_labels)

    def fit(self, rows: _Rows, truth: Int[np.ndarray, " row"]) -> "_GivenProbabilities":
        """Return itself; there is nothing to learn."""
        return self

    def predict(self, rows: _Rows) -> Int[np.ndarray, " row"]:
        """Return the most probable label."""
        return rows.argmax(1)

    def predict_proba(self, rows: _Rows) -> _Rows:
        """Return the probabilities."""
        return rows

    def __sklearn_is_fitted__(self) -> bool:
        return True
