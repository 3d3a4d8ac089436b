"""The two stages: learn what the teacher's text says, then learn the label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from miko_clf import metrics
from miko_clf.data.labels import TaskLabels
from miko_clf.encode.tower import mean_pool
from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch, ModelOutput
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import GeneratorSection
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.losses import (
    compute_alignment_loss,
    compute_class_weights,
    compute_positive_weights,
    compute_question_loss,
)
from miko_clf.train.predict import list_serving_arms, predict_logits
from miko_clf.train.retrieval import RetrievalContrast

_WATCHED = ("macro_f1", "auroc")  # validation metrics that are logged for each of several questions


class ReasoningStage:
    """Bring slots to the teacher's text, and write the rationale (Mr.Harm, 2023)."""

    name = "reasoning"

    def __init__(self, recipe: Recipe) -> None:
        self.settings = recipe.reasoning
        writes = isinstance(
            recipe.fusion, GeneratorSection
        )  # by its own decoder, behind its encoder
        self.guess_only = writes or not self.settings.generate

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch: nothing to do."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted sum of alignment and writing."""
        fused: ModelOutput = model(batch, guess_only=self.guess_only)
        parts = []
        if self.settings.align:
            parts.append(self.settings.align * measure_alignment(model, fused, batch))
        if fused.writing is not None:
            parts.append(self.settings.generate * fused.writing)
        return torch.stack(parts).sum()

    @torch.inference_mode()
    def validate(self, model: Model, feed: EncodedDataset) -> Mapping[str, float]:
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

    def __init__(self, recipe: Recipe, feed: EncodedDataset) -> None:
        self.recipe = recipe
        self.settings = recipe.task
        self.questions = feed.truth.questions
        balanced = self.settings.class_weights == "balanced"
        self.weights = [_compute_weights(part, balanced=balanced) for part in feed.truth.parts()]
        found = recipe.task.retrieval
        self.retrieving = RetrievalContrast(found, feed) if found else None

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch, by the model as it is at its start."""
        if self.retrieving is not None:
            self.retrieving.begin(unwrap_model(model), epoch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the label, and what the recipe lays beside it."""
        fused: ModelOutput = model({k: v for k, v in batch.items() if k != "written_ids"})
        total = self._classified(model, fused, batch)
        if self.settings.align:
            total = total + self.settings.align * measure_alignment(model, fused, batch)
        if self.retrieving is not None:
            total = total + self.retrieving.loss(model, fused, batch["row"])
        return total

    def _classified(self, model: nn.Module, fused: ModelOutput, batch: Batch) -> Tensor:
        if self.settings.likelihood:
            spelt: Tensor = unwrap_model(model).label_loss(fused.logits, batch["label"])
            return spelt
        smoothing = self.settings.label_smoothing
        return compute_question_loss(self.questions, fused.logits, batch, self.weights, smoothing)

    def validate(self, model: Model, feed: EncodedDataset) -> Mapping[str, float]:
        """Return the metrics, each the mean over the arms that the system is used in.

        Of several questions each metric is the mean over those where it is defined, and what is
        watched of each stands beside it. Where some logit is not finite there is but the loss, NaN.
        """
        scores = [predict_logits(model, feed, arm) for arm in list_serving_arms(self.recipe)]
        if not all(np.isfinite(each).all() for each in scores):
            return {"loss": np.nan}
        rows = [_measure_questions(each, feed.truth.parts()) for each in scores]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


Stage = ReasoningStage | TaskStage


def _compute_weights(part: TaskLabels, *, balanced: bool) -> Tensor:
    num_labels = len(part.question.labels)
    if not balanced:
        return torch.ones(num_labels)
    if part.question.kind == "many":
        return compute_positive_weights(part.truth)
    return compute_class_weights(part.truth.tolist(), num_labels)


def _measure_questions(
    scores: NDArray[np.float64], parts: Sequence[TaskLabels]
) -> dict[str, float]:
    found = {part.question.name: _measure(scores[part.rows, part.span], part) for part in parts}
    if len(parts) == 1:
        return found[parts[0].question.name]
    names = dict.fromkeys(name for measured in found.values() for name in measured)
    means = {
        name: _average_defined([each[name] for each in found.values() if name in each])
        for name in names
    }
    told = {f"{task} {name}": each[name] for task, each in found.items() for name in _WATCHED}
    return {**means, **told}


def _average_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _measure(scores: NDArray[np.float64], part: TaskLabels) -> dict[str, float]:
    given, truth = torch.from_numpy(scores), torch.from_numpy(part.truth)
    if part.question.kind == "many":
        loss = functional.binary_cross_entropy_with_logits(given, truth.double())
        measured = metrics.measure_multilabel(given.sigmoid().numpy(), part.truth)
        measured["accuracy"] = measured.pop("subset_accuracy")
        return {"loss": float(loss), **measured}
    log = given.log_softmax(-1)
    loss = functional.nll_loss(log, truth)
    positive = part.question.positive
    measured = metrics.measure_classification(log.exp().numpy(), part.truth, positive=positive)
    return {"loss": float(loss), **measured}


def unwrap_model(model: nn.Module) -> Any:
    """Return the model itself, which a distributed wrapper holds as `module`."""
    return getattr(model, "module", model)


def measure_alignment(model: nn.Module, fused: ModelOutput, batch: Batch) -> Tensor:
    """Return the alignment of the slots' guesses with what the teacher wrote."""
    classifier = unwrap_model(model)
    assert fused.guess is not None
    target = batch["target"] if "target" in batch else encode_targets(classifier, batch)
    return compute_alignment_loss(fused.guess, target, batch["target_present"])


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
