"""Which graphs a classifier becomes: inputs, outputs, calibrated probabilities, decisions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from miko_clf.bundle import Calibration, IsotonicKnots, loosen_threshold
from miko_clf.data.preprocess import Preparation
from miko_clf.fuse.build import Model
from miko_clf.questions import Question, Questions

# Names of the dimensions of each input; none where the size is fixed.
INPUT_DIMS: Mapping[str, tuple[str | None, ...]] = {
    "pixels": ("batch", None, None, None),
    "image_present": ("batch",),
    "student": ("batch",),
    "relation": ("batch", "intention"),
    "intention_ids": ("batch", "intention", "intention_word"),
    "intention_mask": ("batch", "intention", "intention_word"),
    "image_states": ("batch", None, None),
    "intention_states": ("batch", "intention", "intention_word", None),
    "ids": ("text", "word"),
    "mask": ("text", "word"),
    **{
        f"{name}_{kind}": ("batch", f"{name}_word", *rest)
        for name in ("text", "description", "rationale")
        for kind, rest in (("ids", ()), ("mask", ()), ("states", (None,)))
    },
}


_Names = Sequence[str]
_Call = Callable[[nn.Module, dict[str, Tensor]], Any]


class GraphSpec(nn.Module):
    """One graph to be written: takes `inputs` in order, calls a module, and gives `outputs`."""

    def __init__(
        self, name: str, module: nn.Module, inputs: _Names, outputs: _Names, call: _Call
    ) -> None:
        super().__init__()
        self.name, self.inputs, self.outputs = name, tuple(inputs), tuple(outputs)
        self.module, self.call = module, call

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the module makes of the tensors under their names."""
        return self.call(self.module, dict(zip(self.inputs, tensors, strict=True)))


def build_graphs(
    model: Model,
    preparation: Preparation,
    questions: Questions,
    calibrations: Sequence[Calibration],
) -> list[GraphSpec]:
    """Return the single graph, and the split ones: each tower, and the head behind them.

    The probabilities are those of each question as it was calibrated, in the order of the logits,
    and the decision is made at the thresholds of the arm that a post is in.
    """

    def answer(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        logits = module(batch).logits
        probabilities = compute_probabilities(logits, questions, calibrations)
        thresholds = select_thresholds(batch, preparation, questions, calibrations)
        return logits, probabilities, apply_thresholds(probabilities, thresholds, questions)

    whole = list_graph_inputs(preparation)
    behind = [
        own for name in whole for own in _list_head_inputs(name, model.split, model.reads_ids)
    ]
    outputs, states = ("logits", "probabilities", "decision"), ("states",)
    graphs = [
        GraphSpec("model", model, whole, outputs, answer),
        GraphSpec("head", model, behind, outputs, answer),
    ]
    if model.text_tower is not None and set(preparation.texts) <= set(model.split):
        graphs.append(GraphSpec("text", model.text_tower, ("ids", "mask"), states, _call_tower))
    if model.image_tower is not None and "image" in model.split:
        graphs.append(GraphSpec("image", model.image_tower, ("pixels",), states, _call_tower))
    return graphs


def _call_tower(tower: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    states: Tensor = tower(*batch.values())  # in the order of the graph's inputs
    return states


def list_graph_inputs(preparation: Preparation) -> list[str]:
    """Return the names of the single graph's inputs."""
    names = ["pixels", "image_present"] if preparation.image else []
    for name in preparation.texts:
        names += [f"{name}_ids", f"{name}_mask"]
    if preparation.reads_intentions:
        names += ["intention_ids", "intention_mask", "relation"]
    return [*names, "student"] if preparation.slots else names


def build_dynamic_shapes(
    names: Sequence[str], preparation: Preparation
) -> tuple[dict[int, Any], ...]:
    """Return the dynamic dimensions of each input, one object for one name."""
    longest = {"intention_word": preparation.intention_length, "batch": 4096, "text": 65536}
    longest |= {"intention": 64, "word": max(preparation.max_length, preparation.intention_length)}
    dims = {dim for name in names for dim in INPUT_DIMS[name] if dim}
    known = {dim: Dim(dim, min=1, max=longest.get(dim, preparation.max_length)) for dim in dims}
    return tuple(
        {place: known[dim] for place, dim in enumerate(INPUT_DIMS[name]) if dim} for name in names
    )


def _list_head_inputs(name: str, split: Sequence[str], reads_ids: Sequence[str]) -> list[str]:
    """Return what the head reads where the single graph reads `name`: states, or ids, or both."""
    if name == "pixels":
        return ["image_states" if "image" in split else name]
    text = name.removesuffix("_ids")
    if text == name or text not in split:
        return [name]
    return [f"{text}_states", *([name] if text in reads_ids else [])]


def compute_probabilities(
    logits: Tensor, questions: Questions, calibrations: Sequence[Calibration]
) -> Tensor:
    """Return (post, label): those of each question as it was calibrated, in the order of logits."""
    parts = [
        _calibrate_logits(_slice_question(logits, questions, span), question, calibration)
        for (question, span), calibration in zip(questions.spans(), calibrations, strict=True)
    ]
    return _join_questions(parts)


def apply_thresholds(probabilities: Tensor, thresholds: Tensor, questions: Questions) -> Tensor:
    """Return bool (post, label): which labels are decided for; of one question one, or any."""
    decisions = []
    for question, span in questions.spans():
        own = _slice_question(probabilities, questions, span)
        limit = _slice_question(thresholds, questions, span)
        if question.kind == "many":
            decisions.append(own >= limit)
        elif question.positive is not None:
            reached = own[:, 1:] >= limit[:, 1:]
            decisions.append(torch.cat([~reached, reached], dim=-1))
        else:
            decisions.append(own.argmax(-1, keepdim=True) == torch.arange(own.shape[1]))
    return _join_questions(decisions)


def select_thresholds(
    batch: Mapping[str, Tensor],
    preparation: Preparation,
    questions: Questions,
    calibrations: Sequence[Calibration],
) -> Tensor:
    """Return (post, label) or (1, label): the least probability that reaches each threshold.

    A post is in arm `with` where it has an intention, else in arm `student` where that input is
    true, else in arm `without`; where intentions are a part of the text there is `with` alone.
    """
    joined = "intention" in preparation.inputs and not preparation.reads_intentions
    limits = _build_thresholds("with" if joined else "without", questions, calibrations)
    if preparation.slots:
        student = _build_thresholds("student", questions, calibrations)
        limits = torch.where(batch["student"][:, None], student, limits)
    if preparation.reads_intentions:
        told = batch["intention_mask"].flatten(1).any(1)[:, None]
        limits = torch.where(told, _build_thresholds("with", questions, calibrations), limits)
    return limits


def round_up_float32(threshold: float) -> float:
    """Return the least float32 that is no less, so that a float32 reaches both or neither."""
    near = np.float32(threshold)
    return float(near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf)))


