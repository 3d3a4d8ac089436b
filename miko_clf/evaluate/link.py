"""Logits to probabilities, as a bundle's calibration says, and these to sets of labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, softmax

from miko_clf.bundle import Calibration, inside
from miko_clf.questions import Question, Questions

Rows = Float[np.ndarray, "row label"]


def linked(scores: Rows, questions: Questions, fitted: Sequence[Calibration]) -> Rows:
    """Return the calibrated probabilities of logits (post, label), question by question.

    A softmax over the labels of which one holds, a sigmoid for each that may hold.
    """
    found = np.empty_like(scores)
    for (question, span), each in zip(questions.spans(), fitted, strict=True):
        found[:, span] = stated(scores[:, span], question, each)
    return found


def stated(scores: Rows, question: Question, fitted: Calibration) -> Rows:
    """Return the calibrated probabilities of the logits of one question."""
    if fitted.isotonic is not None:
        columns = zip(margins(scores, question).T, fitted.isotonic, strict=True)
        found = np.stack([np.interp(m, k.margins, k.probabilities) for m, k in columns], axis=1)
        return found if question.kind == "many" else np.concatenate([1 - found, found], axis=1)
    if fitted.platt is not None:
        scaled = scores * np.array(fitted.platt.scale) + np.array(fitted.platt.shift)
    else:
        scaled = scores / fitted.temperature
    linked: Rows = softmax(scaled, axis=1) if question.kind == "one" else expit(scaled)
    return linked


def margins(scores: Rows, question: Question) -> Rows:
    """Return what each decision is made of: the second logit above the first, or each logit.

    Rounded to float32, as a graph's are: where isotonic lines are steep the rest would be seen.
    """
    if question.kind == "many":
        found = scores
    else:
        assert scores.shape[1] == 2, "one of more than two labels has no margin"
        found = scores[:, 1:] - scores[:, :1]
    return found.astype(np.float32).astype(np.float64)


def within(probabilities: Rows, quantile: float) -> Bool[np.ndarray, "row label"]:
    """Return which labels are in the conformal set of each row; a tie is inside."""
    held: Bool[np.ndarray, "row label"] = probabilities >= inside(quantile)
    return held
