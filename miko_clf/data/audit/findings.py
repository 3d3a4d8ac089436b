"""What an audit finds, as records that are written, printed and drawn."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import ConfigDict, Field, computed_field

from miko_clf.data.post import Record

MIN_LOOKUP_GAIN = 0.005
"""Accuracy that a look-up must gain, at the low end of its interval, to be a leak."""
_NUM_DRAWS = 10_000


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
        """Whether it beats the majority by more than chance and a little; no model sees an id."""
        return self.key != "id" and self.low > MIN_LOOKUP_GAIN

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


def score_lookup(
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
    majority = _choose_commonest(Counter(label for _, label in known))
    table: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for name, label in known:
        if name is not None:
            table[name][label] += 1
    answers = [_look_up_answer(table.get(name), majority) for name, _ in asked]
    hit = np.array([answer == label for answer, (_, label) in zip(answers, asked, strict=True)])
    base = np.array([label == majority for _, label in asked])
    found = np.array([name in table for name, _ in asked])
    won, lost = int((hit & ~base).sum()), int((base & ~hit).sum())
    low, high = _estimate_gain_interval(won, lost, len(asked))
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


def _choose_commonest(labels: Counter[str]) -> str:
    return min(labels, key=lambda label: (-labels[label], label))


def _look_up_answer(labels: Counter[str] | None, majority: str) -> str:
    if not labels:
        return majority
    best = _choose_commonest(labels)
    tied = sum(count == labels[best] for count in labels.values()) > 1
    return majority if tied else best


def _estimate_gain_interval(won: int, lost: int, rows: int) -> tuple[float, float]:
    """Return the interval of (won - lost) / rows when as many rows are drawn again and again."""
    shares = np.array([won, lost, rows - won - lost]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, size=_NUM_DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / rows, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


CueVerdict = Literal["shortcut", "never feed this", "no finding", "too few rows"]


class SplitSummary(Record):
    """How many posts of which class a split holds, and what its posts lack.

    `refused` posts are among none of the other figures.
    """

    name: str
    posts: int
    labels: Mapping[str, int]
    unlabelled: int
    without_text: int
    without_image: int
    refused: int


class UnreadPost(Record):
    """A post that cannot be read, where it stands, and why."""

    split: str
    where: str
    why: str


class ClassShift(Record):
    """How far the share of a class moves from train to another split; chi-square's p."""

    split: str
    label: str
    train_share: float
    share: float
    p: float
    warn: bool


class OverlapMember(Record):
    """One post of a group."""

    split: str
    id: str
    label: str | None


class OverlapGroup(Record):
    """Two or more posts of one key; `across` splits, and with labels in `conflict`, or not."""

    members: tuple[OverlapMember, ...]
    across: bool
    conflict: bool


class Overlap(Record):
    """Every group of posts that share one kind of key."""

    key: str
    what: str
    groups: tuple[OverlapGroup, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_groups(self) -> int:
        """Groups of two or more posts."""
        return len(self.groups)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_across(self) -> int:
        """Groups that stand on two sides of a split."""
        return sum(group.across for group in self.groups)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_conflicts(self) -> int:
        """Groups whose posts are labelled differently."""
        return sum(group.conflict for group in self.groups)


class ContrastSets(Record):
    """Groups that share one part, differ in the other, and carry different labels: no leak.

    Hateful Memes (Kiela et al., NeurIPS 2020) is built of them, so that neither part is enough.
    """

    shared: Literal["text", "image"]
    groups: tuple[OverlapGroup, ...]


class Cue(Record):
    """One number a post, and how well it tells a class from the rest all by itself.

    `auroc` is taken the way round in which it exceeds 0.5, with a 95 % interval, on `split`;
    `held` is the AUROC the same way round on every other split. Of several classes it is the
    one that is told best. `nearby` finds what goes up and down with a number.
    """

    name: str
    reaches: bool = Field(description="whether a model gets to see it")
    split: str
    label: str | None
    higher: bool | None = Field(description="whether the class has the higher number")
    auroc: float | None
    low: float | None
    high: float | None
    inside: float | None = Field(description="its mean in the class")
    outside: float | None = Field(description="its mean outside the class")
    nearby: float | None = Field(description="AUROC of the vote of the nearest numbers, all splits")
    nearby_low: float | None
    limit: float
    held: Mapping[str, float]
    verdict: CueVerdict

    @property
    def best(self) -> float:
        """The larger of the two AUROCs, 0 where there is none."""
        return max(self.auroc or 0, self.nearby or 0)


class ClassMentions(Record):
    """Shares of the texts about posts of a class that name it, or any class at all."""

    source: str
    label: str
    texts: int
    own: float
    any: float


class Audit(Record):
    """Everything that was found; `leaks` says in one line each why results would be void.

    As JSON, contrast sets are called confounders and class mentions namings.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    data: str
    kind: str
    splits: tuple[SplitSummary, ...]
    shifts: tuple[ClassShift, ...]
    overlaps: tuple[Overlap, ...]
    lookups: tuple[Lookup, ...]
    contrast_sets: tuple[ContrastSets, ...] = Field(serialization_alias="confounders")
    cues: tuple[Cue, ...]
    class_mentions: tuple[ClassMentions, ...] = Field(serialization_alias="namings")
    refused: tuple[UnreadPost, ...]
    leaks: tuple[str, ...]
    warnings: tuple[str, ...]
    limits: Mapping[str, float]
