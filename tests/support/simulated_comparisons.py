"""Comparisons whose truth is known: cached logits of demo posts, intentions of known worth."""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit

from miko_clf.data.post import Post
from miko_clf.evaluate.seeds import SeedPredictions

CONTENT = 1.0  # how far the content's logits of the two classes lie apart, in deviations
SEEDS = 5
ROWS = 200


class SimulatedWorld:
    """Posts with a cached logit each, of which comparisons draw rows, and systems draw seeds.

    `worth` is how far apart the intentions of the two classes lie; `jitter` how much seeds differ.
    """

    def __init__(self, posts: list[Post], worth: float, jitter: float = 0.15) -> None:
        labels = sorted({str(post.label) for post in posts})
        self.truth = np.array([labels.index(str(post.label)) for post in posts])
        self.worth, self.jitter = worth, jitter
        cached = np.random.default_rng(len(posts)).normal(size=len(posts))
        self.logits = CONTENT * (self.truth - 0.5) + cached

    def drawn(
        self, random: np.random.Generator, num_rows: int = ROWS, num_seeds: int = SEEDS
    ) -> tuple[np.ndarray, list[SeedPredictions], list[SeedPredictions]]:
        """Return truth, and what seeds say with and without intentions, of freshly drawn rows."""
        rows = random.integers(len(self.truth), size=num_rows)
        truth, content = self.truth[rows], self.logits[rows]
        told = self.worth * (truth - 0.5) + random.normal(size=num_rows)
        arms: tuple[list[SeedPredictions], list[SeedPredictions]] = ([], [])
        for _ in range(num_seeds):
            for arm, heard in zip(arms, (told, random.normal(size=num_rows)), strict=True):
                weight, bias = 0.7 + self.jitter * random.normal(), self.jitter * random.normal()
                said = expit(content + weight * heard + bias)
                arm.append(SeedPredictions(np.stack([1 - said, said], axis=1), 0.5))
        return truth, *arms

    def many(
        self, count: int, seed: int
    ) -> Iterator[tuple[np.ndarray, list[SeedPredictions], list[SeedPredictions]]]:
        """Yield comparisons, each of other rows and other seeds."""
        random = np.random.default_rng(seed)
        for _ in range(count):
            yield self.drawn(random)
