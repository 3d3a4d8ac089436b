"""What a knowledge base says of a post: read from the answers that are kept, never stored twice."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Relation
from miko_clf.distil.kept import Ended, Kept, chosen, ends, kept, provenance
from miko_clf.distil.marks import Mark, marks
from miko_clf.distil.relations import sentence
from miko_clf.distil.sieve import EMPTY, faults
from miko_clf.distil.told import Told, argued, described, told, unsound
from miko_clf.errors import DistilError

LEFT_OUT = ("left out", "not judged", "not plausible enough")
"""Why an intention is absent that was written and is sound: the choice leaves it out."""

_TEXTS = ("intentions", "rationale", "debate", "description")  # tasks whose answers are texts
_PAGE = 256  # posts read at a time: no read transaction outlives them
_ROW = "SELECT id, record, image FROM posts WHERE"


@dataclass(frozen=True)
class Choice:
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


PLAIN = Choice()


class Known(NamedTuple):
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
    ends: Mapping[str, Ended]
    sample: int | None
    models: tuple[str, ...]
    marks: Mapping[str, Mark]

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


def everything(db: sqlite3.Connection, choice: Choice = PLAIN) -> Iterator[Known]:
    """Yield what is known of every post, by id, in memory that does not grow.

    `db` is `shelf.reading(path)` or `Shelf.db`. Raises `DistilError` where the choice must say
    more, or asks for a plausibility that nothing here has.
    """
    check(db, choice)
    last = ""
    while True:
        page = db.execute(f"{_ROW} id > ? ORDER BY id LIMIT ?", (last, _PAGE)).fetchall()
        for row in page:
            yield _known(db, row, choice)
        if len(page) < _PAGE:
            return
        last = page[-1][0]


def known(db: sqlite3.Connection, name: str, choice: Choice = PLAIN) -> Known | None:
    """Return what is known of one post by its id, None where the post itself is not known."""
    row = db.execute(f"{_ROW} id = ?", (name,)).fetchone()
    return _known(db, row, choice) if row else None


def check(db: sqlite3.Connection, choice: Choice) -> None:
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


def _known(db: sqlite3.Connection, row: tuple[str, str, str | None], choice: Choice) -> Known:
    name, record, image = row
    post = Post.model_validate({**json.loads(record), "image": _image(image)})
    found = chosen(ends(db, name), choice.sample)
    calls = [
        call
        for call in kept(db, name)
        if call.task in _TEXTS and call.task in found and call.sample == found[call.task].sample
    ]
    by_task = {task: list(each) for task, each in groupby(calls, key=lambda call: call.task)}
    end = found.get("intentions")
    said = told(by_task.get("intentions", []), end, pictured=image is not None)
    absent = dict(said.absent)
    description = _description(said, calls, post, absent)
    rationale = None
    wanted = (choice.rationale,) if choice.rationale else ("rationale", "debate")
    if task := next((task for task in wanted if task in found), None):
        rationale, fault = argued(by_task.get(task, []), post)
        absent |= {task: fault} if fault else {}
    scores = marks(db, name, end.sample) if end else {}
    return Known(
        post=post,
        description=description,
        key_information=said.key_information,
        intentions=_sieved(said, post, description, choice, scores, absent),
        rationale=rationale,
        absent=absent,
        ends=found,
        sample=end.sample if end else None,
        models=tuple(dict.fromkeys(call.answered_by or call.model for call in calls)),
        marks=scores,
    )


def _description(
    said: Told, calls: Sequence[Kept], post: Post, absent: dict[str, str]
) -> str | None:
    """Return the description that was asked for, with intentions or for another task."""
    text = said.description
    if text is None:
        other = (described(call) for call in calls if call.stage == "description")
        text = next((each for each in other if each), None)
    if text is None:
        return None
    fault = unsound(text, post.model_copy(update={"description": None}))
    if fault:
        absent["description"] = fault
    return None if fault else text


def _sieved(
    said: Told,
    post: Post,
    description: str | None,
    choice: Choice,
    scores: Mapping[str, Mark],
    absent: dict[str, str],
) -> tuple[Intention, ...]:
    """Return the intentions that are sound and wanted; why another is neither goes to `absent`."""
    made: list[Intention] = []
    sources = {id(call): provenance(call) for _, call in said.completions.values()}
    for name in (name for name in RELATIONS if name in said.completions):
        completion, call = said.completions[name]
        if text := sentence(name, completion):
            mark = scores.get(name, Mark())
            one = Intention(
                relation=name,
                text=text,
                plausibility=mark.plausibility,
                typicality=mark.typicality,
                provenance={**sources[id(call)], **mark.by},
            )
            made.append(one)
        else:
            absent[name] = EMPTY
    shown = post.model_copy(update={"description": description or post.description})
    for one, fault in zip(made, faults(made, shown, choice.labels), strict=True):
        if reason := fault or _unwanted(one, choice):
            absent[one.relation] = reason
    return tuple(one for one in made if one.relation not in absent)


def _unwanted(one: Intention, choice: Choice) -> str:
    if one.relation in choice.without:
        return LEFT_OUT[0]
    if choice.min_plausibility is None:
        return ""
    if one.plausibility is None:
        return LEFT_OUT[1]
    return LEFT_OUT[2] if one.plausibility < choice.min_plausibility else ""


def _image(image: str | None) -> Path | bytes | None:
    if image is None:
        return None
    return Path(image) if image else b""
