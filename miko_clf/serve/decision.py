"""What probabilities decide: a label, several, or one answer for each task."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.bundle import Calibration, Threshold
from miko_clf.data.post import Names
from miko_clf.questions import Question, Questions


class Decision(NamedTuple):
    """The answer to one question, the probability of each label, and where the limits lie."""

    label: Names
    probabilities: Mapping[str, float]
    threshold: Threshold | None


def decide(
    row: NDArray[np.float32], questions: Questions, fitted: Sequence[Calibration], arm: str
) -> dict[str, Any]:
    """Return label, probabilities and threshold of a post, by task where the questions have names.

    Of two labels the second is decided for where its probability is at or above the threshold of
    the arm, and so is each label of which any may hold; of more, the most probable.
    """
    found = {
        question.name: _one(row[span], question, each.thresholds.get(arm))
        for (question, span), each in zip(questions.spans(), fitted, strict=True)
    }
    if list(found) == [""]:
        return found[""]._asdict()
    return {
        key: {name: getattr(each, key) for name, each in found.items()} for key in Decision._fields
    }


def lacking(questions: Questions, fitted: Sequence[Calibration], arm: str) -> bool:
    """Say whether an arm lacks a threshold that `decide` needs."""
    for question, each in zip(questions, fitted, strict=True):
        found = each.thresholds.get(arm)
        if question.kind == "many":
            if not isinstance(found, Mapping) or not found.keys() >= set(question.labels):
                return True
        elif question.positive is not None and not isinstance(found, float):
            return True
    return False


def _one(row: NDArray[np.float32], question: Question, threshold: Threshold | None) -> Decision:
    labels = question.labels
    probabilities = {name: float(p) for name, p in zip(labels, row, strict=True)}
    if isinstance(threshold, Mapping):
        chosen = tuple(name for name in labels if probabilities[name] >= threshold[name])
        return Decision(chosen, probabilities, {name: threshold[name] for name in labels})
    if question.positive is None or threshold is None:
        return Decision(labels[int(row.argmax())], probabilities, None)
    reached = probabilities[labels[1]] >= threshold
    return Decision(labels[int(reached)], probabilities, threshold)
