"""What a knowledge base holds, in figures: by relation, by task, by class, and what it cost."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from miko_clf.data.post import Record
from miko_clf.distil.call import STATUSES
from miko_clf.distil.census import Census, Relationship
from miko_clf.distil.kb import count
from miko_clf.distil.kept import PUBLISHED
from miko_clf.distil.knowledge import PLAIN, Choice, everything
from miko_clf.distil.watch import watched

_CALLS = f"""
SELECT model, SUM(prompt LIKE '{PUBLISHED}.%'), COUNT(*), SUM(status IS 'failed'),
  SUM(prompt_tokens), SUM(completion_tokens), SUM(cached_tokens), TOTAL(usd), SUM(lost)
FROM calls GROUP BY model ORDER BY model
"""
_CLASSES = """
SELECT task, json_extract(record, '$.label'), SUM(status = 'refused'), COUNT(*)
FROM outcomes JOIN posts ON posts.id = outcomes.post GROUP BY 1, 2
"""


class Bill(Record):
    """Calls of one model and what they took; `imported` answers were never asked for.

    `cached_share` is of the prompt tokens; `lost` are answers that never came and may have been
    billed.
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


class Stats(Record):
    """All figures.

    `judges` counts the judgements that count, by who made them. `tasks` counts ends by status.
    `refusals` are by task and class (refused, ended): they are not at random. `cut_off` are calls
    that a kill cut off, `calls`, and `usd`, what they may have cost.
    """

    posts: int
    relations: tuple[Relationship, ...]
    judges: Mapping[str, int]
    tasks: Mapping[str, Mapping[str, int]]
    refusals: Mapping[str, Mapping[str, tuple[int, int]]]
    bills: tuple[Bill, ...]
    cut_off: Mapping[str, float]


def stats(db: sqlite3.Connection, choice: Choice = PLAIN) -> Stats:
    """Return the figures of a knowledge base, read post by post in memory that stays flat."""
    census = Census()
    for one in watched(everything(db, choice), count(db), "counting"):
        if "intentions" in one.ends:
            census.add(one)
    return Stats(
        posts=count(db),
        relations=census.relations(),
        judges=dict(census.judges),
        tasks=_tasks(db),
        refusals=_refusals(db),
        bills=tuple(_bill(*row) for row in db.execute(_CALLS)),
        cut_off=_cut_off(db),
    )


def tables(found: Stats) -> list[Table]:
    """Return the figures as tables for a terminal; those without a row are left out."""
    relations = _table(
        f"{found.posts:,} posts", "relation", "asked", "kept", "refused", "missing", "sieved",
        "judged", "valid %", "95 %", "of kept %", "words", "median", "distinct-1", "distinct-2",
    )  # fmt: skip
    for each in found.relations:
        relations.add_row(*_cells(each))
    tasks = _table("how posts ended", "task", *STATUSES)
    for name, ended in found.tasks.items():
        tasks.add_row(name, *(f"{ended.get(status, 0):,}" for status in STATUSES))
    classes = _table("refusals by class", "task", "class", "refused", "of", "%")
    for name, by_class in found.refusals.items():
        for label, (refused, ended_in) in by_class.items():
            share = _percent(refused / ended_in)
            classes.add_row(name, label, f"{refused:,}", f"{ended_in:,}", share)
    why = _table("sieved", "reason", "intentions")
    for reason, times in found.relations[-1].sieved.items():
        why.add_row(reason, f"{times:,}")
    bills = _table(
        "calls", "model", "calls", "imported", "failed", "prompt", "cached %", "completion", "$",
        "lost",
    )  # fmt: skip
    for bill in found.bills:
        bills.add_row(*_bill_cells(bill))
    if found.cut_off["calls"]:
        cut = f"{found.cut_off['calls']:,.0f} calls cut off by a kill"
        bills.caption = f"{cut}, up to ${found.cut_off['usd']:,.4f}"
    return [each for each in (relations, why, tasks, classes, bills) if each.row_count]


def _tasks(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    say = "SELECT task, sample, status, COUNT(*) FROM outcomes GROUP BY task, sample, status"
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for task, sample, status, times in db.execute(say):
        which = f"{task}, {PUBLISHED}" if sample < 0 else f"{task}, sample {sample}"
        found[task if sample == 0 else which][status] = times
    return dict(found)


def _refusals(db: sqlite3.Connection) -> dict[str, dict[str, tuple[int, int]]]:
    """Return (refused, ended) by task and class; a post of several classes counts for each."""
    sums: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for task, label, refused, ended in db.execute(_CLASSES):
        several = label is not None and label.startswith("[")
        for name in json.loads(label) if several else [label or "no label"]:
            sums[task][name].update(refused=refused, ended=ended)
    return {
        task: {name: (each["refused"], each["ended"]) for name, each in sorted(by_class.items())}
        for task, by_class in sums.items()
    }


def _bill(
    model: str, imported: int, rows: int, failed: int, prompt: int, completion: int, cached: int,
    usd: float, lost: int,
) -> Bill:  # fmt: skip
    return Bill(
        model=model,
        calls=rows - imported,
        imported=imported,
        failed=failed,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_share=round(cached / prompt, 4) if prompt else None,
        usd=round(usd, 6),
        lost=lost,
    )


def _cut_off(db: sqlite3.Connection) -> dict[str, float]:
    found = db.execute("SELECT value FROM facts WHERE name = 'lost'").fetchone()
    lost: dict[str, float] = json.loads(found[0]) if found else {"calls": 0, "usd": 0.0}
    return lost


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table


def _cells(each: Relationship) -> list[str]:
    low, high = each.valid_interval or (None, None)
    return [
        each.relation,
        f"{each.asked:,}",
        f"{each.kept:,}",
        *map(_percent, (each.refused, each.missing)),
        f"{sum(each.sieved.values()):,}",
        f"{each.judged:,}",
        _percent(each.valid),
        f"{_percent(low)}-{_percent(high)}" if each.valid_interval else "",
        _percent(each.valid_kept),
        *map(_number, (each.words_mean, each.words_median, each.distinct_1, each.distinct_2)),
    ]


def _bill_cells(bill: Bill) -> list[str]:
    whole: list[Any] = [bill.calls, bill.imported, bill.failed, bill.prompt_tokens]
    return [
        bill.model,
        *(f"{each:,}" for each in whole),
        _percent(bill.cached_share),
        f"{bill.completion_tokens:,}",
        f"{bill.usd:,.4f}",
        f"{bill.lost:,}",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
