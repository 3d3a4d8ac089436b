"""Calibrated probabilities of posts, in each arm that a system has."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from miko_clf import bundle
from miko_clf.bundle import Bundle, Calibration
from miko_clf.data.collate import Preparation
from miko_clf.data.post import Post
from miko_clf.data.words import Words
from miko_clf.evaluate.calibrate import fit_temperature, fit_threshold
from miko_clf.fuse.build import rebuild
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import arms, logits, serving_arms

Probabilities = NDArray[np.float64]


class Predictor:
    """A bundle's torch model over a fixed list of posts."""

    def __init__(self, opened: Bundle, posts: list[Post], cache: Path | None) -> None:
        self.bundle = opened
        self.preparation = Preparation.model_validate(opened.preprocess)
        words = Words.read(opened.tokenizer, self.preparation.pad_id)
        self.model = rebuild(opened.path, opened.recipe, len(opened.labels), words)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        _freeze(self.model, opened.recipe)
        self.feed = Feed(posts, opened.labels, self.model, self.preparation, cache=cache)

    def probabilities(self, arm: str, without: tuple[str, ...] = ()) -> Probabilities:
        """Return (post, label) at the bundle's temperature; `without` takes inputs away."""
        scores = logits(self.model, self.feed, arm, without)
        return softmax(scores / self.bundle.calibration.temperature, axis=1)


def calibrate(
    recipe: Recipe, model: MikoClassifier, val: Feed, labels: tuple[str, ...]
) -> Calibration:
    """Fit the temperature in the usual arm and a threshold in each, on validation alone."""
    usual, truth = serving_arms(recipe)[0], np.array(val.labels)
    scores = {arm: logits(model, val, arm) for arm in arms(recipe)}
    temperature = fit_temperature(scores[usual], truth)
    positive = bundle.positive(labels)
    thresholds = {}
    if positive is not None:
        for arm, values in scores.items():
            probability = softmax(values / temperature, axis=1)[:, positive]
            thresholds[arm] = fit_threshold(probability, truth == positive)
    return Calibration(
        temperature=temperature,
        positive=None if positive is None else labels[positive],
        arm=usual,
        thresholds=thresholds,
    )


def _freeze(model: MikoClassifier, recipe: Recipe) -> None:
    """Mark as frozen the towers that were in training, so that their features are cached."""
    if recipe.image is not None and recipe.image.frozen and model.image_tower is not None:
        model.image_tower.requires_grad_(False)
    if recipe.text.frozen:
        model.text_tower.requires_grad_(False)
