"""The two stages of a recipe, and how each learns."""

from typing import Literal

from pydantic import Field, model_validator

from miko_clf.recipe.section import Section


class Optimiser(Section):
    """AdamW, with warm-up and decay."""

    rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of fusion, slots, decoder and head."""
    tower_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of what learns of the towers."""
    gate_factor: float = Field(default=1.0, gt=0)
    """Gates learn at this multiple of the rate; they start at zero and have far to go."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of matrices; norms, biases, gates and embeddings have none."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    """Shape of the fall to zero."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which is what is kept; 0 keeps the weights."""


class Early(Section):
    """When a stage stops before its last epoch."""

    metric: Literal["loss", "accuracy", "macro_f1", "auroc", "average_precision"] = "loss"
    """Validation metric that picks the kept epoch."""
    patience: int = Field(default=3, gt=0)
    """Epochs without a better value after which the stage stops."""


class Reasoning(Section):
    """The first stage: learn what the teacher's text says."""

    epochs: int = Field(default=0, ge=0)
    """Passes over the training posts; 0 leaves the stage out."""
    align: float = Field(default=1.0, ge=0)
    """Weight of bringing each slot to the encoding of the teacher's text."""
    generate: float = Field(default=0.0, ge=0)
    """Weight of writing the rationale with a decoder."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of a rationale's words, drawn anew each step, that are learned from."""
    max_length: int = Field(default=128, gt=2)
    """Tokens kept of a rationale."""
    optimiser: Optimiser = Optimiser()
    early: Early = Early()

    @model_validator(mode="after")
    def _has_a_loss(self) -> "Reasoning":
        if self.epochs and not self.align and not self.generate:
            raise ValueError("a reasoning stage needs align or generate above 0")
        if self.early.metric != "loss":
            raise ValueError("the reasoning stage knows one validation metric, loss")
        return self


class Retrieval(Section):
    """Contrast with retrieved posts, and a vote of the nearest (Mei et al., RGCL, ACL 2024)."""

    weight: float = Field(default=1.0, gt=0)
    """Weight of the contrast beside the cross-entropy."""
    margin: float = Field(default=0.1, gt=0)
    """Cosine by which a post of the same label must be nearer than one of another."""
    neighbours: int = Field(default=20, gt=0)
    """Training posts that vote on a new one."""
    vote: float = Field(default=0.5, ge=0, le=1)
    """Share of the vote in the probability; the rest is the head's."""


class Task(Section):
    """The second stage: learn the label."""

    epochs: int = Field(default=6, gt=0)
    """Passes over the training posts, at most."""
    align: float = Field(default=0.0, ge=0)
    """Weight at which the alignment of the reasoning stage goes on."""
    likelihood: bool = False
    """Learn to spell the true label, and not to prefer it (fusion kind generator only)."""
    retrieval: Retrieval | None = None
    """Contrast with retrieved posts and their vote; null for neither."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weigh each class by the inverse of its share of the training posts."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    optimiser: Optimiser = Optimiser()
    early: Early = Early(metric="auroc")
