"""What probabilities decide: a label, several, or one answer for each task, and how sure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miko_clf.bundle import Calibration, Threshold, inside, reaching
from miko_clf.data.post import Label, Names, Record
from miko_clf.questions import Question, Questions


def _unsaid(value: Any) -> bool:
    return value is None


class Score(Record):
    """What the model says of a post.

    `arm` is what stood for the author's intention: those given (`with`), the model's own guess
    (`student`) or nothing (`without`). Of two labels the second is decided where its probability
    is at or above `threshold`, a rounding aside; of more, the most probable. Where any number of
    labels may hold `label` lists those at or above their thresholds. Where there are tasks label,
    probabilities and threshold are objects with an entry for each. `truncated` says that some text
    was longer than the model reads. `certain` says whether the label stands alone in the post's
    conformal set; it is left out where the bundle has none.
    """

    id: str
    label: Label
    probabilities: Mapping[str, float] | Mapping[str, Mapping[str, float]]
    threshold: Threshold | Mapping[str, Threshold | None] | None
    arm: str
    truncated: bool
    certain: bool | Mapping[str, bool | None] | None = Field(default=None, exclude_if=_unsaid)


class Decision(NamedTuple):
    """The answer to one question, the probability of each label, and where the limits lie."""

    label: Names
    probabilities: Mapping[str, float]
    threshold: Threshold | None
    certain: bool | None = None


def decide(
    row: NDArray[np.float32], questions: Questions, fitted: Sequence[Calibration], arm: str
) -> dict[str, Any]:
    """Return the fields of a `Decision` on a post, by task where the questions have names.

    Of two labels the second is decided for where its probability is at or above the threshold of
    the arm, and so is each label of which any may hold; of more, the most probable.
    """
    found = {
        question.name: _sure(_one(row[span], question, each.thresholds.get(arm)), each, arm)
        for (question, span), each in zip(questions.spans(), fitted, strict=True)
    }
    if list(found) == [""]:
        return found[""]._asdict()
    tasks = {
        key: {name: getattr(each, key) for name, each in found.items()} for key in Decision._fields
    }
    silent = all(each is None for each in tasks["certain"].values())
    return tasks | {"certain": None} if silent else tasks


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


def _sure(found: Decision, fitted: Calibration, arm: str) -> Decision:
    """Return the decision, with whether its label is alone in the conformal set."""
    if fitted.conformal is None or arm not in fitted.conformal.quantiles:
        return found
    least = inside(fitted.conformal.quantiles[arm])
    held = [name for name, stated in found.probabilities.items() if stated >= least]
    return found._replace(certain=held == [found.label])


def _one(row: NDArray[np.float32], question: Question, threshold: Threshold | None) -> Decision:
    labels = question.labels
    probabilities = {name: float(p) for name, p in zip(labels, row, strict=True)}
    if isinstance(threshold, Mapping):
        chosen = tuple(name for name in labels if probabilities[name] >= reaching(threshold[name]))
        return Decision(chosen, probabilities, {name: threshold[name] for name in labels})
    if question.positive is None or threshold is None:
        return Decision(labels[int(row.argmax())], probabilities, None)
    reached = probabilities[labels[1]] >= reaching(threshold)
    return Decision(labels[int(reached)], probabilities, threshold)
