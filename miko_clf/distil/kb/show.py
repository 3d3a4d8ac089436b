"""One post of a knowledge base on one page: what was asked, answered, and made of it."""

import json
import sqlite3
from collections.abc import Iterator
from difflib import get_close_matches

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import RELATIONS
from miko_clf.distil.kb.parse import StoredCall, load_calls, load_outcomes
from miko_clf.distil.kb.query import (
    DEFAULT_CHOICE,
    KnowledgeChoice,
    PostKnowledge,
    check_choice,
    load_knowledge,
)
from miko_clf.errors import DistilError


def show_known_post(
    db: sqlite3.Connection,
    name: str,
    *,
    raw: bool = False,
    choice: KnowledgeChoice = DEFAULT_CHOICE,
) -> str:
    """Return all that is known of a post as readable text, the raw answers too if asked.

    Every sample of every task is listed; the texts are those of the choice. Raises `DistilError`
    for an id that is not known.
    """
    check_choice(db, choice)
    one = load_knowledge(db, name, choice)
    if one is None:
        raise DistilError(f"no post has the id {name!r}{_suggest_id(db, name)}")
    parts = (
        _describe_post(db, one),
        _describe_jobs(db, name, raw),
        _describe_knowledge(one),
        _describe_scores(db, name),
    )
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _describe_post(db: sqlite3.Connection, one: PostKnowledge) -> Iterator[str]:
    say = "SELECT place, image FROM posts WHERE id = ?"
    place, image = db.execute(say, (one.post.id,)).fetchone()
    label = ", ".join(flatten_label(one.post.label))
    yield f"post {one.post.id}"
    yield f"  from   {place}"
    if label:
        yield f"  label  {label}"
    if one.post.text:
        yield f"  text   {one.post.text}"
    if image is not None:
        yield f"  image  {image or 'in its file'}"


def _describe_jobs(db: sqlite3.Connection, name: str, raw: bool) -> Iterator[str]:
    """Yield how each task ended, and the calls that answered for it."""
    calls = load_calls(db, name)
    for end in load_outcomes(db, name):
        why = f": {end.reason}" if end.reason else ""
        yield f"{end.task}, sample {end.sample}: {end.status}{why}"
        for call in calls:
            if (call.task, call.sample) == (end.task, end.sample):
                yield from _describe_call(call, raw)


def _describe_call(call: StoredCall, raw: bool) -> Iterator[str]:
    by = f" (answered by {call.answered_by})" if call.answered_by not in ("", call.model) else ""
    by_whom = f"{call.model}{by}{f' at {call.host}' if call.host else ''}"
    why = f": {call.reason}" if call.reason else ""
    yield f"  {call.stage}: {call.status}{why}"
    yield f"    {', '.join(part for part in (by_whom, call.prompt, _describe_sampling(call)) if part)}"
    if call.published:
        yield f"    imported {call.when}"
    else:
        lost = f", {call.lost} lost" if call.lost else ""
        yield (
            f"    {call.prompt_tokens:,} + {call.completion_tokens:,} tokens "
            f"({call.cached_tokens:,} cached), ${call.usd:.6f}, {call.seconds:.1f} s, "
            f"{call.tries} requests{lost}, {call.when}"
        )
    if raw:
        yield from (f"    | {line}" for line in call.raw.splitlines())


def _describe_sampling(call: StoredCall) -> str:
    drawn = json.loads(call.sampling)
    return ", ".join(f"{name} {value}" for name, value in drawn.items() if value is not None)


def _describe_knowledge(one: PostKnowledge) -> Iterator[str]:
    """Yield what is made of the answers: the texts, and why others are absent."""
    if one.description:
        yield f"description: {one.description}"
    if one.key_information:
        fields = one.key_information.model_dump(exclude_none=True)
        fields["keywords"] = ", ".join(fields["keywords"])
        yield f"key information: {'; '.join(f'{name}: {text}' for name, text in fields.items())}"
    texts = {each.relation: each.text for each in one.intentions}
    for name in RELATIONS:
        if name in texts:
            yield f"{name:8} {texts[name]}"
        elif name in one.absent:
            yield f"{name:8} absent: {one.absent[name]}"
    if one.rationale:
        seen = "saw the label" if one.rationale.saw_label else "did not see the label"
        yield f"rationale ({seen}): {one.rationale.text}"
    for what in one.absent.keys() - set(RELATIONS):
        yield f"{what} absent: {one.absent[what]}"


def _describe_scores(db: sqlite3.Connection, name: str) -> Iterator[str]:
    say = (
        "SELECT relation, sample, judge, plausibility, typicality FROM scores WHERE post = ? "
        "ORDER BY sample, judge, relation"
    )
    for relation, sample, judge, plausibility, typicality in db.execute(say, (name,)):
        marks = (("plausibility", plausibility), ("typicality", typicality))
        told = ", ".join(f"{what} {mark:.2f}" for what, mark in marks if mark is not None)
        yield f"{judge}, sample {sample}, {relation}: {told}"


def _suggest_id(db: sqlite3.Connection, name: str) -> str:
    """Return a hint at ids around the one that was given."""
    say = "SELECT id FROM posts WHERE id >= ? ORDER BY id LIMIT 50"
    rows = db.execute(say, (name[: len(name) // 2],)).fetchall()
    close = get_close_matches(name, [row[0] for row in rows], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
