"""Many forward passes over the same posts behind towers that run once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch
from miko_clf.progress import show_progress
from miko_clf.questions import Question
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import PREDICT_BATCH_SIZE

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
    parts = [
        [tensor.cpu().numpy() for tensor in read(states)]
        for states in _encode_batches(model, feed, wanted[order], what)
    ]
    columns = zip(*parts, strict=True)
    return [_restore_order(np.concatenate(column), order) for column in columns]


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


def _encode_batches(
    model: Model, feed: EncodedDataset, rows: NDArray[np.int64], what: str
) -> Iterator[Batch]:
    starts = range(0, len(rows), PREDICT_BATCH_SIZE)
    for start in show_progress(starts, what):
        yield encode_rows(model, feed, rows[start : start + PREDICT_BATCH_SIZE].tolist())


def _restore_order(rows: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    restored = np.empty_like(rows)
    restored[order] = rows
    return restored