def _slice_question(values: Tensor, questions: Questions, span: slice) -> Tensor:
    return values if len(questions) == 1 else values[:, span]


def _join_questions(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _build_thresholds(
    arm: str, questions: Questions, calibrations: Sequence[Calibration]
) -> Tensor:
    limits: list[float] = []
    for question, calibration in zip(questions, calibrations, strict=True):
        threshold = calibration.thresholds.get(arm, 0.5)
        for label in question.labels:
            limit = threshold.get(label, 0.5) if isinstance(threshold, Mapping) else threshold
            limits.append(round_up_float32(loosen_threshold(limit)))
    return torch.tensor([limits], dtype=torch.float32)


def _calibrate_logits(logits: Tensor, question: Question, calibration: Calibration) -> Tensor:
    if calibration.isotonic is not None:
        margins = logits if question.kind == "many" else logits[:, 1:] - logits[:, :1]
        lines = [_interpolate(margins[:, i : i + 1], k) for i, k in enumerate(calibration.isotonic)]
        rising = torch.cat(lines, dim=-1)
        return rising if question.kind == "many" else torch.cat([1 - rising, rising], dim=-1)
    if (platt := calibration.platt) is not None:
        scaled = logits * torch.tensor(platt.scale) + torch.tensor(platt.shift)
    else:
        scaled = logits / calibration.temperature
    return scaled.softmax(-1) if question.kind == "one" else scaled.sigmoid()


def _interpolate(margin: Tensor, knots: IsotonicKnots) -> Tensor:
    """Return the line at a margin (post, 1): the sum of what it rises by in each step passed.

    Every step is a share of itself from 0 to 1, so nothing is searched for, which graphs do badly.
    """
    places = torch.tensor(knots.margins, dtype=torch.float32)
    heights = torch.tensor(knots.probabilities, dtype=torch.float32)
    if len(places) == 1:
        return torch.zeros_like(margin) + heights
    passed = ((margin - places[:-1]) / (places[1:] - places[:-1])).clamp(0, 1)
    rise = (passed * (heights[1:] - heights[:-1])).sum(-1, keepdim=True)
    return (heights[:1] + rise).clamp(0, 1)
