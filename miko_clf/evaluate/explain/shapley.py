"""How much image, text and intention each move a decision: exact Shapley values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from miko_clf.evaluate.analysis.estimates import bootstrap_mean
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch
from miko_clf.intervals import Interval
from miko_clf.progress import show_progress
from miko_clf.questions import Question
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import PREDICT_BATCH_SIZE, mask_for_arm, mask_inputs


@dataclass(frozen=True)
class PostShapley:
    """One post: `base` with nothing given, `full` with everything, and what each player adds."""

    id: str
    base: float
    full: float
    values: dict[str, float]


@dataclass(frozen=True)
class ShapleyValues:
    """What each player adds to the difference of logits that `of` names, over all posts."""

    players: list[str]
    of: str
    mean_absolute: dict[str, Interval]
    mean: dict[str, Interval]
    rows: list[PostShapley]
    note: str = ""


def measure_shapley(predictions: SystemPredictions, num_resamples: int = 1000) -> ShapleyValues:
    """Return the Shapley values (Shapley, 1953) of the inputs of every post.

    A player that is away is masked, so that null tokens stand in for it; `text` are all texts read
    as content, and a guess of intentions is made anew from the content that is left. The logits
    are those before calibration. Base and values add up to the full difference.
    """
    predictor, recipe = predictions.predictor, predictions.opened.recipe
    players = list_players(recipe)
    names = list(players)

    def read(states: Batch) -> list[Tensor]:
        coalitions = range(2 ** len(names))
        masked = (_mask_absent(states, predictions.arm, players, here) for here in coalitions)
        logits = [predictor.model(batch).logits for batch in masked]
        return [torch.stack(logits, dim=1)[..., predictions.span]]

    logits = collect_passes(predictor.model, predictor.feed, read, "Shapley values")[0]
    coalitions = logits.astype(np.float64).swapaxes(0, 1)
    margins = np.stack(
        [measure_margins(rows, predictions.question, predictions.decided) for rows in coalitions]
    )
    values, groups = compute_shapley(margins), predictions.groups

    def bound_means(rows: Float[np.ndarray, "player row"]) -> dict[str, Interval]:
        intervals = (bootstrap_mean(row, num_resamples, groups) for row in rows)
        return dict(zip(names, intervals, strict=True))

    return ShapleyValues(
        players=names,
        of=describe_margin(predictions.question),
        mean_absolute=bound_means(np.abs(values)),
        mean=bound_means(values),
        rows=_list_posts(predictions, margins, names, values),
        note=_note_joined_texts(recipe),
    )


def compute_shapley(values: Float[np.ndarray, "coalition row"]) -> Float[np.ndarray, "player row"]:
    """Return each player's mean contribution over all orders in which players can arrive.

    `values` are those of every coalition: player p is in coalition c where bit p of c is set.
    """
    num_players = len(values).bit_length() - 1
    assert len(values) == 2**num_players, "every coalition has a value"
    shares = np.zeros((num_players, values.shape[1]))
    for coalition in range(len(values)):
        size = coalition.bit_count()
        for player in range(num_players):
            if not coalition >> player & 1:
                gain = values[coalition | 1 << player] - values[coalition]
                orders = factorial(size) * factorial(num_players - size - 1)
                shares[player] += gain * (orders / factorial(num_players))
    return shares


def list_players(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Return each player's inputs; `intention`, told apart if not joined, goes with its arm."""
    players: dict[str, tuple[str, ...]] = {}
    if recipe.image is not None:
        players["image"] = ("image",)
    if recipe.text is not None and recipe.content_texts:
        players["text"] = recipe.content_texts
    if recipe.reads_intentions or recipe.slots:
        players["intention"] = ()
    return players


def _mask_absent(
    states: Batch, arm: str, players: dict[str, tuple[str, ...]], coalition: int
) -> Batch:
    """Return the batch as it is where only the players of a coalition are there."""
    away = [name for place, name in enumerate(players) if not coalition >> place & 1]
    gone = tuple(name for player in away for name in players[player])
    return mask_inputs(mask_for_arm(states, "without" if "intention" in away else arm), gone)


def _list_posts(
    predictions: SystemPredictions,
    margins: Float[np.ndarray, "coalition row"],
    names: Sequence[str],
    values: Float[np.ndarray, "player row"],
) -> list[PostShapley]:
    columns = zip(predictions.posts, margins[0], margins[-1], values.T, strict=True)
    return [
        PostShapley(post.id, float(base), float(full), dict(zip(names, own.tolist(), strict=True)))
        for post, base, full, own in columns
    ]


def _note_joined_texts(recipe: Recipe) -> str:
    together = [name for name in recipe.inputs if name != "image"]
    if recipe.joined == "no" or len(together) < 2:
        return ""
    listed = f"{', '.join(together[:-1])} and {together[-1]}"
    return f"{listed} are read as one text and cannot be told apart; together they are text"


_Rows = TypeVar("_Rows", np.ndarray, Tensor)
_ReadStates = Callable[[Batch], Sequence[Tensor]]


@torch.inference_mode()
def collect_passes(
    model: Model,
    feed: EncodedDataset,
    read: _ReadStates,
    what: str,
    rows: Sequence[int] | None = None,
) -> list[NDArray[Any]]:
    """Return what `read` makes of the states of posts, each array with the posts first.

    All posts of the feed, or those of `rows` in that order. On a terminal a bar says `what`.
    """
    wanted = np.arange(len(feed)) if rows is None else np.asarray(rows, dtype=np.int64)
    order = np.argsort([feed.length(i) for i in wanted], kind="stable")
    parts = []
    for start in show_progress(range(0, len(order), PREDICT_BATCH_SIZE), what):
        batch = wanted[order[start : start + PREDICT_BATCH_SIZE]].tolist()
        parts.append([tensor.cpu().numpy() for tensor in read(encode_rows(model, feed, batch))])
    places = np.argsort(order)  # where each row's own came to stand
    return [np.concatenate(column)[places] for column in zip(*parts, strict=True)]


def encode_rows(model: Model, feed: EncodedDataset, rows: Sequence[int]) -> Batch:
    """Return the batch of a few posts with the states of their inputs, on the model's device."""
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in feed.batch(rows).items()}
    return model.encode(batch)


def measure_margins(logits: _Rows, question: Question, decided: NDArray[np.int64] | int) -> _Rows:
    """Return how far logits (row, label) lean: to the positive label of two, else to `decided`.

    It is the label's logit minus the mean logit of the others.
    """
    towards = decided if question.positive is None else question.positive
    own: _Rows = logits[np.arange(len(logits)), towards]
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)


def describe_margin(question: Question) -> str:
    """Say in words what `measure_margins` measures."""
    if question.positive is None:
        return "logit of the decided label minus the mean logit of the others"
    positive, other = question.labels[question.positive], question.labels[1 - question.positive]
    return f"logit of {positive} minus logit of {other}"
