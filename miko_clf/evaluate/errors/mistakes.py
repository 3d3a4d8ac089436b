"""The mistakes that a system was most sure of, as many of each kind."""

import base64
import io
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from miko_clf.data.pixels import decode
from miko_clf.evaluate.subject import Subject

COUNT = 24
_SIDE = 160
_QUALITY = 70


@dataclass(frozen=True)
class Mistake:
    """One post that was decided wrongly.

    `probability` is that of the wrong label; `distance` is how far the probability of the positive
    class lies from the threshold, where there is one. `image` is a small JPEG as a data URI.
    """

    id: str
    text: str | None
    description: str | None
    label: str
    decided: str
    probability: float
    distance: float | None
    intentions: list[dict[str, str]]
    image: str | None


def mistakes(subject: Subject, *, count: int = COUNT, images: bool = False) -> list[Mistake]:
    """Return the `count` worst mistakes, the most probable first.

    Every label that was wrongly decided for has an equal share of them, as far as it has as many:
    of two classes, as many false positives as false negatives.
    """
    sure = subject.probabilities[np.arange(len(subject.posts)), subject.decided]
    order = np.argsort(-sure, kind="stable")
    wrong = order[subject.decided[order] != subject.truth[order]]
    kinds = [wrong[subject.decided[wrong] == label] for label in np.unique(subject.decided[wrong])]
    turns = [int(row) for turn in zip_longest(*kinds) for row in turn if row is not None]
    kept = sorted(turns[:count], key=lambda row: -sure[row])
    return [_mistake(subject, row, images) for row in kept]


def thumbnail(image: Path | bytes) -> str:
    """Return a picture as the data URI of a JPEG of at most 160 pixels a side."""
    small = decode(image, at_least=(_SIDE, _SIDE))
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _mistake(subject: Subject, row: int, images: bool) -> Mistake:
    post, decided = subject.posts[row], int(subject.decided[row])
    labels, positive = subject.question.labels, subject.question.positive
    distance = None
    if positive is not None:
        limit = 0.5 if subject.threshold is None else subject.threshold
        distance = abs(float(subject.probabilities[row, positive]) - limit)
    return Mistake(
        id=post.id,
        text=post.text,
        description=post.description,
        label=labels[int(subject.truth[row])],
        decided=labels[decided],
        probability=float(subject.probabilities[row, decided]),
        distance=distance,
        intentions=[{"relation": one.relation, "text": one.text} for one in post.intentions],
        image=thumbnail(post.image) if images and post.image is not None else None,
    )
