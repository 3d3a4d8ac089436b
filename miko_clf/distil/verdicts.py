"""How far a judge agrees with itself, with another judge and with people, and whom it judged."""

import sqlite3
from typing import NamedTuple

from miko_clf.distil.agreement import Agreement, agreement
from miko_clf.distil.judge import second

# Typicality as it is asked for, 1 to 5, on the scale of a score.
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Match(NamedTuple):
    """Two judges of the same intentions. `typicality` is None where they do not share any, or one
    of them does not keep to the five steps."""

    one: str
    other: str
    plausibility: Agreement
    typicality: Agreement | None

    def line(self) -> str:
        """Return both agreements in one line."""
        parts = [f"{self.one} and {self.other}: plausibility {_told(self.plausibility)}"]
        if self.typicality:
            parts.append(f"typicality {_told(self.typicality)}")
        return "; ".join(parts)


def match(db: sqlite3.Connection, one: str, other: str) -> Match | None:
    """Return how far two judges agree, None where no intention has both.

    A plausibility of one half or more counts as plausible. Alpha of typicality is ordinal.
    """
    rows = db.execute(
        "SELECT a.plausibility >= 0.5, b.plausibility >= 0.5, a.typicality, b.typicality "
        "FROM scores a JOIN scores b USING (post, relation, sample) "
        "WHERE a.judge = ? AND b.judge = ? "
        "AND a.plausibility IS NOT NULL AND b.plausibility IS NOT NULL",
        (one, other),
    ).fetchall()
    if not rows:
        return None
    plausible = agreement([[row[0] for row in rows], [row[1] for row in rows]], values=(0, 1))
    typical = [(a, b) for _, _, a, b in rows if a in _STEPS and b in _STEPS]
    if not typical:
        return Match(one, other, plausible, None)
    ordered = agreement(list(zip(*typical, strict=True)), values=_STEPS, level="ordinal")
    return Match(one, other, plausible, ordered)


def self_agreement(db: sqlite3.Connection) -> list[Match]:
    """Return how far each judge that was asked twice agrees with itself."""
    return _matches(db, [(judge, second(judge)) for judge in _judges(db, "llm:")])


def with_people(db: sqlite3.Connection) -> list[Match]:
    """Return how far each judge agrees with each person, or crowd, where both judged."""
    judges = _judges(db, "llm:") + _judges(db, "critic:")
    people = _judges(db, "human:")
    return _matches(db, [(one, other) for one in judges for other in people])


def own_work(db: sqlite3.Connection, model: str) -> str:
    """Return a line of warning where a model is to judge what it wrote itself, else nothing."""
    (count,) = db.execute(
        "SELECT COUNT(*) FROM uses JOIN calls USING (key) "
        "WHERE uses.task = 'intentions' AND ? IN (calls.model, calls.answered_by)",
        (model,),
    ).fetchone()
    if not count:
        return ""
    return (
        f"{model} wrote {count:,} of the answers that it is to judge; models favour their own "
        "sentences, so a judge of another family says more"
    )


def _matches(db: sqlite3.Connection, pairs: list[tuple[str, str]]) -> list[Match]:
    found = (match(db, one, other) for one, other in pairs)
    return [each for each in found if each is not None]


def _judges(db: sqlite3.Connection, kind: str) -> list[str]:
    rows = db.execute("SELECT DISTINCT judge FROM scores ORDER BY judge")
    return [name for (name,) in rows if name.startswith(kind)]


def _told(found: Agreement) -> str:
    alpha = "undefined" if found.alpha is None else f"{found.alpha:.3f}"
    return f"raw {found.raw:.3f}, alpha {alpha}, AC1 {found.ac1:.3f} (n={found.units:,})"
