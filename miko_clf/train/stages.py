"""The two stages and their losses: learn what the teacher's text says, then learn the label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from miko_clf import metrics
from miko_clf.data.labels import TaskLabels
from miko_clf.encode.finetune import count_blocks_above
from miko_clf.encode.tower import mean_pool
from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch, ModelOutput
from miko_clf.questions import Question, Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import GeneratorSection
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.optim import LayerwiseRate
from miko_clf.train.predict import list_serving_arms, predict_logits
from miko_clf.train.retrieval import RetrievalContrast

_TEMPERATURE = 0.07  # of the contrast between posts (van den Oord et al., 2018; CLIP's start)
_WATCHED = ("macro_f1", "auroc")  # validation metrics that are logged for each of several questions


class ReasoningStage:
    """Bring slots to the teacher's text, and write the rationale (Mr.Harm, 2023)."""

    name = "reasoning"
    salt: tuple[int, ...] = (len(name),)

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings = recipe.reasoning
        # A generator writes by its own decoder, which reads its encoder alone.
        writes = isinstance(recipe.fusion, GeneratorSection)
        self.guess_only = writes or not self.settings.generate

    def set_rates(self, model: Model) -> dict[str, LayerwiseRate]:
        """Return how fast each pretrained tower learns, by prefix."""
        return _set_tower_rates(self.recipe, model, self.settings.optimiser.tower_rate)

    def list_state(self) -> Sequence[Any]:
        """Return what else has a state: nothing."""
        return ()

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch: nothing to do."""

    def vary(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Return the batch with inputs taken away at random."""
        return drop_inputs(batch, self.recipe, random)

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
    def validate(self, model: Model, val: EncodedDataset) -> dict[str, float]:
        """Return the mean loss over the posts, whose batches are what they are contrasted in."""
        device = next(model.parameters()).device
        model.eval()
        total = 0.0
        for start in range(0, len(val), 32):
            rows = range(start, min(start + 32, len(val)))
            batch = {name: tensor.to(device) for name, tensor in val.batch(rows).items()}
            total += float(self.loss(model, batch)) * len(rows)
        model.train()
        return {"loss": total / len(val)}


