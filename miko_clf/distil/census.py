"""Intentions counted as they go by: how many, how valid, how long, how different."""

import math
from collections import Counter
from collections.abc import Mapping
from statistics import NormalDist

from scipy.stats import binomtest

from miko_clf.data.post import RELATIONS, Record
from miko_clf.distil.distinct import Distinct
from miko_clf.distil.knowledge import Known
from miko_clf.distil.relations import completion
from miko_clf.distil.told import MISSING

Interval = tuple[float, float]
ALL = "all"
_Z = NormalDist().inv_cdf(0.975)
_UNUSABLE = ("invalid", "failed", MISSING)


class Relationship(Record):
    """One relation, or all ten together.

    `asked` are the posts that were asked for it, `kept` those that have it; of the rest a share
    was `refused`, a share is `missing` (an answer without it, or none that can be used), and some
    were sieved, or left out by choice, by reason. `valid` is the share of the judged that are
    plausible (.5 or more), whether their texts are there or not, `valid_kept` that of the kept
    ones. Intervals are 95 %: Wilson's, and over all relations one that takes a post as the unit.
    `words` count whole sentences, distinct-1 and -2 what follows the stem.
    """

    relation: str
    asked: int
    kept: int
    refused: float | None
    missing: float | None
    sieved: Mapping[str, int]
    judged: int
    valid: float | None
    valid_interval: Interval | None
    valid_kept: float | None
    words_mean: float | None
    words_median: float | None
    distinct_1: float | None
    distinct_2: float | None


class Census:
    """The relations of the posts that were added. Memory: two bit sets of 2 MiB a relation."""

    def __init__(self) -> None:
        self.judges: Counter[str] = Counter()
        self._tallies = {name: _Tally() for name in RELATIONS}
        self._posts: Counter[tuple[int, int]] = Counter()  # (valid, judged) of a post

    def add(self, one: Known) -> None:
        """Count a post that was asked for its intentions."""
        texts = {each.relation: each.text for each in one.intentions}
        marks = {name: mark.plausibility for name, mark in one.marks.items()}
        for name, tally in self._tallies.items():
            text = texts.get(name)
            own = completion(name, text) if text else ""
            tally.add(text, own, one.absent.get(name, MISSING), marks.get(name))
        given = [mark for mark in marks.values() if mark is not None]
        self._posts[sum(mark >= 0.5 for mark in given), len(given)] += 1
        judges = (mark.by.get("plausibility_by") for mark in one.marks.values())
        self.judges.update(judge for judge in judges if judge)

    def relations(self) -> tuple[Relationship, ...]:
        """Return each relation in order, and all of them together."""
        found = [tally.found(name) for name, tally in self._tallies.items()]
        whole = _Tally()
        for tally in self._tallies.values():
            whole.join(tally)
        every = whole.found(ALL)
        return (*found, every.model_copy(update={"valid_interval": _by_post(self._posts)}))


class _Tally:
    def __init__(self) -> None:
        self.asked = 0
        self.absent: Counter[str] = Counter()
        self.marks: Counter[bool] = Counter()
        self.kept_marks: Counter[bool] = Counter()
        self.lengths: Counter[int] = Counter()
        self.words = Distinct()

    def add(self, text: str | None, own: str, reason: str, mark: float | None) -> None:
        self.asked += 1
        if mark is not None:
            self.marks[mark >= 0.5] += 1
        if text is None:
            self.absent[reason] += 1
            return
        self.lengths[len(text.split())] += 1
        self.words.add(own)
        if mark is not None:
            self.kept_marks[mark >= 0.5] += 1

    def join(self, other: "_Tally") -> None:
        self.asked += other.asked
        for name in ("absent", "marks", "kept_marks", "lengths"):
            getattr(self, name).update(getattr(other, name))
        self.words.join(other.words)

    def found(self, name: str) -> Relationship:
        kept = self.lengths.total()
        missing = sum(self.absent[reason] for reason in _UNUSABLE)
        apart = ("refused", *_UNUSABLE)
        words = sum(length * times for length, times in self.lengths.items())
        return Relationship(
            relation=name,
            asked=self.asked,
            kept=kept,
            refused=_share(self.absent["refused"], self.asked),
            missing=_share(missing, self.asked),
            sieved={why: n for why, n in self.absent.most_common() if why not in apart},
            judged=self.marks.total(),
            valid=_share(self.marks[True], self.marks.total()),
            valid_interval=_wilson(self.marks[True], self.marks.total()),
            valid_kept=_share(self.kept_marks[True], self.kept_marks.total()),
            words_mean=round(words / kept, 2) if kept else None,
            words_median=_median(self.lengths),
            distinct_1=self.words.ones.share,
            distinct_2=self.words.twos.share,
        )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _wilson(part: int, whole: int) -> Interval | None:
    if not whole:
        return None
    found = binomtest(part, whole).proportion_ci(method="wilson")
    return round(float(found.low), 4), round(float(found.high), 4)


def _by_post(posts: Mapping[tuple[int, int], int]) -> Interval | None:
    """Return the interval of valid / judged with a post as the unit (Cochran 1977, 2.11)."""
    num = sum(posts.values())
    judged = sum(each * times for (_, each), times in posts.items())
    if num < 2 or not judged:
        return None
    share = sum(valid * times for (valid, _), times in posts.items()) / judged
    rest = sum((valid - share * each) ** 2 * n for (valid, each), n in posts.items())
    error = math.sqrt(rest * num / (num - 1)) / judged
    return round(max(0.0, share - _Z * error), 4), round(min(1.0, share + _Z * error), 4)


def _median(lengths: Mapping[int, int]) -> float | None:
    """Return the median of numbers that are counted, the mean of the middle two if need be."""
    num = sum(lengths.values())
    if not num:
        return None
    middle: list[int] = []
    passed = 0
    for length in sorted(lengths):
        below, passed = passed, passed + lengths[length]
        middle += [length for place in ((num - 1) // 2, num // 2) if below <= place < passed]
    return sum(middle) / 2
