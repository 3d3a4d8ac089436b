"""What a graph answers: calibrated probabilities, and the labels that they decide for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from miko_clf.bundle import Calibration, Knots, reaching
from miko_clf.data.collate import Preparation
from miko_clf.questions import Question, Questions


def probabilities(logits: Tensor, questions: Questions, fitted: Sequence[Calibration]) -> Tensor:
    """Return (post, label): those of each question as it was calibrated, in the order of logits."""
    found = [
        _stated(_here(logits, questions, span), question, each)
        for (question, span), each in zip(questions.spans(), fitted, strict=True)
    ]
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def decision(stated: Tensor, limits: Tensor, questions: Questions) -> Tensor:
    """Return bool (post, label): which labels are decided for; of one question one, or any."""
    found = []
    for question, span in questions.spans():
        here, limit = (_here(each, questions, span) for each in (stated, limits))
        if question.kind == "many":
            found.append(here >= limit)
        elif question.positive is not None:
            reached = here[:, 1:] >= limit[:, 1:]
            found.append(torch.cat([~reached, reached], dim=-1))
        else:
            places = torch.arange(here.shape[1])
            found.append(here.argmax(-1, keepdim=True) == places)
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def limits(
    batch: Mapping[str, Tensor],
    preparation: Preparation,
    questions: Questions,
    fitted: Sequence[Calibration],
) -> Tensor:
    """Return what reaches the threshold of each label in the arm of each post.

    Of shape (post, label) or (1, label): the least probability that does.

    A post is in arm `with` where it has an intention, else in arm `student` where that input is
    true, else in arm `without`; where intentions are a part of the text there is `with` alone.
    """
    joined = "intention" in preparation.inputs and not preparation.reads_intentions
    found = _limits("with" if joined else "without", questions, fitted)
    if preparation.slots:
        student = _limits("student", questions, fitted)
        found = torch.where(batch["student"][:, None], student, found)
    if preparation.reads_intentions:
        given = batch["intention_mask"].flatten(1).any(1)
        found = torch.where(given[:, None], _limits("with", questions, fitted), found)
    return found


def rounded_up(threshold: float) -> float:
    """Return the least float32 that is no less, so that a float32 reaches both or neither."""
    near = np.float32(threshold)
    return float(near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf)))


def _here(values: Tensor, questions: Questions, span: slice) -> Tensor:
    return values if len(questions) == 1 else values[:, span]


def _limits(arm: str, questions: Questions, fitted: Sequence[Calibration]) -> Tensor:
    found: list[float] = []
    for question, each in zip(questions, fitted, strict=True):
        given = each.thresholds.get(arm, 0.5)
        for label in question.labels:
            found.append(given.get(label, 0.5) if isinstance(given, Mapping) else given)
    return torch.tensor([[rounded_up(reaching(limit)) for limit in found]], dtype=torch.float32)


def _stated(logits: Tensor, question: Question, fitted: Calibration) -> Tensor:
    if fitted.isotonic is not None:
        margins = logits if question.kind == "many" else logits[:, 1:] - logits[:, :1]
        lines = [_line(margins[:, i : i + 1], knots) for i, knots in enumerate(fitted.isotonic)]
        found = torch.cat(lines, dim=-1)
        return found if question.kind == "many" else torch.cat([1 - found, found], dim=-1)
    if fitted.platt is not None:
        scaled = logits * torch.tensor(fitted.platt.scale) + torch.tensor(fitted.platt.shift)
    else:
        scaled = logits / fitted.temperature
    return scaled.softmax(-1) if question.kind == "one" else scaled.sigmoid()


def _line(margin: Tensor, knots: Knots) -> Tensor:
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
