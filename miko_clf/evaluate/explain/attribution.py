"""Which words and patches a decision rests on: integrated gradients by captum."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from tokenizers import Tokenizer
from torch import Tensor

from miko_clf.errors import MikoError
from miko_clf.evaluate.explain import shapley
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.outputs import Batch
from miko_clf.train.predict import mask_for_arm

# How tokenizers mark that a piece goes on, begins or ends a word, and how a piece bears the mark.
_MARKS = dict.fromkeys(("##", "▁", "Ġ"), str.startswith) | {"</w>": str.endswith}


class WordMerger:
    """Merges pieces into words by the mark that most of the vocabulary bears."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        pieces = list(tokenizer.get_vocab())
        counts = {m: sum(bears(piece, m) for piece in pieces) for m, bears in _MARKS.items()}
        self.mark = max(counts, key=counts.__getitem__)
        added = tokenizer.get_added_tokens_decoder()
        self.special = {number for number, token in added.items() if token.special}

    def words(
        self, ids: Sequence[int], weights: Float[ndarray, " piece"]
    ) -> list[tuple[str, float]]:
        """Return each word with the sum of its pieces' weights; a special token is one itself."""
        pieces = [self.tokenizer.id_to_token(number) or "" for number in ids]
        starts = [place for place in range(len(ids)) if self._starts(place, ids, pieces)]
        return [
            (self._spell(ids[start:end], pieces[start:end]), float(weights[start:end].sum()))
            for start, end in pairwise([*starts, len(ids)])
        ]

    def _starts(self, place: int, ids: Sequence[int], pieces: Sequence[str]) -> bool:
        if place == 0 or ids[place] in self.special or ids[place - 1] in self.special:
            return True
        if self.mark == "##":
            return not pieces[place].startswith("##")
        if self.mark == "</w>":
            return pieces[place - 1].endswith("</w>")
        return pieces[place].startswith(self.mark)

    def _spell(self, ids: Sequence[int], pieces: Sequence[str]) -> str:
        if ids[0] not in self.special and self.tokenizer.decoder is not None:
            return self.tokenizer.decode(list(ids), skip_special_tokens=False).strip()
        return "".join(piece.replace(self.mark, "") for piece in pieces)


_NUM_STEPS = (64, 256, 1024)  # of the integral, more of them until it is near enough
MAX_INTEGRAL_ERROR = 0.01  # largest error of the integral, as a share of the difference
_STEPS_AT_ONCE = 16  # steps that are in memory together
_MeanStates = dict[str, Tensor]
_TokenWeights = dict[str, Float[np.ndarray, "..."]]  # of each token of each input


@dataclass(frozen=True)
class PostAttribution:
    """One post: what each word and the image add to `baseline` to make `full`.

    `tokens` are words and weights, the texts end to end, and `words` how many each text has.
    `patches` is the image's grid, top row first, none where its tokens are no square; `image` is
    the sum over the image with what stands outside the grid. `delta` is by how much words and
    image together exceed the difference: the error of the integral.
    """

    id: str
    full: float
    baseline: float
    delta: float
    image: float | None
    tokens: list[tuple[str, float]]
    words: dict[str, int]
    patches: list[list[float]] | None


@dataclass(frozen=True)
class Attribution:
    """Posts, and the difference of logits `of` which the weights are."""

    of: str
    rows: list[PostAttribution]


def attribute_decisions(predictions: SystemPredictions, rows: Sequence[int]) -> Attribution | None:
    """Return integrated gradients (Sundararajan et al., 2017) at the states of the towers.

    The path starts at the mean state of each input over all posts and not at zero: what
    is normalised has the same direction all the way from zero, and jumps there. None where the
    model's states are not those of separate towers. Raises `MikoError` without captum.
    """
    gradients = _load_captum()
    model, feed = predictions.predictor.model, predictions.predictor.feed
    if not isinstance(model, MikoClassifier) or not len(rows):
        return None
    names = [name for name in model.split if name != "intention" or predictions.arm == "with"]
    means = _average_states(predictions, names)
    merger = WordMerger(feed.words.tokenizer) if feed.words else None
    attributions = []
    for row in map(int, rows):
        with torch.no_grad():
            states = mask_for_arm(shapley.encode_rows(model, feed, [row]), predictions.arm)
        weights, ends = _integrate(gradients, predictions, row, states, means)
        attributions.append(_describe_attribution(predictions, row, weights, ends, merger))
    return Attribution(shapley.describe_margin(predictions.question), attributions)


def _load_captum() -> Any:
    try:
        return import_module("captum.attr").IntegratedGradients
    except ImportError:
        raise MikoError(
            "words and patches are explained by captum, which is not installed; "
            "pip install 'miko-clf[explain]'"
        ) from None


