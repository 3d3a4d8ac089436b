"""The two stages: learn what the teacher's text says, then learn the label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from miko_clf import metrics
from miko_clf.data.labels import Part
from miko_clf.encode.towers import mean_pool
from miko_clf.fuse.fused import Batch, Fused
from miko_clf.fuse.model import Model
from miko_clf.recipe import Generator, Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import logits, serving_arms
from miko_clf.train.losses import alignment, answering, class_weights, positive_weights
from miko_clf.train.retrieval import Retrieving

WATCHED = ("macro_f1", "auroc")  # validation metrics that are logged for each of several questions


class ReasoningStage:
    """Bring slots to the teacher's text, and write the rationale (Mr.Harm, 2023)."""

    name = "reasoning"

    def __init__(self, recipe: Recipe) -> None:
        self.settings = recipe.reasoning
        writes = isinstance(recipe.fusion, Generator)  # by its own decoder, behind its encoder
        self.guess_only = writes or not self.settings.generate

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch: nothing to do."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted sum of alignment and writing."""
        fused: Fused = model(batch, guess_only=self.guess_only)
        parts = []
        if self.settings.align:
            parts.append(self.settings.align * aligned(model, fused, batch))
        if fused.writing is not None:
            parts.append(self.settings.generate * fused.writing)
        return torch.stack(parts).sum()

    @torch.inference_mode()
    def validate(self, model: Model, feed: Feed) -> Mapping[str, float]:
        """Return the mean loss over the feed."""
        device = next(model.parameters()).device
        model.eval()
        total, count = 0.0, 0
        for start in range(0, len(feed), 32):
            batch = feed.batch(range(start, min(start + 32, len(feed))))
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            total += float(self.loss(model, batch)) * len(batch["label"])
            count += len(batch["label"])
        model.train()
        return {"loss": total / count}


class TaskStage:
    """Cross-entropy of what each question's labels are, with class weights."""

    name = "task"

    def __init__(self, recipe: Recipe, feed: Feed) -> None:
        self.recipe = recipe
        self.settings = recipe.task
        self.questions = feed.truth.questions
        balanced = self.settings.class_weights == "balanced"
        self.weights = [_weights(part, balanced=balanced) for part in feed.truth.parts()]
        found = recipe.task.retrieval
        self.retrieving = Retrieving(found, feed) if found else None

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch, by the model as it is at its start."""
        if self.retrieving is not None:
            self.retrieving.begin(bare(model), epoch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the label, and what the recipe lays beside it."""
        fused: Fused = model({k: v for k, v in batch.items() if k != "written_ids"})
        total = self._classified(model, fused, batch)
        if self.settings.align:
            total = total + self.settings.align * aligned(model, fused, batch)
        if self.retrieving is not None:
            total = total + self.retrieving.loss(model, fused, batch["row"])
        return total

    def _classified(self, model: nn.Module, fused: Fused, batch: Batch) -> Tensor:
        if self.settings.likelihood:
            spelt: Tensor = bare(model).label_loss(fused.logits, batch["label"])
            return spelt
        smoothing = self.settings.label_smoothing
        return answering(self.questions, fused.logits, batch, self.weights, smoothing)

    def validate(self, model: Model, feed: Feed) -> Mapping[str, float]:
        """Return the metrics, each the mean over the arms that the system is used in.

        Of several questions each metric is the mean over those where it is defined, and what is
        watched of each stands beside it. Where some logit is not finite there is but the loss, NaN.
        """
        scores = [logits(model, feed, arm) for arm in serving_arms(self.recipe)]
        if not all(np.isfinite(each).all() for each in scores):
            return {"loss": np.nan}
        rows = [_over_questions(each, feed.truth.parts()) for each in scores]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


Stage = ReasoningStage | TaskStage


def _weights(part: Part, *, balanced: bool) -> Tensor:
    num_labels = len(part.question.labels)
    if not balanced:
        return torch.ones(num_labels)
    if part.question.kind == "many":
        return positive_weights(part.truth)
    return class_weights(part.truth.tolist(), num_labels)


def _over_questions(scores: NDArray[np.float64], parts: Sequence[Part]) -> dict[str, float]:
    found = {part.question.name: _measure(scores[part.rows, part.span], part) for part in parts}
    if len(parts) == 1:
        return found[parts[0].question.name]
    names = dict.fromkeys(name for measured in found.values() for name in measured)
    means = {name: _mean([each[name] for each in found.values() if name in each]) for name in names}
    told = {f"{task} {name}": each[name] for task, each in found.items() for name in WATCHED}
    return {**means, **told}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _measure(scores: NDArray[np.float64], part: Part) -> dict[str, float]:
    given, truth = torch.from_numpy(scores), torch.from_numpy(part.truth)
    if part.question.kind == "many":
        loss = functional.binary_cross_entropy_with_logits(given, truth.double())
        measured = metrics.multilabel(given.sigmoid().numpy(), part.truth)
        measured["accuracy"] = measured.pop("subset_accuracy")
        return {"loss": float(loss), **measured}
    log = given.log_softmax(-1)
    loss = functional.nll_loss(log, truth)
    positive = part.question.positive
    measured = metrics.classification(log.exp().numpy(), part.truth, positive=positive)
    return {"loss": float(loss), **measured}


def bare(model: nn.Module) -> Any:
    """Return the model itself, which a distributed wrapper holds as `module`."""
    return getattr(model, "module", model)


def aligned(model: nn.Module, fused: Fused, batch: Batch) -> Tensor:
    """Return the alignment of the slots' guesses with what the teacher wrote."""
    classifier = bare(model)
    assert fused.guess is not None
    target = batch["target"] if "target" in batch else encode_targets(classifier, batch)
    return alignment(fused.guess, target, batch["target_present"])


@torch.no_grad()
def encode_targets(model: Model, batch: Batch) -> Tensor:
    """Return the mean states of the teacher's texts, (post, slot, text width), no gradient."""
    ids, mask = batch["target_ids"].flatten(0, 1), batch["target_mask"].flatten(0, 1)
    here = mask.any(1)
    assert model.text_tower is not None
    pooled = torch.zeros(len(ids), model.text_tower.width, device=ids.device)
    if here.any():
        pooled[here] = mean_pool(model.text_tower(ids[here], mask[here]), mask[here]).float()
    return pooled.unflatten(0, batch["target_ids"].shape[:2])
