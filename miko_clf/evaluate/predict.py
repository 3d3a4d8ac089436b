"""Calibrated probabilities of posts, in each arm that a system has."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from miko_clf.bundle import Bundle, Calibration, Threshold
from miko_clf.data.collate import Preparation, read_words
from miko_clf.data.labels import Part
from miko_clf.data.post import Post
from miko_clf.evaluate.calibrate import fit_label_thresholds, fit_temperature, fit_threshold
from miko_clf.fuse.build import rebuild
from miko_clf.fuse.model import Model
from miko_clf.questions import Questions
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import arms, logits, serving_arms

Probabilities = NDArray[np.float64]


class Predictor:
    """A bundle's torch model over a fixed list of posts."""

    def __init__(self, opened: Bundle, posts: list[Post], cache: Path | None) -> None:
        self.bundle = opened
        self.preparation = Preparation.model_validate(opened.preprocess)
        words = read_words(opened.tokenizer, self.preparation)
        self.model = rebuild(opened.path, opened.recipe, opened.questions.names, words)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        _freeze(self.model, opened.recipe)
        self.feed = Feed(posts, opened.questions, self.model, self.preparation, cache=cache)

    def probabilities(self, arm: str, without: tuple[str, ...] = ()) -> Probabilities:
        """Return (post, label) at the bundle's temperatures; `without` takes inputs away."""
        scores = logits(self.model, self.feed, arm, without)
        return linked(scores, self.bundle.questions, self.bundle.temperatures)


def linked(
    scores: Probabilities, questions: Questions, temperatures: Sequence[float]
) -> Probabilities:
    """Return the probabilities that logits (post, label) stand for, at each question's temperature.

    A softmax over the labels of which one holds, a sigmoid for each that may hold.
    """
    found = np.empty_like(scores)
    for (question, span), temperature in zip(questions.spans(), temperatures, strict=True):
        scaled = scores[:, span] / temperature
        found[:, span] = softmax(scaled, axis=1) if question.kind == "one" else expit(scaled)
    return found


def calibrate(recipe: Recipe, model: Model, val: Feed) -> tuple[Calibration, ...]:
    """Return what each question needs, fitted on validation alone.

    The temperature in the usual arm, and in each arm the threshold of the positive class, or of
    every label where any may hold.
    """
    usual = serving_arms(recipe)[0]
    scores = {arm: logits(model, val, arm) for arm in arms(recipe)}
    return tuple(_fitted(part, scores, usual) for part in val.truth.parts())


def _fitted(part: Part, scores: Mapping[str, Probabilities], usual: str) -> Calibration:
    question, alone = part.question, Questions((part.question,))
    here = {arm: values[part.rows, part.span] for arm, values in scores.items()}
    temperature = fit_temperature(here[usual], part.truth)
    thresholds: dict[str, Threshold] = {}
    for arm, values in here.items():
        probabilities = linked(values, alone, [temperature])
        if question.kind == "many":
            thresholds[arm] = fit_label_thresholds(probabilities, part.truth, question.labels)
        elif question.positive is not None:
            positive = part.truth == question.positive
            thresholds[arm] = fit_threshold(probabilities[:, question.positive], positive)
    return Calibration(
        temperature=temperature,
        positive=None if question.positive is None else question.labels[question.positive],
        arm=usual,
        thresholds=thresholds,
    )


def _freeze(model: Model, recipe: Recipe) -> None:
    """Mark as frozen the towers that were in training, so that their features are cached."""
    for section, tower in ((recipe.image, model.image_tower), (recipe.text, model.text_tower)):
        if section is not None and tower is not None and not section.learns:
            tower.requires_grad_(False)
