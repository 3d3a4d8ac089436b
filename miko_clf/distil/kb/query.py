"""What a knowledge base says of a post: read from the answers kept, or shown on one page."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Relation
from miko_clf.distil.filters import EMPTY_TEXT, find_faults, find_text_fault
from miko_clf.distil.kb import parse
from miko_clf.distil.kb.parse import ParsedIntentions, StoredCall, StoredOutcome
from miko_clf.distil.relations import make_sentence
from miko_clf.errors import DistilError

_RANKS = ("human", "critic", "llm")
"""Whose score counts: people before a trained critic before an LLM."""
_TEXTS = ("intentions", "rationale", "debate", "description")  # jobs whose answers are texts
_PAGE = 256  # posts read at a time: no read transaction outlives them
_ROW = "SELECT id, record, image FROM posts WHERE"


@dataclass(frozen=True)
class IntentionMark:
    """What is said of an intention: the mean over the judges whose word counts, and who they are.

    Each question is taken by itself: people may have judged one of the two alone.
    """

    plausibility: float | None = None
    typicality: float | None = None
    by: Mapping[str, str] = field(default_factory=dict)


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
    another text, is not there. `ends` are by job, `sample` is that of the intentions, `models`
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

        Where a job was asked even nothing is an answer, so that no two sources mix in a post.
        """
        fields: dict[str, Any] = {}
        if "intentions" in self.ends:
            fields |= {"key_information": self.key_information, "intentions": self.intentions}
        if self.ends.keys() & {"rationale", "debate"}:
            fields["rationale"] = self.rationale
        if self.description is not None:
            fields["description"] = self.description
        return fields

    def filled(self) -> Post:
        """Return the post with what is known in place of what its file had."""
        return self.post.model_copy(update=self.fields())


def count_posts(db: sqlite3.Connection) -> int:
    """Return how many posts a knowledge base holds."""
    (count,) = db.execute("SELECT COUNT(*) FROM posts").fetchone()
    return int(count)