class TaskStage:
    """Cross-entropy of what each question's labels are, with class weights.

    With the logits that a `teacher` gives the training posts, half of the loss is how far its
    probabilities are (Hinton et al., 2015, at temperature 1).
    """

    name = "task"
    salt: tuple[int, ...] = (len(name),)

    def __init__(
        self,
        recipe: Recipe,
        train: EncodedDataset,
        teacher: Float[Tensor, "post label"] | None = None,
    ) -> None:
        self.recipe = recipe
        self.settings = recipe.task
        self.teacher = teacher
        self.questions = train.truth.questions
        balanced = self.settings.class_weights == "balanced"
        self.weights = [
            _compute_weights(part, balanced=balanced) for part in train.truth.split_by_question()
        ]
        retrieval = recipe.task.retrieval
        self.retrieving = RetrievalContrast(retrieval, train) if retrieval else None

    def set_rates(self, model: Model) -> dict[str, LayerwiseRate]:
        """Return how fast each pretrained tower learns, by prefix."""
        return _set_tower_rates(self.recipe, model, self.settings.optimiser.tower_rate)

    def list_state(self) -> Sequence[Any]:
        """Return the neighbours that were found, where posts are contrasted."""
        return () if self.retrieving is None else (self.retrieving,)

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch, by the model as it is at its start."""
        if self.retrieving is not None:
            self.retrieving.begin(unwrap_model(model), epoch)

    def vary(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Return the batch with inputs taken away at random."""
        return drop_inputs(batch, self.recipe, random)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the label, and what the recipe lays beside it."""
        fused: ModelOutput = model({k: v for k, v in batch.items() if k != "written_ids"})
        total = self._classify(model, fused, batch)
        if self.settings.align:
            total = total + self.settings.align * measure_alignment(model, fused, batch)
        if self.retrieving is not None:
            total = total + self.retrieving.loss(model, fused, batch["row"])
        return total

    def validate(self, model: Model, val: EncodedDataset) -> dict[str, float]:
        """Return the metrics, each the mean over the arms that the system is used in.

        Of several questions each metric is the mean over those where it is defined, and what is
        watched of each stands beside it. Where some logit is not finite there is but the loss, NaN.
        """
        arms = [predict_logits(model, val, arm) for arm in list_serving_arms(self.recipe)]
        if not all(np.isfinite(logits).all() for logits in arms):
            return {"loss": np.nan}
        rows = [_measure_questions(logits, val.truth.split_by_question()) for logits in arms]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _classify(self, model: nn.Module, fused: ModelOutput, batch: Batch) -> Tensor:
        if self.settings.likelihood:
            return unwrap_model(model).label_loss(fused.logits, batch["label"])
        smoothing = self.settings.label_smoothing
        own = compute_question_loss(self.questions, fused.logits, batch, self.weights, smoothing)
        if self.teacher is None:
            return own
        taught = self.teacher[batch["row"].cpu()].to(fused.logits.device)
        return (own + compute_distillation_loss(self.questions, fused.logits, taught)) / 2


def drop_inputs(batch: Batch, recipe: Recipe, random: np.random.Generator) -> Batch:
    """Return the batch with inputs taken away at random, so that absence is learned.

    Each post may lose its intentions, its image and each text, and where it has no
    intentions the slots; of image and texts a post never loses all that it has.
    """
    varied, num_posts = dict(batch), len(batch["label"])

    def chance(rate: float) -> Tensor:
        return torch.from_numpy(random.random(num_posts) < rate).to(batch["label"].device)

    rate, masks = recipe.fusion.modality_dropout, [f"{name}_mask" for name in recipe.content_texts]
    keeps_one = torch.zeros(num_posts, dtype=torch.bool, device=batch["label"].device)
    for mask in masks:
        varied[mask] = batch[mask] & ~chance(rate)[:, None]
        keeps_one = keeps_one | varied[mask].any(1)
    if "image_present" in batch:
        varied["image_present"] = batch["image_present"] & ~(chance(rate) & keeps_one)
        keeps_one = keeps_one | varied["image_present"]
    for mask in masks:
        varied[mask] = torch.where(keeps_one[:, None], varied[mask], batch[mask])
    if "intention_mask" in batch:
        gone = chance(recipe.intention.dropout)[:, None, None]
        varied["intention_mask"] = batch["intention_mask"] & ~gone
    if "student" in batch:
        varied["student"] = batch["student"] & ~chance(recipe.fusion.slot_dropout)
    return varied


def unwrap_model(model: nn.Module) -> Any:
    """Return the model itself, which a distributed wrapper holds as `module`."""
    return getattr(model, "module", model)


def measure_alignment(model: nn.Module, fused: ModelOutput, batch: Batch) -> Tensor:
    """Return the alignment of the slots' guesses with what the teacher wrote."""
    classifier = unwrap_model(model)
    assert fused.guess is not None
    present = batch["target_present"]
    if "target" in batch:
        return compute_alignment_loss(fused.guess, batch["target"], present)
    words = batch["target_ids"].masked_fill(~batch["target_mask"], -1)
    return compute_alignment_loss(fused.guess, encode_targets(classifier, batch), present, words)


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


def compute_alignment_loss(
    guess: Float[Tensor, "post slot width"],
    target: Float[Tensor, "post slot width"],
    present: Bool[Tensor, "post slot"],
    words: Int[Tensor, "post slot word"] | None = None,
) -> Float[Tensor, ""]:
    """Return how far the slots' guesses are from the teacher's text, zero where none is given.

    For each slot, cross-entropy of finding a post's own text among the different ones of the
    batch, by cosine. Texts are the same whose `words` are, or else whose targets are. The target
    gets no gradient.
    """
    here = present.T  # (slot, post)
    first = _find_first_alike(target if words is None else words, present)
    stands = here & (first == torch.arange(len(present), device=first.device))
    guess = functional.normalize(guess.float(), dim=-1).transpose(0, 1)  # (slot, post, width)
    target = functional.normalize(target.detach().float(), dim=-1).transpose(0, 1)
    scores = guess @ target.transpose(1, 2) / _TEMPERATURE  # (slot, post, post)
    own = scores.gather(2, first[..., None])[..., 0]
    scores = scores.masked_fill(~stands[:, None, :], -torch.inf)
    total = scores.masked_fill(~here.any(1)[:, None, None], 0.0).logsumexp(-1)
    loss = torch.where(here, total - own, 0.0)
    return loss.sum() / here.sum().clamp(min=1)


