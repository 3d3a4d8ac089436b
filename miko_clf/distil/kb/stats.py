"""What a knowledge base holds, in figures: by relation, by job, by class, and what it cost."""

import json
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from zlib import crc32

from rich.table import Table

from miko_clf.data.post import RELATIONS, Record, Relation
from miko_clf.distil.kb import query
from miko_clf.distil.kb.parse import MISSING_ANSWER, PUBLISHED_PROMPT
from miko_clf.distil.kb.store import read_cut_off
from miko_clf.distil.relations import strip_relation_stem
from miko_clf.distil.response import CALL_STATUSES
from miko_clf.intervals import NORMAL_QUANTILE, compute_wilson_bounds
from miko_clf.progress import show_progress
from miko_clf.tables import make_text_table

_BITS = 24
_NUM_BITS = 1 << _BITS
_SPREAD = 0x9E3779B1  # an odd constant: the high bits of a product depend on all bits


class DistinctCounter:
    """Words, and pairs of words, of all texts that were added, with how many are different.

    Linear counting (Whang et al., TODS 1990): each word sets one of 2^24 bits, 2 MiB, and the
    share of bits still unset tells how many there were. Exact but for chance collisions among
    few, within .1 % of up to 20 million.
    """

    def __init__(self) -> None:
        self.ones = BitSet()
        self.twos = BitSet()

    def add(self, text: str) -> None:
        """Count the words of a text."""
        words = re.findall(r"\w+(?:'\w+)?", text.lower())
        for word in words:
            self.ones.add(word)
        for one, two in pairwise(words):
            self.twos.add(f"{one} {two}")

    def join(self, other: "DistinctCounter") -> None:
        """Take in all that another has counted."""
        self.ones |= other.ones
        self.twos |= other.twos