def iterate_knowledge(
    db: sqlite3.Connection, choice: KnowledgeChoice = DEFAULT_CHOICE
) -> Iterator[PostKnowledge]:
    """Yield what is known of every post, by id, in memory that does not grow.

    `db` is `open_for_reading(path)` or `KnowledgeBase.db`. Raises `DistilError` where the choice
    must say more, or asks for a plausibility that nothing here has.
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


def load_marks(db: sqlite3.Connection, name: str, sample: int) -> dict[str, IntentionMark]:
    """Return by relation what is said of one sample of the intentions of a post."""
    say = (
        "SELECT relation, judge, plausibility, typicality FROM scores "
        "WHERE post = ? AND sample = ? ORDER BY relation, judge"
    )
    rows = db.execute(say, (name, sample)).fetchall()
    return {
        relation: _make_mark([row[1:] for row in scores])
        for relation, scores in groupby(rows, key=lambda row: row[0])
    }


def _make_mark(scores: list[tuple[str, float | None, float | None]]) -> IntentionMark:
    plausible = _choose_best({judge: score for judge, score, _ in scores if score is not None})
    typical = _choose_best({judge: score for judge, _, score in scores if score is not None})
    by = {"plausibility_by": ", ".join(plausible), "typicality_by": ", ".join(typical)}
    by = {key: judges for key, judges in by.items() if judges}
    return IntentionMark(_mean(plausible), _mean(typical), by)


def _choose_best(scores: Mapping[str, float]) -> dict[str, float]:
    """Return of scores by judge those of the kind that counts most."""
    kinds = {judge.partition(":")[0] for judge in scores}
    best = next((kind for kind in _RANKS if kind in kinds), None)
    return {judge: score for judge, score in scores.items() if judge.partition(":")[0] == best}


def _mean(scores: Mapping[str, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None


def _read_knowledge(
    db: sqlite3.Connection, row: tuple[str, str, str | None], choice: KnowledgeChoice
) -> PostKnowledge:
    name, record, image = row
    fields = json.loads(record)
    if image is not None:
        fields["image"] = Path(image) if image else b""
    post = Post.model_validate(fields)
    ends = parse.choose_outcomes(parse.load_outcomes(db, name), choice.sample)
    calls = [
        call
        for call in parse.load_calls(db, name)
        if call.job in _TEXTS and call.job in ends and call.sample == ends[call.job].sample
    ]
    by_job = {job: list(group) for job, group in groupby(calls, key=lambda call: call.job)}
    end = ends.get("intentions")
    parsed = parse.parse_intentions(by_job.get("intentions", []), end, pictured=image is not None)
    absent = dict(parsed.absent)
    description = _choose_description(parsed, calls, post, absent)
    rationale = None
    wanted = (choice.rationale,) if choice.rationale else ("rationale", "debate")
    if job := next((job for job in wanted if job in ends), None):
        rationale, fault = parse.parse_rationale(by_job.get(job, []), post)
        absent |= {job: fault} if fault else {}
    marks = load_marks(db, name, end.sample) if end else {}
    return PostKnowledge(
        post=post,
        description=description,
        key_information=parsed.key_information,
        intentions=_choose_intentions(parsed, post, description, choice, marks, absent),
        rationale=rationale,
        absent=absent,
        ends=ends,
        sample=end.sample if end else None,
        models=tuple(dict.fromkeys(call.answered_by or call.model for call in calls)),
        marks=marks,
    )


def _choose_description(
    parsed: ParsedIntentions, calls: Sequence[StoredCall], post: Post, absent: dict[str, str]
) -> str | None:
    """Return the description that was asked for, with intentions or for another job."""
    text = parsed.description
    if text is None:
        texts = (parse.parse_description(call) for call in calls if call.stage == "description")
        text = next((text for text in texts if text), None)
    if text is None:
        return None
    if fault := find_text_fault(text, post.model_copy(update={"description": None})):
        absent["description"] = fault
        return None
    return text


def _choose_intentions(
    parsed: ParsedIntentions,
    post: Post,
    description: str | None,
    choice: KnowledgeChoice,
    marks: Mapping[str, IntentionMark],
    absent: dict[str, str],
) -> tuple[Intention, ...]:
    """Return the intentions that are sound and wanted; why another is neither goes to `absent`."""
    intentions: list[Intention] = []
    sources = {id(call): parse.make_provenance(call) for _, call in parsed.completions.values()}
    for name in (name for name in RELATIONS if name in parsed.completions):
        completion, call = parsed.completions[name]
        text = make_sentence(name, completion)
        if not text:
            absent[name] = EMPTY_TEXT
            continue
        mark = marks.get(name, IntentionMark())
        scores = {"plausibility": mark.plausibility, "typicality": mark.typicality}
        provenance = {**sources[id(call)], **mark.by}
        intentions.append(Intention(relation=name, text=text, provenance=provenance, **scores))
    described = post.model_copy(update={"description": description or post.description})
    faults = find_faults(intentions, described, choice.labels)
    for intention, fault in zip(intentions, faults, strict=True):
        if reason := fault or _find_exclusion(intention, choice):
            absent[intention.relation] = reason
    return tuple(intention for intention in intentions if intention.relation not in absent)


def _find_exclusion(intention: Intention, choice: KnowledgeChoice) -> str:
    """Return why the choice leaves out an intention that is sound, or ''."""
    if intention.relation in choice.without:
        return "left out"
    if choice.min_plausibility is None:
        return ""
    if intention.plausibility is None:
        return "not judged"
    return "not plausible enough" if intention.plausibility < choice.min_plausibility else ""


def show_known_post(
    db: sqlite3.Connection,
    name: str,
    *,
    raw: bool = False,
    choice: KnowledgeChoice = DEFAULT_CHOICE,
) -> str:
    """Return all that is known of a post on one page of text, the raw answers too if asked.

    Every sample of a job is listed, the texts are of the choice. `DistilError`: an unknown id.
    """
    check_choice(db, choice)
    known = load_knowledge(db, name, choice)
    if known is None:
        raise DistilError(f"no post has the id {name!r}{_suggest_id(db, name)}")
    parts = (
        _describe_post(db, known.post),
        _describe_jobs(db, name, raw),
        _describe_knowledge(known),
        _describe_scores(db, name),
    )
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _suggest_id(db: sqlite3.Connection, name: str) -> str:
    """Return a hint at ids around the one that was given."""
    say = "SELECT id FROM posts WHERE id >= ? ORDER BY id LIMIT 50"
    rows = db.execute(say, (name[: len(name) // 2],)).fetchall()
    close = get_close_matches(name, [row[0] for row in rows], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _describe_post(db: sqlite3.Connection, post: Post) -> Iterator[str]:
    say = "SELECT place, image FROM posts WHERE id = ?"
    place, image = db.execute(say, (post.id,)).fetchone()
    yield f"post {post.id}"
    yield f"  from   {place}"
    if label := ", ".join(flatten_label(post.label)):
        yield f"  label  {label}"
    if post.text:
        yield f"  text   {post.text}"
    if image is not None:
        yield f"  image  {image or 'in its file'}"


def _describe_jobs(db: sqlite3.Connection, name: str, raw: bool) -> Iterator[str]:
    """Yield how each job ended, and the calls that answered for it."""
    calls = parse.load_calls(db, name)
    for end in parse.load_outcomes(db, name):
        why = f": {end.reason}" if end.reason else ""
        yield f"{end.job}, sample {end.sample}: {end.status}{why}"
        for call in calls:
            if (call.job, call.sample) == (end.job, end.sample):
                yield from _describe_call(call, raw)


def _describe_call(call: StoredCall, raw: bool) -> Iterator[str]:
    by = f" (answered by {call.answered_by})" if call.answered_by not in ("", call.model) else ""
    model = f"{call.model}{by}{f' at {call.host}' if call.host else ''}"
    drawn = json.loads(call.sampling).items()
    sampling = ", ".join(f"{name} {value}" for name, value in drawn if value is not None)
    why = f": {call.reason}" if call.reason else ""
    yield f"  {call.stage}: {call.status}{why}"
    yield f"    {', '.join(part for part in (model, call.prompt, sampling) if part)}"
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


def _describe_knowledge(known: PostKnowledge) -> Iterator[str]:
    """Yield what is made of the answers: the texts, and why others are absent."""
    if known.description:
        yield f"description: {known.description}"
    if known.key_information:
        fields = known.key_information.model_dump(exclude_none=True)
        fields["keywords"] = ", ".join(fields["keywords"])
        yield f"key information: {'; '.join(f'{name}: {text}' for name, text in fields.items())}"
    texts = {intention.relation: intention.text for intention in known.intentions}
    for name in RELATIONS:
        if name in texts:
            yield f"{name:8} {texts[name]}"
        elif name in known.absent:
            yield f"{name:8} absent: {known.absent[name]}"
    if known.rationale:
        seen = "saw the label" if known.rationale.saw_label else "did not see the label"
        yield f"rationale ({seen}): {known.rationale.text}"
    for what in known.absent.keys() - set(RELATIONS):
        yield f"{what} absent: {known.absent[what]}"


def _describe_scores(db: sqlite3.Connection, name: str) -> Iterator[str]:
    say = (
        "SELECT relation, sample, judge, plausibility, typicality FROM scores WHERE post = ? "
        "ORDER BY sample, judge, relation"
    )
    for relation, sample, judge, *scores in db.execute(say, (name,)):
        named = zip(("plausibility", "typicality"), scores, strict=True)
        text = ", ".join(f"{what} {score:.2f}" for what, score in named if score is not None)
        yield f"{judge}, sample {sample}, {relation}: {text}"