def _find_first_alike(
    texts: Float[Tensor, "post slot width"] | Int[Tensor, "post slot word"],
    present: Bool[Tensor, "post slot"],
) -> Int[Tensor, "slot post"]:
    """Return for each post the first that has the same text in the slot: mostly itself.

    A contrast counts each text once, lest a guess be pushed from the text that it should find.
    """
    alike = torch.stack([(rows[:, None] == rows).all(-1) for rows in texts.unbind(1)])
    return (alike & present.T[:, None, :]).int().argmax(-1)  # of equals argmax takes the first


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
        labels = batch["label"][here, span]
        parts.append(_compute_one_loss(question, logits[here, span], labels, weight, smoothing))
    return torch.stack(parts).sum()


def compute_distillation_loss(
    questions: Questions,
    logits: Float[Tensor, "post label"],
    teacher: Float[Tensor, "post label"],
) -> Float[Tensor, ""]:
    """Return the sum over questions of the cross-entropy with the teacher's probabilities.

    Of a question where any label may hold it is the mean over labels. Every post counts, whether
    or not it answers the question itself.
    """
    logits, parts = logits.float(), []
    for question, span in questions.spans():
        own, taught = logits[:, span], teacher[:, span]
        if question.kind == "one":
            parts.append(functional.cross_entropy(own, taught.softmax(1)))
        else:
            parts.append(functional.binary_cross_entropy_with_logits(own, taught.sigmoid()))
    return torch.stack(parts).sum()


def _compute_one_loss(
    question: Question, logits: Tensor, labels: Tensor, weight: Tensor, smoothing: float
) -> Tensor:
    if not len(logits):
        return logits.sum()
    if question.kind == "one":
        return functional.cross_entropy(
            logits, labels.argmax(1), weight=weight, label_smoothing=smoothing
        )
    target = labels * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)


def _set_tower_rates(recipe: Recipe, model: Model, usual: float) -> dict[str, LayerwiseRate]:
    """Return how fast each tower learns that does not start from scratch, by prefix."""
    towers = {
        "image_tower.": (recipe.image, model.image_tower),
        "text_tower.": (recipe.text, model.text_tower),
    }
    return {
        prefix: LayerwiseRate(section.rate or usual, section.layer_decay, count_blocks_above(tower))
        for prefix, (section, tower) in towers.items()
        if section is not None and tower is not None and section.source != "tiny"
    }


def _compute_weights(part: TaskLabels, *, balanced: bool) -> Tensor:
    num_labels = len(part.question.labels)
    if not balanced:
        return torch.ones(num_labels)
    if part.question.kind == "many":
        return compute_positive_weights(part.truth)
    return compute_class_weights(part.truth.tolist(), num_labels)


def _measure_questions(
    logits: NDArray[np.float64], parts: Sequence[TaskLabels]
) -> dict[str, float]:
    measured = {part.question.name: _measure(logits[part.rows, part.span], part) for part in parts}
    if len(parts) == 1:
        return measured[parts[0].question.name]
    names = dict.fromkeys(name for values in measured.values() for name in values)
    means = {
        name: _average_defined([values[name] for values in measured.values() if name in values])
        for name in names
    }
    watched = {
        f"{question} {name}": values[name]
        for question, values in measured.items()
        for name in _WATCHED
    }
    return {**means, **watched}


def _average_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _measure(rows: NDArray[np.float64], part: TaskLabels) -> dict[str, float]:
    logits, truth = torch.from_numpy(rows), torch.from_numpy(part.truth)
    if part.question.kind == "many":
        loss = functional.binary_cross_entropy_with_logits(logits, truth.double())
        measured = metrics.measure_multilabel(logits.sigmoid().numpy(), part.truth)
        measured["accuracy"] = measured.pop("subset_accuracy")
        return {"loss": float(loss), **measured}
    log = logits.log_softmax(-1)
    loss = functional.nll_loss(log, truth)
    positive = part.question.positive
    measured = metrics.measure_classification(log.exp().numpy(), part.truth, positive=positive)
    return {"loss": float(loss), **measured}
