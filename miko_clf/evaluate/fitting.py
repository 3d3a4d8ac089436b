"""What a bundle is to know of its probabilities, fitted on validation alone."""

import importlib
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.model_selection import KFold

from miko_clf.bundle import Aim, Calibration, Conformal, Reached, Threshold
from miko_clf.data.labels import Part
from miko_clf.errors import MikoError, RecipeError
from miko_clf.evaluate.calibrate import fit_isotonic, fit_platt, fit_temperature, stands_for
from miko_clf.evaluate.link import margins, stated
from miko_clf.evaluate.thresholds import (
    aim_of_label,
    fit_label_thresholds,
    fit_threshold,
    reached,
)
from miko_clf.fuse.model import Model
from miko_clf.questions import Question, Questions
from miko_clf.recipe import Recipe
from miko_clf.recipe.decision import Decision
from miko_clf.train.feed import Feed
from miko_clf.train.infer import arms, logits, serving_arms

_CROSSED = 10  # folds in which each validation row is calibrated by others
Rows = NDArray[np.float64]
Given = Reached | Mapping[str, Reached]


def check(decision: Decision, questions: Questions) -> None:
    """Raise `RecipeError` where no decision of this kind is to be had, before anything is trained.

    Isotonic calibration and every aim but macro-F1 need labels that are decided one by one.
    """
    for one in questions:
        if one.kind == "one" and one.positive is None:
            for key, given, known in (
                ("calibration", decision.calibration == "isotonic", "temperature or platt"),
                ("aim", decision.aim != "macro_f1", "macro_f1"),
            ):
                if given:
                    raise RecipeError(
                        f"decision.{key}: {getattr(decision, key)} decides between two labels, "
                        f"and posts are labelled for {one.line()}; choose {known}"
                    )
    if decision.conformal is not None and find_spec("mapie") is None:
        raise RecipeError("decision.conformal needs MAPIE; pip install mapie")


def calibrate(recipe: Recipe, model: Model, val: Feed) -> tuple[Calibration, ...]:
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
    usual = serving_arms(recipe)[0]
    scores = {arm: logits(model, val, arm) for arm in arms(recipe)}
    return tuple(_fitted(part, scores, usual, recipe.decision) for part in val.truth.parts())


def _fitted(part: Part, scores: Mapping[str, Rows], usual: str, decision: Decision) -> Calibration:
    question = part.question
    here = {arm: values[part.rows, part.span] for arm, values in scores.items()}
    found = _calibrated(here[usual], part, usual, decision)
    probabilities = {arm: stated(values, question, found) for arm, values in here.items()}
    thresholds, given = _thresholds(probabilities, part, found.aim)
    _tell(question, given, found.aim)
    prior = None
    if question.positive is not None:
        positive = probabilities[usual][:, question.positive]
        prior = stands_for(positive, part.truth == question.positive)
    changed = {"thresholds": thresholds, "reached": given, "prior": prior}
    conformal = None
    if decision.conformal is not None and question.kind == "one":
        rows = probabilities if found.isotonic is None else _crossed(here, part, usual, decision)
        conformal = _conformal(rows, part, decision.conformal)
    return found.model_copy(update={**changed, "conformal": conformal})


def _thresholds(
    probabilities: Mapping[str, Rows], part: Part, aim: Aim
) -> tuple[dict[str, Threshold], dict[str, Given]]:
    """Return for each arm the threshold, or that of every label, and what it gives."""
    question = part.question
    limits: dict[str, Threshold] = {}
    given: dict[str, Given] = {}
    for arm, rows in probabilities.items():
        if question.kind == "many":
            own = fit_label_thresholds(rows, part.truth, question.labels, aim)
            columns = zip(question.labels, rows.T, part.truth.T, strict=True)
            one = aim_of_label(aim)
            given[arm] = {name: reached(p, t, own[name], one) for name, p, t in columns}
            limits[arm] = own
        elif question.positive is not None:
            positive, truth = rows[:, question.positive], part.truth == question.positive
            limit = fit_threshold(positive, truth, aim)
            given[arm] = reached(positive, truth, limit, aim)
            limits[arm] = limit
    return limits, given


def _calibrated(scores: Rows, part: Part, usual: str, decision: Decision) -> Calibration:
    question = part.question
    found = Calibration(
        temperature=fit_temperature(scores, part.truth),
        positive=None if question.positive is None else question.labels[question.positive],
        arm=usual,
        thresholds={},
        aim=Aim(name=decision.aim, value=decision.value),
    )
    if decision.calibration == "platt":
        return found.model_copy(update={"platt": fit_platt(scores, part.truth)})
    if decision.calibration == "isotonic":
        truth = part.truth if question.kind == "many" else part.truth[:, None]
        columns = zip(margins(scores, question).T, truth.T, strict=True)
        knots = tuple(fit_isotonic(margin, held) for margin, held in columns)
        return found.model_copy(update={"isotonic": knots if all(knots) else None})
    return found


def _crossed(
    scores: Mapping[str, Rows], part: Part, usual: str, decision: Decision
) -> dict[str, Rows]:
    """Return each row's probabilities by a calibration that was fitted on other rows.

    An isotonic line knows the labels of its own rows, and conformal sets whose quantile is taken
    from those hold the true label in less than their level.
    """
    found = {arm: np.empty_like(values) for arm, values in scores.items()}
    folds = KFold(min(_CROSSED, len(part.truth)), shuffle=True, random_state=0)
    for others, held in folds.split(part.truth):
        less = part._replace(rows=part.rows[others], truth=part.truth[others])
        fitted = _calibrated(scores[usual][others], less, usual, decision)
        for arm, values in scores.items():
            found[arm][held] = stated(values[held], part.question, fitted)
    return found


def _conformal(probabilities: Mapping[str, Rows], part: Part, level: float) -> Conformal | None:
    # loaded here because MAPIE is an extra, and takes seconds to load
    fit = importlib.import_module("miko_clf.evaluate.conformal").fit_quantile
    found = {arm: fit(rows, part.truth, level) for arm, rows in probabilities.items()}
    if None in found.values():
        _say(f"{part.question.line()}: too few validation posts for conformal sets of {level:g}")
        return None
    return Conformal(level=level, quantiles=found)


def _tell(question: Question, given: Mapping[str, Given], aim: Aim) -> None:
    """Say on stderr which thresholds do not keep to the aim, even on validation."""
    for arm, found in given.items():
        rows = {question.labels[-1]: found} if isinstance(found, Reached) else found
        for label, one in rows.items():
            if not one.met:
                _say(
                    f"arm {arm}: no threshold for {label!r} serves {aim.line()} on validation; "
                    "the most cautious one stands in, which decides for it on none of those posts"
                )


def _say(line: str) -> None:
    Console(stderr=True).print(f"calibration: {line}", highlight=False, soft_wrap=True)
