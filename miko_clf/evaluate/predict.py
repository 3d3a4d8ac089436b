"""Calibrated probabilities of posts, in each arm that a system has."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from miko_clf.bundle import Bundle
from miko_clf.data.collate import Preparation, read_words
from miko_clf.data.post import Post
from miko_clf.evaluate.link import linked
from miko_clf.fuse.build import rebuild
from miko_clf.fuse.model import Model
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import logits

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

    def logits(self, arm: str, without: tuple[str, ...] = ()) -> NDArray[np.float64]:
        """Return (post, label) before calibration; `without` takes inputs away."""
        return logits(self.model, self.feed, arm, without)

    def probabilities(self, arm: str, without: tuple[str, ...] = ()) -> Probabilities:
        """Return (post, label) as the bundle calibrates them; `without` takes inputs away."""
        return linked(self.logits(arm, without), self.bundle.questions, self.bundle.calibrations)


def _freeze(model: Model, recipe: Recipe) -> None:
    """Mark as frozen the towers that were in training, so that their features are cached."""
    for section, tower in ((recipe.image, model.image_tower), (recipe.text, model.text_tower)):
        if section is not None and tower is not None and not section.learns:
            tower.requires_grad_(False)