class BitSet:
    """A set that knows about how many it holds, and how often something was put in."""

    def __init__(self) -> None:
        self.total = 0
        self.bits = bytearray(_NUM_BITS // 8)

    def add(self, word: str) -> None:
        """Put a word in."""
        place = (crc32(word.encode()) * _SPREAD & 0xFFFFFFFF) >> (32 - _BITS)
        self.bits[place >> 3] |= 1 << (place & 7)
        self.total += 1

    def __or__(self, other: "BitSet") -> "BitSet":
        both = BitSet()
        both.total = self.total + other.total
        joint = int.from_bytes(self.bits, "little") | int.from_bytes(other.bits, "little")
        both.bits = bytearray(joint.to_bytes(len(self.bits), "little"))
        return both

    @property
    def different(self) -> int:
        """About how many different words were put in."""
        unset = _NUM_BITS - int.from_bytes(self.bits, "little").bit_count()
        return round(-_NUM_BITS * math.log(max(unset, 1) / _NUM_BITS))

    @property
    def share(self) -> float | None:
        """The different among all, distinct-n (Li et al., NAACL 2016); it falls with more texts."""
        return round(self.different / self.total, 4) if self.total else None


_ALL_RELATIONS = "all"
_UNUSABLE = ("invalid", "failed", MISSING_ANSWER)


class RelationStats(Record):
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
    valid_interval: tuple[float, float] | None
    valid_kept: float | None
    words_mean: float | None
    words_median: float | None
    distinct_1: float | None
    distinct_2: float | None


class RelationCensus:
    """The relations of the posts that were added. Memory: two bit sets of 2 MiB a relation."""

    def __init__(self) -> None:
        self.judges: Counter[str] = Counter()
        self._counts = {name: _RelationCounts() for name in RELATIONS}
        self._posts: Counter[tuple[int, int]] = Counter()  # (valid, judged) of a post

    def add(self, known: query.PostKnowledge) -> None:
        """Count a post that was asked for its intentions."""
        texts = {intention.relation: intention.text for intention in known.intentions}
        marks = {name: mark.plausibility for name, mark in known.marks.items()}
        for name, counts in self._counts.items():
            reason = known.absent.get(name, MISSING_ANSWER)
            counts.add(name, texts.get(name), reason, marks.get(name))
        judged = [mark for mark in marks.values() if mark is not None]
        self._posts[sum(mark >= 0.5 for mark in judged), len(judged)] += 1
        judges = (mark.by.get("plausibility_by") for mark in known.marks.values())
        self.judges.update(judge for judge in judges if judge)

    def relations(self) -> tuple[RelationStats, ...]:
        """Return each relation in order, and all of them together."""
        whole = _RelationCounts()
        for counts in self._counts.values():
            whole.join(counts)
        interval = _compute_clustered(self._posts)
        stats = whole.summarize(_ALL_RELATIONS).model_copy(update={"valid_interval": interval})
        return (*(counts.summarize(name) for name, counts in self._counts.items()), stats)


class _RelationCounts:
    def __init__(self) -> None:
        self.asked = 0
        self.absent: Counter[str] = Counter()
        self.marks: Counter[bool] = Counter()
        self.kept_marks: Counter[bool] = Counter()
        self.lengths: Counter[int] = Counter()
        self.words = DistinctCounter()

    def add(self, relation: Relation, text: str | None, reason: str, mark: float | None) -> None:
        self.asked += 1
        if mark is not None:
            self.marks[mark >= 0.5] += 1
        if text is None:
            self.absent[reason] += 1
            return
        self.lengths[len(text.split())] += 1
        self.words.add(strip_relation_stem(relation, text))
        if mark is not None:
            self.kept_marks[mark >= 0.5] += 1

    def join(self, other: "_RelationCounts") -> None:
        self.asked += other.asked
        for name in ("absent", "marks", "kept_marks", "lengths"):
            getattr(self, name).update(getattr(other, name))
        self.words.join(other.words)

    def summarize(self, name: str) -> RelationStats:
        kept, judged = self.lengths.total(), self.marks.total()
        missing = sum(self.absent[reason] for reason in _UNUSABLE)
        apart = ("refused", *_UNUSABLE)
        words = sum(length * times for length, times in self.lengths.items())
        return RelationStats(
            relation=name,
            asked=self.asked,
            kept=kept,
            refused=_divide(self.absent["refused"], self.asked),
            missing=_divide(missing, self.asked),
            sieved={why: n for why, n in self.absent.most_common() if why not in apart},
            judged=judged,
            valid=_divide(self.marks[True], judged),
            valid_interval=_compute_wilson(self.marks[True], judged),
            valid_kept=_divide(self.kept_marks[True], self.kept_marks.total()),
            words_mean=round(words / kept, 2) if kept else None,
            words_median=_compute_median(self.lengths),
            distinct_1=self.words.ones.share,
            distinct_2=self.words.twos.share,
        )


def _divide(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _compute_wilson(part: int, whole: int) -> tuple[float, float] | None:
    if not whole:
        return None
    low, high = compute_wilson_bounds(part / whole, whole)
    return round(float(low), 4), round(float(high), 4)


def _compute_clustered(posts: Mapping[tuple[int, int], int]) -> tuple[float, float] | None:
    """Return the interval of valid / judged with a post as the unit (Cochran 1977, 2.11)."""
    num = sum(posts.values())
    total = sum(judged * times for (_, judged), times in posts.items())
    if num < 2 or not total:
        return None
    share = sum(valid * times for (valid, _), times in posts.items()) / total
    rest = sum((valid - share * judged) ** 2 * n for (valid, judged), n in posts.items())
    half = NORMAL_QUANTILE * math.sqrt(rest * num / (num - 1)) / total
    return round(max(0.0, share - half), 4), round(min(1.0, share + half), 4)


def _compute_median(lengths: Counter[int]) -> float | None:
    """Return the median of numbers that are counted, the mean of the middle two if need be."""
    num, passed = lengths.total(), 0
    middle: list[int] = []
    for length in sorted(lengths):
        below, passed = passed, passed + lengths[length]
        middle += [length for place in ((num - 1) // 2, num // 2) if below <= place < passed]
    return sum(middle) / 2 if num else None


_BILLS = f"""
SELECT model, SUM(prompt NOT LIKE '{PUBLISHED_PROMPT}.%'), SUM(prompt LIKE '{PUBLISHED_PROMPT}.%'),
  SUM(status IS 'failed'), SUM(prompt_tokens), SUM(completion_tokens),
  ROUND(1.0 * SUM(cached_tokens) / NULLIF(SUM(prompt_tokens), 0), 4), ROUND(TOTAL(usd), 6),
  SUM(lost)
FROM calls GROUP BY model ORDER BY model
"""
_CLASSES = """
SELECT task, json_extract(record, '$.label'), SUM(status = 'refused'), COUNT(*)
FROM outcomes JOIN posts ON posts.id = outcomes.post GROUP BY 1, 2
"""


class ModelBill(Record):
    """Calls of one model and what they took; `imported` answers were never asked for.

    `cached_share` is of the prompt tokens; `lost` answers never came and may have been billed.
    """

    model: str
    calls: int
    imported: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_share: float | None
    usd: float
    lost: int


class KnowledgeStats(Record):
    """All figures.

    `judges` counts the judgements that count, by who made them. `tasks` counts ends by job and
    status. `refusals` are by job and class (refused, ended): they are not at random. `cut_off` are
    calls that a kill cut off, `calls`, and `usd`, what they may have cost.
    """

    posts: int
    relations: tuple[RelationStats, ...]
    judges: Mapping[str, int]
    tasks: Mapping[str, Mapping[str, int]]
    refusals: Mapping[str, Mapping[str, tuple[int, int]]]
    bills: tuple[ModelBill, ...]
    cut_off: Mapping[str, float]


def compute_knowledge_stats(
    db: sqlite3.Connection, choice: query.KnowledgeChoice = query.DEFAULT_CHOICE
) -> KnowledgeStats:
    """Return the figures of a knowledge base, read post by post in memory that stays flat."""
    census = RelationCensus()
    num_posts = query.count_posts(db)
    for known in show_progress(query.iterate_knowledge(db, choice), "counting", num_posts):
        if "intentions" in known.ends:
            census.add(known)
    return KnowledgeStats(
        posts=num_posts,
        relations=census.relations(),
        judges=dict(census.judges),
        tasks=_count_outcomes(db),
        refusals=_count_refusals(db),
        bills=tuple(
            ModelBill.model_validate(dict(zip(ModelBill.model_fields, row, strict=True)))
            for row in db.execute(_BILLS)
        ),
        cut_off=read_cut_off(db),
    )


def make_stats_tables(stats: KnowledgeStats) -> list[Table]:
    """Return the figures as tables for a terminal; some may have no row."""
    relations = (
        "relation", "asked", "kept", "refused", "missing", "sieved", "judged", "valid %", "95 %",
        "of kept %", "words", "median", "distinct-1", "distinct-2",
    )  # fmt: skip
    sieved = [(reason, f"{times:,}") for reason, times in stats.relations[-1].sieved.items()]
    ends = [
        (name, *(f"{counts.get(status, 0):,}" for status in CALL_STATUSES))
        for name, counts in stats.tasks.items()
    ]
    refusals = [
        (job, label, f"{refused:,}", f"{ended:,}", _format_percent(refused / ended))
        for job, by_class in stats.refusals.items()
        for label, (refused, ended) in by_class.items()
    ]
    bills = (
        "model", "calls", "imported", "failed", "prompt", "cached %", "completion", "$", "lost",
    )  # fmt: skip
    calls = make_text_table("calls", bills, [_format_bill(bill) for bill in stats.bills])
    if stats.cut_off["calls"]:
        cut = f"{stats.cut_off['calls']:,.0f} calls cut off by a kill"
        calls.caption = f"{cut}, up to ${stats.cut_off['usd']:,.4f}"
    return [
        make_text_table(
            f"{stats.posts:,} posts", relations, [*map(_format_relation, stats.relations)]
        ),
        make_text_table("sieved", ("reason", "intentions"), sieved),
        make_text_table("how posts ended", ("task", *CALL_STATUSES), ends),
        make_text_table(
            "refusals by class", ("task", "class", "refused", "of", "%"), refusals, (0, 1)
        ),
        calls,
    ]


def _count_outcomes(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    say = "SELECT task, sample, status, COUNT(*) FROM outcomes GROUP BY task, sample, status"
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for job, sample, status, times in db.execute(say):
        which = f"{job}, {PUBLISHED_PROMPT}" if sample < 0 else f"{job}, sample {sample}"
        counts[job if sample == 0 else which][status] = times
    return dict(counts)


def _count_refusals(db: sqlite3.Connection) -> dict[str, dict[str, tuple[int, int]]]:
    """Return (refused, ended) by job and class; a post of several classes counts for each."""
    sums: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for job, label, refused, ended in db.execute(_CLASSES):
        several = label is not None and label.startswith("[")
        for name in json.loads(label) if several else [label or "no label"]:
            sums[job][name].update(refused=refused, ended=ended)
    return {
        job: {name: (n["refused"], n["ended"]) for name, n in sorted(by_class.items())}
        for job, by_class in sums.items()
    }


def _format_relation(stats: RelationStats) -> list[str]:
    low, high = stats.valid_interval or (None, None)
    words = (stats.words_mean, stats.words_median, stats.distinct_1, stats.distinct_2)
    return [
        stats.relation,
        f"{stats.asked:,}",
        f"{stats.kept:,}",
        _format_percent(stats.refused),
        _format_percent(stats.missing),
        f"{sum(stats.sieved.values()):,}",
        f"{stats.judged:,}",
        _format_percent(stats.valid),
        f"{_format_percent(low)}-{_format_percent(high)}" if stats.valid_interval else "",
        _format_percent(stats.valid_kept),
        *("" if value is None else f"{value:.3g}" for value in words),
    ]


def _format_bill(bill: ModelBill) -> list[str]:
    counts = (bill.calls, bill.imported, bill.failed, bill.prompt_tokens)
    return [
        bill.model,
        *(f"{count:,}" for count in counts),
        _format_percent(bill.cached_share),
        f"{bill.completion_tokens:,}",
        f"{bill.usd:,.4f}",
        f"{bill.lost:,}",
    ]


def _format_percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
