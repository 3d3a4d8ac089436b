"""The stored calls of a post, and what their answers say, stage by stage."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from miko_clf.data.post import RELATIONS, KeyInformation, Post, Rationale, Relation
from miko_clf.data.sets.miko import parse_key_information
from miko_clf.distil import schemas
from miko_clf.distil.filters import find_text_fault
from miko_clf.distil.relations import place_sentences
from miko_clf.distil.response import CallStatus
from miko_clf.distil.schemas import AnswerSchema, parse_answer

PUBLISHED_PROMPT = "published"
"""The name of the prompt under which answers stand that were imported, not asked for."""

_SELECT_CALLS = """
SELECT u.task, u.sample, u.stage, c.prompt, c.model, c.answered_by, c.host, c.sampling,
  c.saw_label, c.status, c.reason, c.raw, c.finish, c.prompt_tokens, c.cached_tokens,
  c.completion_tokens, c.usd, c.tries, c.lost, c.request, c.seconds, c.at
FROM uses u JOIN calls c ON c.key = u.key WHERE u.post = ? ORDER BY u.task, u.sample, c.rowid"""


class StoredCall(NamedTuple):
    """A call that answered for a post, in one stage of one job."""

    job: str
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
    """How a post ended in one sample of a job."""

    job: str
    sample: int
    status: CallStatus
    reason: str


def load_calls(db: sqlite3.Connection, name: str) -> list[StoredCall]:
    """Return the calls that answered for a post: by job, by sample, as they came."""
    return [StoredCall(*row) for row in db.execute(_SELECT_CALLS, (name,))]


def load_outcomes(db: sqlite3.Connection, name: str) -> list[StoredOutcome]:
    """Return how a post ended, in every job and sample."""
    say = "SELECT task, sample, status, reason FROM outcomes WHERE post = ? ORDER BY task, sample"
    return [StoredOutcome(*row) for row in db.execute(say, (name,))]


def choose_outcomes(
    outcomes: Sequence[StoredOutcome], sample: int | None = None
) -> dict[str, StoredOutcome]:
    """Return each job's outcome, of `sample` if given: the newest that is ok, else the newest."""
    chosen: dict[str, StoredOutcome] = {}
    for end in sorted(outcomes, key=lambda end: (end.status == "ok", end.sample)):
        if sample in (None, end.sample):
            chosen[end.job] = end
    return chosen


def make_provenance(call: StoredCall) -> dict[str, Any]:
    """Return where a text comes from, in a flat dict without what is not known.

    `sha256` is that of the prompt's file, or of the file that the answer was imported from.
    """
    prompt, _, sha = call.prompt.partition(" ")
    facts = {
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
    return {name: value for name, value in facts.items() if value not in (None, "")}


_STAGE_SCHEMAS: Mapping[str, tuple[type[AnswerSchema], ...]] = {
    "description": (schemas.DescriptionAnswer,),
    "key_information": (schemas.KeyInformationAnswer,),
    "intentions": (schemas.TenIntentionsAnswer,),
    "one_call": (schemas.SeenAnswer, schemas.ThoughtAnswer),
    **dict.fromkeys(RELATIONS, (schemas.IntentionAnswer,)),
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
    """Return what the calls of one sample of the job of intentions say.

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
    missing = [name for name in RELATIONS if end and name not in completions]
    absent = {str(name): reasons.get(name, other) for name in missing}
    return ParsedIntentions(description, keys, completions, absent)


def parse_description(call: StoredCall) -> str | None:
    """Return the description that an answer gives, if it gives one."""
    text: str | None = _read_fields(call).get("description") if call.status == "ok" else None
    return text


def parse_rationale(calls: Sequence[StoredCall], post: Post) -> tuple[Rationale | None, str]:
    """Return the rationale that the calls of one sample give, or none and why not.

    Of a debate every side must have been argued: which one is missing would tell the label.
    """
    calls = [call for call in calls if call.stage != "description"]
    bad = next((call for call in calls if call.status != "ok"), None)
    if not calls or bad is not None:
        return None, bad.status if bad and bad.status else MISSING_ANSWER
    texts: dict[str, str] = {}
    for call in calls:
        text = getattr(parse_answer(call.raw, schemas.RationaleAnswer), "rationale", "")
        if fault := find_text_fault(text, post):
            return None, fault
        texts[call.stage.removeprefix("debate ")] = text
    text = texts.get("rationale", "")
    if calls[0].stage.startswith("debate "):
        text = "\n".join(f"The case for {side}: {texts[side]}" for side in sorted(texts))
    saw_label = any(call.saw_label for call in calls)
    return Rationale(text=text, saw_label=saw_label, provenance=_join_provenance(calls)), ""


def _join_provenance(calls: Sequence[StoredCall]) -> dict[str, Any]:
    """Return the provenance of calls together, values apart where they differ."""
    sources = [make_provenance(call) for call in calls]
    keys = dict.fromkeys(key for source in sources for key in source)
    values = {key: list(dict.fromkeys(source.get(key) for source in sources)) for key in keys}
    return {
        key: different[0] if len(different) == 1 else ", ".join(map(str, different))
        for key, different in values.items()
    }


def _read_fields(call: StoredCall) -> dict[str, Any]:
    """Return what an answer says: description, key_information, intentions by relation."""
    if call.published:
        return _read_published(call)
    answers = (parse_answer(call.raw, schema) for schema in _STAGE_SCHEMAS[call.stage])
    answer = next((answer for answer in answers if isinstance(answer, AnswerSchema)), None)
    if isinstance(answer, schemas.IntentionAnswer):
        return {"intentions": {call.stage: answer.intention}}
    is_keys = isinstance(answer, schemas.KeyInformationAnswer)
    is_ten = isinstance(answer, schemas.TenIntentionsAnswer)
    keys = answer if is_keys else getattr(answer, "key_information", None)
    ten = answer if is_ten else getattr(answer, "intentions", None)
    return {
        "description": getattr(answer, "description", None),
        "key_information": keys and KeyInformation.model_validate(keys.model_dump()),
        "intentions": {name: getattr(ten, name) for name in RELATIONS} if ten else {},
    }


def _read_published(call: StoredCall) -> dict[str, Any]:
    has_keys = call.stage == "key_information"
    return {
        "description": call.raw if call.stage == "description" else None,
        "key_information": parse_key_information(call.raw) if has_keys else None,
        "intentions": place_sentences(call.raw).texts if call.stage == "intentions" else {},
    }
