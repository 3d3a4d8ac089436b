"""What a knowledge base says of a post: read from the answers kept, never stored twice."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Relation
from miko_clf.distil.filters import EMPTY_TEXT, find_faults
from miko_clf.distil.kb.parse import (
    ParsedIntentions,
    StoredCall,
    StoredOutcome,
    choose_outcomes,
    find_prose_fault,
    load_calls,
    load_outcomes,
    make_provenance,
    parse_description,
    parse_intentions,
    parse_rationale,
)
from miko_clf.distil.relations import make_sentence
from miko_clf.errors import DistilError

_RANKS = ("human", "critic", "llm")
"""Whose score counts: people before a trained critic before an LLM."""


@dataclass(frozen=True)
class IntentionMark:
    """What is said of an intention: the mean over the judges whose word counts, and who they are.

    Each question is taken by itself: people may have judged one of the two alone.
    """

    plausibility: float | None = None
    typicality: float | None = None
    by: Mapping[str, str] = field(default_factory=dict)


def load_marks(db: sqlite3.Connection, name: str, sample: int) -> dict[str, IntentionMark]:
    """Return by relation what is said of one sample of the intentions of a post."""
    say = (
        "SELECT relation, judge, plausibility, typicality FROM scores "
        "WHERE post = ? AND sample = ? ORDER BY relation, judge"
    )
    rows = db.execute(say, (name, sample)).fetchall()
    return {
        relation: _make_mark([row[1:] for row in each])
        for relation, each in groupby(rows, key=lambda row: row[0])
    }


def _make_mark(scores: list[tuple[str, float | None, float | None]]) -> IntentionMark:
    plausible = _choose_best({judge: score for judge, score, _ in scores if score is not None})
    typical = _choose_best({judge: score for judge, _, score in scores if score is not None})
    by = {"plausibility_by": ", ".join(plausible), "typicality_by": ", ".join(typical)}
    return IntentionMark(
        _mean(plausible), _mean(typical), {key: who for key, who in by.items() if who}
    )


def _choose_best(given: Mapping[str, float]) -> dict[str, float]:
    """Return of scores by judge those of the kind that counts most."""
    kinds = {judge.partition(":")[0] for judge in given}
    best = next((kind for kind in _RANKS if kind in kinds), None)
    return {judge: score for judge, score in given.items() if judge.partition(":")[0] == best}


def _mean(given: Mapping[str, float]) -> float | None:
    return sum(given.values()) / len(given) if given else None


_LEFT_OUT = ("left out", "not judged", "not plausible enough")
"""Why an intention is absent that was written and is sound: the choice leaves it out."""

_TEXTS = ("intentions", "rationale", "debate", "description")  # tasks whose answers are texts
_PAGE = 256  # posts read at a time: no read transaction outlives them
_ROW = "SELECT id, record, image FROM posts WHERE"


@dataclass(frozen=True)
class KnowledgeChoice:
    """Which of what is known is wanted.

    `sample` is by default the newest that ended well. `labels` are class names of which no
    intention may speak. `min_plausibility` leaves out what judges find less plausible, and what
    none has judged; `without` leaves out relations. `rationale` must be named where a knowledge
    base holds both kinds: one is a target, the other an input.
    """

    sample: int | None = None
    labels: tuple[str, ...] = ()
    min_plausibility: float | None = None
    without: tuple[Relation, ...] = ()
    rationale: Literal["rationale", "debate"] | None = None


DEFAULT_CHOICE = KnowledgeChoice()


class PostKnowledge(NamedTuple):
    """All that a knowledge base says of a post.

    `post` is as its file has it; an image that only its file holds is b"". `intentions` are whole
    sentences in the order of RELATIONS. `absent` says why a relation that was asked for, or
    another text, is not there. `ends` are by task, `sample` is that of the intentions, `models`
    are those that answered. `marks` are the scores that count, by relation, absent ones too.
    """

    post: Post
    description: str | None
    key_information: KeyInformation | None
    intentions: tuple[Intention, ...]
    rationale: Rationale | None
    absent: Mapping[str, str]
    ends: Mapping[str, StoredOutcome]
    sample: int | None
    models: tuple[str, ...]
    marks: Mapping[str, IntentionMark]

    def fields(self) -> dict[str, Any]:
        """Return the fields of a post that the knowledge base answers for.

        Where a task was asked even nothing is an answer, so that no two sources mix in a post.
        """
        found: dict[str, Any] = {}
        if "intentions" in self.ends:
            found |= {"key_information": self.key_information, "intentions": self.intentions}
        if self.ends.keys() & {"rationale", "debate"}:
            found["rationale"] = self.rationale
        if self.description is not None:
            found["description"] = self.description
        return found

    def filled(self) -> Post:
        """Return the post with what is known in place of what its file had."""
        return self.post.model_copy(update=self.fields())


def iterate_knowledge(
    db: sqlite3.Connection, choice: KnowledgeChoice = DEFAULT_CHOICE
) -> Iterator[PostKnowledge]:
    """Yield what is known of every post, by id, in memory that does not grow.

    `db` is `shelf.reading(path)` or `Shelf.db`. Raises `DistilError` where the choice must say
    more, or asks for a plausibility that nothing here has.
    """
    check_choice(db, choice)
    last = ""
    while True:
        page = db.execute(f"{_ROW} id > ? ORDER BY id LIMIT ?", (last, _PAGE)).fetchall()
        for row in page:
            yield _read_knowledge(db, row, choice)
        if len(page) < _PAGE:
            return
        last = page[-1][0]


def load_knowledge(
    db: sqlite3.Connection, name: str, choice: KnowledgeChoice = DEFAULT_CHOICE
) -> PostKnowledge | None:
    """Return what is known of one post by its id, None where the post itself is not known."""
    row = db.execute(f"{_ROW} id = ?", (name,)).fetchone()
    return _read_knowledge(db, row, choice) if row else None


def check_choice(db: sqlite3.Connection, choice: KnowledgeChoice) -> None:
    """Raise `DistilError` where a choice must say more for this knowledge base, or cannot hold."""

    def has(table: str, what: str) -> bool:
        say = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {what})"
        return bool(db.execute(say).fetchone()[0])

    if choice.min_plausibility is not None and not has("scores", "plausibility IS NOT NULL"):
        raise DistilError("a plausibility is asked for, and no intention here has been judged")
    if choice.rationale is None and all(
        has("outcomes", f"task = '{task}'") for task in ("rationale", "debate")
    ):
        raise DistilError(
            "the knowledge base holds rationales, which saw the label, and debates, which did not; "
            "a post has room for one: choose rationale or debate"
        )


def _read_knowledge(
    db: sqlite3.Connection, row: tuple[str, str, str | None], choice: KnowledgeChoice
) -> PostKnowledge:
    name, record, image = row
    post = Post.model_validate({**json.loads(record), "image": _parse_image(image)})
    found = choose_outcomes(load_outcomes(db, name), choice.sample)
    calls = [
        call
        for call in load_calls(db, name)
        if call.task in _TEXTS and call.task in found and call.sample == found[call.task].sample
    ]
    by_task = {task: list(each) for task, each in groupby(calls, key=lambda call: call.task)}
    end = found.get("intentions")
    said = parse_intentions(by_task.get("intentions", []), end, pictured=image is not None)
    absent = dict(said.absent)
    description = _choose_description(said, calls, post, absent)
    rationale = None
    wanted = (choice.rationale,) if choice.rationale else ("rationale", "debate")
    if task := next((task for task in wanted if task in found), None):
        rationale, fault = parse_rationale(by_task.get(task, []), post)
        absent |= {task: fault} if fault else {}
    scores = load_marks(db, name, end.sample) if end else {}
    return PostKnowledge(
        post=post,
        description=description,
        key_information=said.key_information,
        intentions=_filter_intentions(said, post, description, choice, scores, absent),
        rationale=rationale,
        absent=absent,
        ends=found,
        sample=end.sample if end else None,
        models=tuple(dict.fromkeys(call.answered_by or call.model for call in calls)),
        marks=scores,
    )


def _choose_description(
    said: ParsedIntentions, calls: Sequence[StoredCall], post: Post, absent: dict[str, str]
) -> str | None:
    """Return the description that was asked for, with intentions or for another task."""
    text = said.description
    if text is None:
        other = (parse_description(call) for call in calls if call.stage == "description")
        text = next((each for each in other if each), None)
    if text is None:
        return None
    fault = find_prose_fault(text, post.model_copy(update={"description": None}))
    if fault:
        absent["description"] = fault
    return None if fault else text


def _filter_intentions(
    said: ParsedIntentions,
    post: Post,
    description: str | None,
    choice: KnowledgeChoice,
    scores: Mapping[str, IntentionMark],
    absent: dict[str, str],
) -> tuple[Intention, ...]:
    """Return the intentions that are sound and wanted; why another is neither goes to `absent`."""
    made: list[Intention] = []
    sources = {id(call): make_provenance(call) for _, call in said.completions.values()}
    for name in (name for name in RELATIONS if name in said.completions):
        completion, call = said.completions[name]
        if text := make_sentence(name, completion):
            mark = scores.get(name, IntentionMark())
            one = Intention(
                relation=name,
                text=text,
                plausibility=mark.plausibility,
                typicality=mark.typicality,
                provenance={**sources[id(call)], **mark.by},
            )
            made.append(one)
        else:
            absent[name] = EMPTY_TEXT
    shown = post.model_copy(update={"description": description or post.description})
    for one, fault in zip(made, find_faults(made, shown, choice.labels), strict=True):
        if reason := fault or _find_exclusion(one, choice):
            absent[one.relation] = reason
    return tuple(one for one in made if one.relation not in absent)


def _find_exclusion(one: Intention, choice: KnowledgeChoice) -> str:
    if one.relation in choice.without:
        return _LEFT_OUT[0]
    if choice.min_plausibility is None:
        return ""
    if one.plausibility is None:
        return _LEFT_OUT[1]
    return _LEFT_OUT[2] if one.plausibility < choice.min_plausibility else ""


def _parse_image(image: str | None) -> Path | bytes | None:
    if image is None:
        return None
    return Path(image) if image else b""


def count_posts(db: sqlite3.Connection) -> int:
    """Return how many posts a knowledge base holds."""
    (found,) = db.execute("SELECT COUNT(*) FROM posts").fetchone()
    return int(found)
