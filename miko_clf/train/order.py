"""In which order posts are seen: a function of seed and epoch, so that a killed run can go on."""

from collections.abc import Iterator, Sequence

import numpy as np


class Order:
    """Batches of indices for one epoch, posts of like length together.

    Set `epoch`, and `start` to skip batches that a resumed run has already seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches()[self.start :])

    def batches(self) -> list[list[int]]:
        """Return every batch of the epoch: shuffled, sorted by length in pools of 16 batches."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        pool = 16 * self.batch_size
        batches = []
        for first in range(0, len(order), pool):
            part = order[first : first + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[i].tolist() for i in random.permutation(len(batches))]