def _average_states(predictions: SystemPredictions, names: Sequence[str]) -> _MeanStates:
    """Return the mean state (width,) of each input over all posts that have it."""

    def read(states: Batch) -> list[Tensor]:
        return [part for name in names for part in _sum_states(states, name)]

    model, feed = predictions.predictor.model, predictions.predictor.feed
    parts = iter(shapley.collect_passes(model, feed, read, "mean states"))
    device = next(model.parameters()).device
    sums = {name: (next(parts).sum(0), next(parts).sum()) for name in names}
    return {
        name: torch.from_numpy(total / max(count, 1)).float().to(device)
        for name, (total, count) in sums.items()
    }


def _sum_states(states: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Return the sum of a post's states (post, width) and how many there are (post,)."""
    tokens = states[f"{name}_states"].flatten(1, -2)
    if name == "image":
        mask = states["image_present"][:, None].expand(states["image_states"].shape[:2])
    else:
        mask = states[f"{name}_mask"]
    present = mask.flatten(1)[..., None].to(tokens.dtype)
    return (tokens * present).sum(1), present.sum((1, 2))


def _integrate(
    gradients: Any, predictions: SystemPredictions, row: int, states: Batch, means: _MeanStates
) -> tuple[_TokenWeights, tuple[float, float]]:
    """Return the weight of state token of state input, and the margins at both ends of the path."""
    whole = tuple(states[f"{name}_states"] for name in means)
    start = tuple(mean.expand_as(state) for mean, state in zip(means.values(), whole, strict=True))
    run = partial(_run_changed_states, predictions, row, states, list(means))
    with torch.no_grad():
        baseline, full = float(run(*start)), float(run(*whole))
    for steps in _NUM_STEPS:
        parts = gradients(run).attribute(
            whole, baselines=start, n_steps=steps, internal_batch_size=_STEPS_AT_ONCE
        )
        weights = {
            name: part.detach()[0].sum(-1).cpu().double().numpy()
            for name, part in zip(means, parts, strict=True)
        }
        error = abs(_measure_excess(weights, (baseline, full)))
        if error <= MAX_INTEGRAL_ERROR * abs(full - baseline):
            break
    return weights, (baseline, full)


def _measure_excess(weights: _TokenWeights, ends: tuple[float, float]) -> float:
    """Return by how much the weights exceed the difference that they should add up to."""
    return sum(float(weight.sum()) for weight in weights.values()) - (ends[1] - ends[0])


def _run_changed_states(
    predictions: SystemPredictions, row: int, states: Batch, names: Sequence[str], *changed: Tensor
) -> Float[Tensor, " step"]:
    """Return how far the logits lean where states of the post are changed, one a step."""
    num_steps = len(changed[0])
    batch = {name: state.expand(num_steps, *state.shape[1:]) for name, state in states.items()}
    batch |= {f"{name}_states": state for name, state in zip(names, changed, strict=True)}
    logits = predictions.predictor.model(batch).logits[:, predictions.span]
    return shapley.measure_margins(logits, predictions.question, int(predictions.decided[row]))


def _describe_attribution(
    predictions: SystemPredictions,
    row: int,
    weights: _TokenWeights,
    ends: tuple[float, float],
    merger: WordMerger | None,
) -> PostAttribution:
    image = weights.get("image")
    words = {
        name: _merge_words(predictions, row, name, part, merger)
        for name, part in weights.items()
        if name != "image"
    }
    return PostAttribution(
        id=predictions.posts[row].id,
        full=ends[1],
        baseline=ends[0],
        delta=_measure_excess(weights, ends),
        image=None if image is None else float(image.sum()),
        tokens=[word for part in words.values() for word in part],
        words={name: len(part) for name, part in words.items()},
        patches=None if image is None else arrange_patches(image),
    )


def _merge_words(
    predictions: SystemPredictions,
    row: int,
    name: str,
    weights: Float[np.ndarray, "..."],
    merger: WordMerger | None,
) -> list[tuple[str, float]]:
    assert merger is not None
    feed = predictions.predictor.feed
    if name == "intention":
        assert feed.intentions is not None
        rows = feed.intentions[row]
    else:
        rows = [feed.texts[name][row]]
    flat = weights.reshape(-1, weights.shape[-1])
    pairs = zip(rows, flat, strict=False)  # a post without intentions has one blank
    return [word for ids, own in pairs for word in merger.words(ids, own[: len(ids)])]


def arrange_patches(tokens: Float[np.ndarray, " token"]) -> list[list[float]] | None:
    """Return tokens as a square of patches, a class token before them left out; else none."""
    for patches in (tokens, tokens[1:]):
        side = isqrt(len(patches))
        if side > 1 and side * side == len(patches):
            return patches.astype(float).reshape(side, side).tolist()
    return None
