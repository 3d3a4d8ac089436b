"""What a table of the training posts would score: the measure of what an overlap is worth."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import computed_field

from miko_clf.data.post import Record

GAIN = 0.005
"""Accuracy that a look-up must gain, at the low end of its interval, to be a leak."""
_DRAWS = 10_000


class Lookup(Record):
    """Answers read off the training posts that share a key, beside answering the majority alone.

    `found` rows of `rows` share a key with training posts; `right` of them are answered rightly.
    `gain` is accuracy over the majority's, with its 95 % bootstrap interval over rows.
    """

    key: str
    split: str
    rows: int
    found: int
    right: int
    accuracy: float
    majority: float
    gain: float
    low: float
    high: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def leak(self) -> bool:
        """Whether it beats the majority by more than chance and `GAIN`; no model sees an id."""
        return self.key != "id" and self.low > GAIN

    @property
    def part(self) -> str:
        """What the posts share, in words."""
        return {"near post": "text and image"}.get(self.key, self.key.removeprefix("near "))

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.found} of {self.rows} {self.split} posts share a train post's {self.part}: "
            f"answering its label scores {self.accuracy:.1%}, the majority {self.majority:.1%}"
        )


def look_up(
    key: str,
    split: str,
    known: Sequence[tuple[Hashable, str]],
    asked: Sequence[tuple[Hashable, str]],
) -> Lookup | None:
    """Return how answering `asked` rows from `known` ones does; rows are (key, label).

    A key of None is known to nobody. Where the training posts of a key disagree the commonest
    label answers, and the majority label where they are evenly split. None without rows.
    """
    if not known or not asked:
        return None
    usual = _commonest(Counter(label for _, label in known))
    table: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for name, label in known:
        if name is not None:
            table[name][label] += 1
    answers = [_answer(table.get(name), usual) for name, _ in asked]
    hit = np.array([answer == label for answer, (_, label) in zip(answers, asked, strict=True)])
    base = np.array([label == usual for _, label in asked])
    found = np.array([name in table for name, _ in asked])
    low, high = _interval(int((hit & ~base).sum()), int((base & ~hit).sum()), len(asked))
    return Lookup(
        key=key,
        split=split,
        rows=len(asked),
        found=int(found.sum()),
        right=int((found & hit).sum()),
        accuracy=round(float(hit.mean()), 4),
        majority=round(float(base.mean()), 4),
        gain=round(float(hit.mean() - base.mean()), 4),
        low=low,
        high=high,
    )


def _commonest(labels: Counter[str]) -> str:
    return min(labels, key=lambda label: (-labels[label], label))


def _answer(labels: Counter[str] | None, usual: str) -> str:
    if not labels:
        return usual
    best = _commonest(labels)
    tied = sum(count == labels[best] for count in labels.values()) > 1
    return usual if tied else best


def _interval(won: int, lost: int, rows: int) -> tuple[float, float]:
    """Return the interval of (won - lost) / rows when as many rows are drawn again and again."""
    shares = np.array([won, lost, rows - won - lost]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, size=_DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / rows, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)
