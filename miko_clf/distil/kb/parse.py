"""The stored calls of a post, and what their answers say, stage by stage."""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from miko_clf.data.post import RELATIONS, KeyInformation, Post, Rationale, Relation
from miko_clf.data.sets.miko import parse_key_information
from miko_clf.distil import schemas as answers
from miko_clf.distil.filters import LABEL_NAMED, find_text_fault
from miko_clf.distil.relations import MIKO_RELATION_ORDER, has_stem
from miko_clf.distil.response import CallStatus
from miko_clf.distil.schemas import AnswerSchema, parse_answer

PUBLISHED_PROMPT = "published"
"""The name of the prompt under which answers stand that were imported, not asked for."""

_SELECT_CALLS = (
    "SELECT u.task, u.sample, u.stage, c.prompt, c.model, c.answered_by, c.host, c.sampling, "
    "c.saw_label, c.status, c.reason, c.raw, c.finish, c.prompt_tokens, c.cached_tokens, "
    "c.completion_tokens, c.usd, c.tries, c.lost, c.request, c.seconds, c.at "
    "FROM uses u JOIN calls c ON c.key = u.key WHERE u.post = ? "
    "ORDER BY u.task, u.sample, c.rowid"
)


class StoredCall(NamedTuple):
    """A call that answered for a post, in one stage of one task."""

    task: str
    sample: int
    stage: str
    prompt: str
    model: str
    answered_by: str
    host: str
    sampling: str
    saw_label: int
    status: CallStatus
    reason: str
    raw: str
    finish: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float
    tries: int
    lost: int
    request: str
    seconds: float
    at: float

    @property
    def published(self) -> bool:
        """Whether the answer was imported."""
        return self.prompt.startswith(f"{PUBLISHED_PROMPT}.")

    @property
    def when(self) -> str:
        """The time, UTC, at which the answer was kept."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds")


class StoredOutcome(NamedTuple):
    """How a post ended in one sample of a task."""

    task: str
    sample: int
    status: CallStatus
    reason: str


def load_calls(db: sqlite3.Connection, name: str) -> list[StoredCall]:
    """Return the calls that answered for a post: by task, by sample, as they came."""
    return [StoredCall(*row) for row in db.execute(_SELECT_CALLS, (name,))]


def load_outcomes(db: sqlite3.Connection, name: str) -> list[StoredOutcome]:
    """Return how a post ended, in every task and sample."""
    say = "SELECT task, sample, status, reason FROM outcomes WHERE post = ? ORDER BY task, sample"
    return [StoredOutcome(*row) for row in db.execute(say, (name,))]


def choose_outcomes(
    found: Sequence[StoredOutcome], sample: int | None = None
) -> dict[str, StoredOutcome]:
    """Return for each task the end that counts: the newest that is ok, or the newest at all.

    With `sample`, the end of that sample, if there is one.
    """
    best: dict[str, StoredOutcome] = {}
    for end in found:
        if sample is not None and end.sample != sample:
            continue
        before = best.setdefault(end.task, end)
        best[end.task] = max(before, end, key=lambda each: (each.status == "ok", each.sample))
    return best


def make_provenance(call: StoredCall) -> dict[str, Any]:
    """Return where a text comes from, in a flat dict without what is not known.

    `sha256` is that of the prompt's file or, where the answer was imported, of the file it was
    read from.
    """
    prompt, _, sha = call.prompt.partition(" ")
    found = {
        "model": call.model,
        "answered_by": call.answered_by,
        "host": call.host,
        "prompt": prompt,
        "sha256": sha,
        **json.loads(call.sampling),
        "sample": call.sample,
        "imported" if call.published else "at": call.when,
        "request": call.request,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


_HEAD = re.compile(r"^[^\w\n]*intention[ \t]*(\d+)[ \t]*[:.]?", re.IGNORECASE | re.MULTILINE)
_FEWEST = 6  # words; fewer, without a stem and an end, are a sentence that was cut off at once


class PlacedSentences(NamedTuple):
    """The sentences of an answer by relation, the relation of each number, and what was irregular.

    A number stands in `numbers` where its sentence was placed, and nowhere else.
    """

    texts: Mapping[Relation, str]
    numbers: Mapping[int, Relation]
    odd: tuple[str, ...]


@lru_cache(maxsize=1024)
def place_sentences(raw: str) -> PlacedSentences:
    """Return what each relation is told by an answer of numbered sentences.

    The number tells the relation where the sentence begins as that relation does. Where it does
    not, the stem tells, if its relation is still free; then the number, if that is. So a
    sentence that is left out, or a number that comes twice, moves no other sentence.
    """
    told = [(number, text) for number, text in split_sentences(raw) if _is_sentence(text)]
    stems = [[name for name in MIKO_RELATION_ORDER if has_stem(name, text)] for _, text in told]
    wished = [dict(enumerate(MIKO_RELATION_ORDER, 1)).get(number) for number, _ in told]
    where: dict[int, Relation] = {}
    for i, name in enumerate(wished):
        if name in stems[i] and name not in where.values():
            where[i] = name
    for i in sorted(range(len(told)), key=lambda i: len(stems[i])):
        free = [name for name in (*stems[i], wished[i]) if name and name not in where.values()]
        if i not in where and free:
            where[i] = free[0]
    return PlacedSentences(
        {name: told[i][1] for i, name in where.items()},
        {told[i][0]: name for i, name in sorted(where.items(), reverse=True)},
        _find_oddities(told, stems, wished, where),
    )


def split_sentences(raw: str) -> list[tuple[int, str]]:
    """Return the numbers and texts of an answer: lines `Intention 1: ...`, or an object of them.

    A text may be empty. What a length limit left of one more head is passed over.
    """
    if raw.lstrip().startswith("{"):
        found = json.loads(raw)
        raw = "\n".join(f"{name}: {' '.join(text.split())}" for name, text in found.items())
    lines = raw.rstrip().split("\n")
    if "intention".startswith(re.sub(r"\W", "", lines[-1]).lower()):
        lines.pop()
    text = "\n".join(lines)
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    return [
        (int(head[1]), " ".join(text[head.end() : end].split()))
        for head, end in zip(heads, ends, strict=True)
    ]


def _is_sentence(text: str) -> bool:
    if not any(map(str.isalnum, text)):
        return False
    whole = len(text.split()) >= _FEWEST or text[-1] in ".!?"
    return whole or any(has_stem(name, text) for name in RELATIONS)


def _find_oddities(
    told: list[tuple[int, str]],
    stems: list[list[Relation]],
    wished: list[Relation | None],
    where: Mapping[int, Relation],
) -> tuple[str, ...]:
    found = []
    for i, (number, text) in enumerate(told):
        if i not in where:
            found.append(f"number {number} has no relation left: {text[:60]}")
        elif where[i] not in stems[i]:
            found.append(f"{where[i]} is told by number {number}, its stem is another: {text[:60]}")
        elif where[i] != wished[i]:
            found.append(f"{where[i]} is told by its stem, not by number {number}: {text[:60]}")
    missing = [name for name in RELATIONS if name not in where.values()]
    return (*found, *(f"{name} is missing" for name in missing))


_STAGE_SCHEMAS: Mapping[str, tuple[type[AnswerSchema], ...]] = {
    "description": (answers.DescriptionAnswer,),
    "key_information": (answers.KeyInformationAnswer,),
    "intentions": (answers.TenIntentionsAnswer,),
    "one_call": (answers.SeenAnswer, answers.ThoughtAnswer),
    **dict.fromkeys(RELATIONS, (answers.IntentionAnswer,)),
}
_WHOLE_STAGES = ("one_call", "intentions")
MISSING_ANSWER = "missing"


class ParsedIntentions(NamedTuple):
    """Description and key information, the completion of each relation with the call that gave
    it, and why the other relations have none: a status, or `missing` from an answer."""

    description: str | None
    key_information: KeyInformation | None
    completions: Mapping[Relation, tuple[str, StoredCall]]
    absent: Mapping[str, str]


def parse_intentions(
    calls: Sequence[StoredCall], end: StoredOutcome | None, *, pictured: bool
) -> ParsedIntentions:
    """Return what the calls of one sample of the task of intentions say.

    In one call for everything, what a model says that it saw counts only of a post that is
    `pictured`. Without an `end` nothing was asked, and nothing is absent.
    """
    description: str | None = None
    keys: KeyInformation | None = None
    completions: dict[Relation, tuple[str, StoredCall]] = {}
    reasons: dict[str, str] = {}
    for call in calls:
        if call.status != "ok":
            names = RELATIONS if call.stage in _WHOLE_STAGES else (call.stage,)
            reasons |= dict.fromkeys(names, call.status or "failed")
            continue
        fields = _read_fields(call)
        if pictured or call.stage != "one_call":
            description = fields.get("description") or description
        keys = fields.get("key_information") or keys
        completions |= {name: (text, call) for name, text in fields["intentions"].items()}
    other = "failed" if end is None else MISSING_ANSWER if end.status == "ok" else end.status
    absent: dict[str, str] = {
        name: reasons.get(name, other) for name in RELATIONS if name not in completions
    }
    return ParsedIntentions(description, keys, completions, absent if end else {})


def parse_description(call: StoredCall) -> str | None:
    """Return the description that an answer gives, if it gives one."""
    text: str | None = _read_fields(call).get("description") if call.status == "ok" else None
    return text


def parse_rationale(calls: Sequence[StoredCall], post: Post) -> tuple[Rationale | None, str]:
    """Return the rationale that the calls of one sample give, or none and why not.

    Of a debate every side must have been argued: which one is missing would tell the label.
    """
    said = [call for call in calls if call.stage != "description"]
    bad = next((call for call in said if call.status != "ok"), None)
    if not said or bad is not None:
        return None, bad.status if bad and bad.status else MISSING_ANSWER
    texts = {call.stage.removeprefix("debate "): _read_rationale(call) for call in said}
    for text in texts.values():
        if fault := find_prose_fault(text, post):
            return None, fault
    sides = [f"The case for {label}: {text}" for label, text in sorted(texts.items())]
    debated = said[0].stage.startswith("debate ")
    text = "\n".join(sides) if debated else texts["rationale"]
    saw_label = any(call.saw_label for call in said)
    return Rationale(text=text, saw_label=saw_label, provenance=_join_provenance(said)), ""


def find_prose_fault(text: str, post: Post) -> str:
    """Return why a rationale or a description is no good, or ''.

    Talk of labels is no fault here: pictures show them, and arguments are about them.
    """
    fault = find_text_fault(text, post)
    return "" if fault == LABEL_NAMED else fault


def _join_provenance(calls: Sequence[StoredCall]) -> dict[str, Any]:
    """Return the provenance of calls together, values apart where they differ."""
    sources = [make_provenance(call) for call in calls]
    keys = dict.fromkeys(key for source in sources for key in source)
    values = {key: list(dict.fromkeys(source.get(key) for source in sources)) for key in keys}
    return {
        key: each[0] if len(each) == 1 else ", ".join(map(str, each))
        for key, each in values.items()
    }


def _read_rationale(call: StoredCall) -> str:
    found = parse_answer(call.raw, answers.RationaleAnswer)
    return found.rationale if isinstance(found, answers.RationaleAnswer) else ""


def _read_fields(call: StoredCall) -> dict[str, Any]:
    """Return what an answer says: description, key_information, intentions by relation."""
    if call.published:
        return _read_published(call)
    found: Any = next(
        (
            one
            for form in _STAGE_SCHEMAS[call.stage]
            if isinstance(one := parse_answer(call.raw, form), AnswerSchema)
        ),
        None,
    )
    if isinstance(found, answers.IntentionAnswer):
        return {"intentions": {call.stage: found.intention}}
    keys = (
        found
        if isinstance(found, answers.KeyInformationAnswer)
        else getattr(found, "key_information", None)
    )
    ten = (
        found
        if isinstance(found, answers.TenIntentionsAnswer)
        else getattr(found, "intentions", None)
    )
    return {
        "description": getattr(found, "description", None),
        "key_information": keys and KeyInformation.model_validate(keys.model_dump()),
        "intentions": {name: getattr(ten, name) for name in RELATIONS} if ten else {},
    }


def _read_published(call: StoredCall) -> dict[str, Any]:
    whole = call.stage == "intentions"
    keyed = call.stage == "key_information"
    return {
        "description": call.raw if call.stage == "description" else None,
        "key_information": parse_key_information(call.raw) if keyed else None,
        "intentions": place_sentences(call.raw).texts if whole else {},
    }
