"""What systems say of posts, question by question."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.bundle import Threshold
from miko_clf.data.labels import Part, Truth, encode
from miko_clf.data.post import Post
from miko_clf.errors import PostError
from miko_clf.questions import Questions


class Said(NamedTuple):
    """What one system says in one arm to all questions; `probabilities` (post, label).

    `thresholds` holds those of each question that has any.
    """

    system: str
    arm: str
    probabilities: NDArray[np.float64]
    thresholds: Mapping[str, Threshold]
    note: str


class Scored(NamedTuple):
    """The probabilities, (post, label), of one system in one arm for one question."""

    system: str
    arm: str
    probabilities: NDArray[np.float64]
    threshold: float | tuple[float, ...] | None
    note: str = ""

    @property
    def name(self) -> str:
        """System and arm in one word."""
        return f"{self.system}/{self.arm}"


class Asked(NamedTuple):
    """One question on the posts that answer it, and the training posts that do."""

    here: Part
    learned: Part
    posts: list[Post]
    train: list[Post]


def asked(
    posts: list[Post], train: list[Post], questions: Questions, where: Path, split: str
) -> list[Asked]:
    """Return the questions that some of the posts answer."""
    truth, learned = (
        _truth(rows, questions, f"{where}, {name}")
        for rows, name in ((posts, split), (train, "train"))
    )
    found = [
        Asked(here, known, [posts[row] for row in here.rows], [train[row] for row in known.rows])
        for here, known in zip(truth.parts(), learned.parts(), strict=True)
    ]
    return [one for one in found if one.posts]


def scored(said: Said, part: Part) -> Scored:
    """Return what is said of one question, to the posts that answer it."""
    found = said.thresholds.get(part.question.name)
    limit: float | tuple[float, ...] | None
    if isinstance(found, Mapping):
        limit = tuple(found[label] for label in part.question.labels)
    else:
        limit = found
    probabilities = said.probabilities[part.rows, part.span]
    return Scored(said.system, said.arm, probabilities, limit, said.note)


def _truth(posts: list[Post], questions: Questions, where: str) -> Truth:
    for post in posts:
        if post.label is None:
            raise PostError(f"{where}: post {post.id!r} has no label, so no answer can be judged")
    return encode(posts, questions, where, "the bundles know")
