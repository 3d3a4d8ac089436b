"""The two stages: learn what the teacher's text says, then learn the label."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miko_clf import metrics
from miko_clf.encode.towers import mean_pool
from miko_clf.fuse.classifier import Batch, Fused, MikoClassifier
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.infer import logits, serving_arms
from miko_clf.train.losses import alignment, class_weights


class ReasoningStage:
    """Bring slots to the teacher's text, and write the rationale (Mr.Harm, 2023)."""

    name = "reasoning"

    def __init__(self, recipe: Recipe) -> None:
        self.settings = recipe.reasoning

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted sum of alignment and writing."""
        fused: Fused = model(batch, guess_only=not self.settings.generate)
        parts = []
        if self.settings.align:
            parts.append(self.settings.align * aligned(model, fused, batch))
        if fused.writing is not None:
            parts.append(self.settings.generate * fused.writing)
        return torch.stack(parts).sum()

    @torch.inference_mode()
    def validate(self, model: MikoClassifier, feed: Feed) -> Mapping[str, float]:
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
    """Cross-entropy of the label, with class weights."""

    name = "task"

    def __init__(self, recipe: Recipe, labels: list[int], num_labels: int) -> None:
        self.recipe = recipe
        self.settings = recipe.task
        self.positive = 1 if num_labels == 2 else None
        balanced = self.settings.class_weights == "balanced"
        self.weights = class_weights(labels, num_labels) if balanced else torch.ones(num_labels)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return cross-entropy, and alignment where the recipe lets it go on."""
        fused: Fused = model({k: v for k, v in batch.items() if k != "written_ids"})
        total = functional.cross_entropy(
            fused.logits.float(),
            batch["label"],
            weight=self.weights.to(fused.logits.device),
            label_smoothing=self.settings.label_smoothing,
        )
        if self.settings.align:
            total = total + self.settings.align * aligned(model, fused, batch)
        return total

    def validate(self, model: MikoClassifier, feed: Feed) -> Mapping[str, float]:
        """Return the metrics, each the mean over the arms that the system is used in."""
        rows = [self._measure(logits(model, feed, arm), feed) for arm in serving_arms(self.recipe)]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _measure(self, scores: np.ndarray, feed: Feed) -> dict[str, float]:
        truth = np.array(feed.labels)
        log = torch.from_numpy(scores).log_softmax(-1)
        loss = functional.nll_loss(log, torch.from_numpy(truth))
        measured = metrics.classification(log.exp().numpy(), truth, positive=self.positive)
        return {"loss": float(loss), **measured}


Stage = ReasoningStage | TaskStage


def aligned(model: nn.Module, fused: Fused, batch: Batch) -> Tensor:
    """Return the alignment of the slots' guesses with what the teacher wrote."""
    classifier = getattr(model, "module", model)  # a distributed wrapper holds it as `module`
    assert isinstance(classifier, MikoClassifier)
    assert fused.guess is not None
    target = batch["target"] if "target" in batch else encode_targets(classifier, batch)
    return alignment(fused.guess, target, batch["target_present"])


@torch.no_grad()
def encode_targets(model: MikoClassifier, batch: Batch) -> Tensor:
    """Return the mean states of the teacher's texts, (post, slot, text width), no gradient."""
    ids, mask = batch["target_ids"].flatten(0, 1), batch["target_mask"].flatten(0, 1)
    here = mask.any(1)
    pooled = torch.zeros(len(ids), model.text_tower.width, device=ids.device)
    if here.any():
        pooled[here] = mean_pool(model.text_tower(ids[here], mask[here]), mask[here]).float()
    return pooled.unflatten(0, batch["target_ids"].shape[:2])
