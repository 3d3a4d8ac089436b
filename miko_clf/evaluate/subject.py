"""One system on the posts of one split: what every analysis of it looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from miko_clf import metrics
from miko_clf.bundle import Bundle
from miko_clf.data.labels import Part
from miko_clf.data.post import Post
from miko_clf.evaluate.predict import Predictor
from miko_clf.questions import Question
from miko_clf.train.infer import serving_arms


@dataclass(frozen=True)
class Subject:
    """A bundle in its usual arm, and what it says of the posts that answer its first question.

    `posts` are those that `predictor` holds and `truth` (row,) the index of each one's label;
    `probabilities` (row, label) are calibrated. `train` are the posts it learned from.
    """

    opened: Bundle
    predictor: Predictor
    posts: list[Post]
    question: Question
    span: slice
    truth: Int[np.ndarray, " row"]
    arm: str
    probabilities: Float[np.ndarray, "row label"]
    threshold: float | None
    train: list[Post]
    cache: Path | None

    @property
    def decided(self) -> Int[np.ndarray, " row"]:
        """Index of the label that each post is decided for."""
        return metrics.decide(
            self.probabilities, positive=self.question.positive, threshold=self.threshold
        )


def subject(
    opened: Bundle, predictor: Predictor, part: Part, train: Sequence[Post], cache: Path | None
) -> Subject | None:
    """Return the subject of a question with one answer, none where any number of labels may hold.

    The predictor's posts all answer it: `part` covers every row.
    """
    if part.question.kind == "many" or len(part.rows) != len(predictor.feed):
        return None
    arm = serving_arms(opened.recipe)[0]
    limits = {
        one.name: each for one, each in zip(opened.questions, opened.calibrations, strict=True)
    }
    found = limits[part.question.name].thresholds.get(arm)
    return Subject(
        opened=opened,
        predictor=predictor,
        posts=predictor.feed.posts,
        question=part.question,
        span=part.span,
        truth=part.truth,
        arm=arm,
        probabilities=predictor.probabilities(arm)[:, part.span],
        threshold=found if isinstance(found, float) else None,
        train=list(train),
        cache=cache,
    )
