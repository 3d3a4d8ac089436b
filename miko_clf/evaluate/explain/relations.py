"""Which kinds of intention are read, and what the decisions lose without each of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from miko_clf.data.post import RELATIONS, Post
from miko_clf.evaluate.analysis.estimates import bootstrap_mean, bootstrap_metric_changes
from miko_clf.evaluate.calibration import calibrate_logits
from miko_clf.evaluate.explain.shapley import collect_passes
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.cross_attention import NUM_SLOTS, CrossAttentionFusion, GatedReader
from miko_clf.fuse.outputs import Batch
from miko_clf.intervals import UNDEFINED, Interval
from miko_clf.train.predict import mask_for_arm

SLOT_RELATIONS = (*RELATIONS, "rationale")  # in the order of the slots
NO_RELATION = "none"
_METRICS = ("auroc", "macro_f1")


@dataclass(frozen=True)
class RelationImportance:
    """What is read of one relation.

    `posts` have it, and `taught` of the training posts; a model's own guess is there for every
    post. `attention` is its share of the reader's, `left_out` each metric without it minus the
    metric with all.
    """

    relation: str
    posts: int
    taught: int
    attention: Interval
    left_out: dict[str, Interval]


def measure_relations(
    predictions: SystemPredictions, num_resamples: int = 1000
) -> list[RelationImportance]:
    """Return what is read of each relation, or slot, and last of none of them.

    Attention counts alike over heads, layers, the tokens that read (latents where there are any)
    and posts; what falls on the null token, as all does where a post has no intention, is `none`.
    It says where the reader looks and not what that changes, which `left_out` does. NaN for a
    system that reads intentions without attention, and empty for one that reads none.
    """
    fusion = getattr(predictions.predictor.model, "fusion", None)
    reader = fusion if isinstance(fusion, CrossAttentionFusion) and fusion.has_reader else None
    reads = reader is not None or getattr(fusion, "reads_intentions", False)
    if not reads or predictions.arm == "without":
        return []
    taught, counts = _count_texts(predictions.train), [*_count_texts(predictions.posts)[:-1], 0]
    if predictions.arm == "student":
        counts = [len(predictions.posts)] * NUM_SLOTS
    kinds = [kind for kind, count in enumerate(counts) if count]
    shares, *logits = _run_without_relations(predictions, reader, kinds)
    opened, span = predictions.opened, predictions.span
    full, *masked = [
        calibrate_logits(rows.astype(np.float64), opened.questions, opened.calibrations)[:, span]
        for rows in logits
    ]

    def bound_attention(kind: int) -> Interval:
        return bootstrap_mean(shares[:, kind], num_resamples, predictions.groups)

    relations = [
        RelationImportance(
            relation=SLOT_RELATIONS[kind],
            posts=counts[kind],
            taught=taught[kind],
            attention=bound_attention(kind),
            left_out=bootstrap_metric_changes(rows, full, predictions, _METRICS, num_resamples),
        )
        for kind, rows in zip(kinds, masked, strict=True)
    ]
    if reader is not None:
        nothing, undefined = bound_attention(NUM_SLOTS), dict.fromkeys(_METRICS, UNDEFINED)
        relations.append(RelationImportance(NO_RELATION, len(shares), 0, nothing, undefined))
    return relations


@contextmanager
def record_attention(reader: CrossAttentionFusion) -> Iterator[list[Tensor]]:
    """Gather the attention (post, head, token, word) of each layer that runs meanwhile."""
    attention: list[Tensor] = []

    def record(module: GatedReader, inputs: tuple[Tensor, ...]) -> None:
        attention.append(module.weights(*inputs))

    readers = [module for module in reader.modules() if isinstance(module, GatedReader)]
    handles = [module.register_forward_pre_hook(record) for module in readers]
    try:
        yield attention
    finally:
        for handle in handles:
            handle.remove()


def _count_texts(posts: Sequence[Post]) -> list[int]:
    """Return how many posts have a text of each kind."""
    relations = [{one.relation for one in post.intentions} for post in posts]
    return [
        *(sum(relation in given for given in relations) for relation in RELATIONS),
        sum(post.rationale is not None for post in posts),
    ]


def _run_without_relations(
    predictions: SystemPredictions, reader: CrossAttentionFusion | None, kinds: Sequence[int]
) -> list[Float[np.ndarray, "post _"]]:
    """Return shares of attention, logits with all, and logits without each of the kinds."""
    model = predictions.predictor.model

    def read(states: Batch) -> list[Tensor]:
        seen = mask_for_arm(states, predictions.arm)
        less = [model(_mask_relation(seen, kind)).logits for kind in kinds]
        if reader is None:
            full = model(seen).logits
            return [full.new_full((len(full), NUM_SLOTS + 1), np.nan), full, *less]
        with record_attention(reader) as attention:
            fused = model(seen)
        assert fused.present is not None
        shares = _share_attention(torch.stack(attention), fused.present, reader.owners(seen))
        return [shares, fused.logits, *less]

    return collect_passes(model, predictions.predictor.feed, read, "relations left out")


def _share_attention(
    attention: Float[Tensor, "layer post head token word"], present: Tensor, owners: Tensor
) -> Float[Tensor, "post kind"]:
    mean = attention.mean((0, 2))  # (post, token, word)
    asking = present[..., None].to(mean.dtype)
    words = (mean * asking).sum(1) / asking.sum(1)  # (post, word)
    return words.new_zeros(len(words), NUM_SLOTS + 1).scatter_add(1, owners, words)


def _mask_relation(batch: Batch, kind: int) -> Batch:
    """Return the batch where neither intentions of a kind nor its slot can be read."""
    changed = dict(batch)
    if "intention_mask" in batch:
        changed["intention_mask"] = batch["intention_mask"] & (batch["relation"] != kind)[..., None]
    if "student" in batch:
        others = torch.arange(NUM_SLOTS, device=batch["student"].device) != kind
        changed["slot_mask"] = others.expand(len(batch["student"]), -1)
    return changed
