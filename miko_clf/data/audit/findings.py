"""What an audit finds: records, and the scores in them, of a look-up (gain) and a cue (AUROC)."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, computed_field

from miko_clf.data.post import Record
from miko_clf.intervals import NORMAL_QUANTILE, Interval, compute_percentile_interval

MIN_LOOKUP_GAIN = 0.005
"""Accuracy that a look-up must gain, at the low end of its interval, to be a leak."""
MIN_MARK_AUROC = 0.55
"""AUROC from which a mark, a missing part or a class named in a text is a shortcut."""
_MIN_CLASS_ROWS = 20
"""Rows that either class must have before an AUROC is given."""
_NUM_NEIGHBOURS = 25
_NUM_FOLDS = 5
_MIN_DISTINCT_VALUES = 20  # fewer are classes of their own, and one AUROC tells all of them
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
    gain = _estimate_gain(won, lost, len(asked))
    return Lookup(
        key=key,
        split=split,
        rows=len(asked),
        found=int(found.sum()),
        right=int((found & hit).sum()),
        accuracy=round(float(hit.mean()), 4),
        majority=round(float(base.mean()), 4),
        gain=round(gain.value, 4),
        low=round(gain.low, 4),
        high=round(gain.high, 4),
    )


def _choose_commonest(labels: Counter[str]) -> str:
    return min(labels, key=lambda label: (-labels[label], label))


def _look_up_answer(labels: Counter[str] | None, majority: str) -> str:
    if not labels:
        return majority
    best = _choose_commonest(labels)
    tied = sum(count == labels[best] for count in labels.values()) > 1
    return majority if tied else best


def _estimate_gain(won: int, lost: int, rows: int) -> Interval:
    """Return (won - lost) / rows, and its interval when as many rows are drawn again and again."""
    shares = np.array([won, lost, rows - won - lost]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, size=_NUM_DRAWS)
    return compute_percentile_interval((won - lost) / rows, (drawn[:, 0] - drawn[:, 1]) / rows)


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


class WordShift(Record):
    """A word, the shares of the posts of train and of a split that hold it, and how sure that is.

    `z` is the signed root of the likelihood ratio, above 0 where the word has risen.
    """

    word: str
    train_share: float
    share: float
    z: float


class MeanShift(Record):
    """The mean of something in train and here, and the difference with its 95 % interval."""

    name: str
    train: float
    here: float
    difference: float
    low: float
    high: float


class Drift(Record):
    """How far the posts of a split are from those of train; labels count for nothing in it.

    `auroc` is that of telling one from the other by their words, about 0.5 where nothing does.
    Unseen are words that no text of train has; `unseen_within` is their share among the running
    words of a fifth of train that the rest has not.
    """

    split: str
    auroc: float | None
    low: float | None
    high: float | None
    unseen_words: float | None
    unseen_tokens: float | None
    unseen_low: float | None
    unseen_high: float | None
    unseen_within: float | None
    risen: tuple[WordShift, ...]
    fallen: tuple[WordShift, ...]
    pictures: tuple[MeanShift, ...]


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


def measure_auroc(
    numbers: NDArray[np.float64],
    inside: NDArray[np.bool_],
    units: NDArray[np.int64] | None = None,
) -> Interval | None:
    """Return the AUROC of numbers for the class that `inside` marks; None with too few rows.

    Rows whose number is NaN are left out. The 95 % interval is that of DeLong et al. (Biometrics
    1988) from ranks (Sun and Xu, 2014); where rows are of `units`, such as threads, that of
    Obuchowski (Biometrics 1997).
    """
    known = ~np.isnan(numbers)
    units = np.arange(len(numbers)) if units is None else units
    ones, others = numbers[known & inside], numbers[known & ~inside]
    if min(len(ones), len(others)) < _MIN_CLASS_ROWS:
        return None
    ranks = _rank_numbers(np.concatenate((ones, others)))
    above = (ranks[: len(ones)] - _rank_numbers(ones)) / len(others)  # share of others below each
    below = 1 - (ranks[len(ones) :] - _rank_numbers(others)) / len(ones)
    value = float(above.mean())
    sides = ((above, units[known & inside]), (below, units[known & ~inside]))
    spread = np.sqrt(sum(_estimate_mean_variance(part, own) for part, own in sides))
    reach = float(NORMAL_QUANTILE * spread)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def _estimate_mean_variance(values: NDArray[np.float64], units: NDArray[np.int64]) -> float:
    """Return the variance of the mean of values, those of one unit being no draws of their own."""
    places = np.unique(units, return_inverse=True)[1]
    sums = np.bincount(places, weights=values - values.mean())
    return float(sums @ sums) * len(sums) / max(1, len(sums) - 1) / len(values) ** 2


def flip_auroc(auroc: Interval) -> Interval:
    """Return the AUROC of the same number with its sign changed."""
    return Interval(1 - auroc.value, 1 - auroc.high, 1 - auroc.low)


def fold_auroc(auroc: Interval) -> Interval:
    """Return the AUROC the way round in which it is 0.5 or more."""
    return auroc if auroc.value >= 0.5 else flip_auroc(auroc)


def _rank_numbers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, those of equal numbers averaged."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def measure_neighbour_auroc(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], ids: Sequence[str]
) -> Interval | None:
    """Return the AUROC with which the 25 nearest numbers vote for a class, over held-out folds.

    The id of a post decides its fold, so that the order of posts is of no effect. None where
    there are few numbers or rows; a number that is NaN is left out.
    """
    known = ~np.isnan(numbers)
    if len(np.unique(numbers[known])) < _MIN_DISTINCT_VALUES:
        return None
    folds = np.array([crc32(name.encode()) % _NUM_FOLDS for name in ids])
    votes = np.full(len(numbers), np.nan)
    for fold in range(_NUM_FOLDS):
        out, rest = known & (folds == fold), known & (folds != fold)
        if out.any() and rest.any():
            votes[out] = _vote_by_neighbours(numbers[rest], inside[rest], numbers[out])
    return measure_auroc(votes, inside)


def _vote_by_neighbours(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the class among the rows around each point, equal numbers together."""
    order = np.argsort(numbers)
    line = numbers[order]
    sums = np.concatenate(([0], np.cumsum(inside[order])))
    middle = (np.searchsorted(line, points, "left") + np.searchsorted(line, points, "right")) / 2
    first = np.clip(np.floor(middle - _NUM_NEIGHBOURS / 2).astype(int), 0, len(line) - 1)
    last = np.clip(np.ceil(middle + _NUM_NEIGHBOURS / 2).astype(int) - 1, 0, len(line) - 1)
    start = np.searchsorted(line, line[first], "left")
    stop = np.searchsorted(line, line[last], "right")
    shares: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return shares


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
    drifts: tuple[Drift, ...] = ()
    overlaps: tuple[Overlap, ...]
    lookups: tuple[Lookup, ...]
    contrast_sets: tuple[ContrastSets, ...] = Field(serialization_alias="confounders")
    cues: tuple[Cue, ...]
    class_mentions: tuple[ClassMentions, ...] = Field(serialization_alias="namings")
    refused: tuple[UnreadPost, ...]
    leaks: tuple[str, ...]
    warnings: tuple[str, ...]
    limits: Mapping[str, float]
