"""Losses beyond cross-entropy: the alignment of slots, and several questions at once."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from miko_clf.fuse.outputs import Batch
from miko_clf.questions import Question, Questions

_TEMPERATURE = 0.07  # of the contrast between posts (van den Oord et al., 2018; CLIP's start)


def compute_alignment_loss(
    guess: Float[Tensor, "post slot width"],
    target: Float[Tensor, "post slot width"],
    present: Bool[Tensor, "post slot"],
) -> Float[Tensor, ""]:
    """Return how far the slots' guesses are from the teacher's text, zero where none is given.

    For each slot, cross-entropy of finding a post's own text among those of the batch, by
    cosine. The target gets no gradient.
    """
    guess = functional.normalize(guess.float(), dim=-1).transpose(0, 1)  # (slot, post, width)
    target = functional.normalize(target.detach().float(), dim=-1).transpose(0, 1)
    here = present.T  # (slot, post)
    scores = guess @ target.transpose(1, 2) / _TEMPERATURE  # (slot, post, post)
    scores = scores.masked_fill(~here[:, None, :], -torch.inf)
    own = torch.diagonal(scores, dim1=1, dim2=2)
    every = scores.masked_fill(~here.any(1)[:, None, None], 0.0).logsumexp(-1)
    loss = torch.where(here, every - own, 0.0)
    return loss.sum() / here.sum().clamp(min=1)


def compute_class_weights(labels: Sequence[int], num_labels: int) -> Float[Tensor, " label"]:
    """Return n / (classes * n_class) for each class (King and Zeng, 2001)."""
    counts = np.bincount(labels, minlength=num_labels).clip(min=1)
    return torch.tensor(len(labels) / (num_labels * counts), dtype=torch.float32)


def compute_positive_weights(held: Int[np.ndarray, "post label"]) -> Float[Tensor, " label"]:
    """Return for each label the posts without it for each post with it."""
    counts = held.sum(0)
    weights = (len(held) - counts).clip(min=1) / counts.clip(min=1)
    return torch.tensor(weights, dtype=torch.float32)


def compute_question_loss(
    questions: Questions,
    logits: Float[Tensor, "post label"],
    batch: Batch,
    weights: Sequence[Float[Tensor, " label"]],
    smoothing: float,
) -> Float[Tensor, ""]:
    """Return the sum over questions of their losses, each the mean over the posts that answer it.

    `weights` are those of the classes where one label holds (cross-entropy), and of the posts that
    have a label where any may (binary cross-entropy, the mean over labels). A question that no
    post of the batch answers counts as zero.
    """
    logits = logits.float()
    if questions.plain:
        return functional.cross_entropy(
            logits, batch["label"], weight=weights[0].to(logits.device), label_smoothing=smoothing
        )
    parts = []
    for place, (question, span) in enumerate(questions.spans()):
        here = batch["label_known"][:, place]
        weight = weights[place].to(logits.device)
        given = batch["label"][here, span]
        parts.append(_compute_one_loss(question, logits[here, span], given, weight, smoothing))
    return torch.stack(parts).sum()


def _compute_one_loss(
    question: Question, logits: Tensor, given: Tensor, weight: Tensor, smoothing: float
) -> Tensor:
    if not len(logits):
        return logits.sum()
    if question.kind == "one":
        return functional.cross_entropy(
            logits, given.argmax(1), weight=weight, label_smoothing=smoothing
        )
    target = given * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
