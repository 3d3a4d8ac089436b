"""The jobs: what is asked of a post, in which order: intentions, a rationale, or a debate."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post, Relation
from miko_clf.distil import schemas as answers
from miko_clf.distil.filters import is_refusal, is_repetitive
from miko_clf.distil.kb.store import CallRow, JobOutcome
from miko_clf.distil.relations import RELATION_MEANINGS, RELATION_STEMS
from miko_clf.distil.request import (
    ChatTurn,
    Request,
    RequestPicture,
    Sampling,
    load_prompt,
    load_request_picture,
    mask_identities,
)
from miko_clf.distil.response import CallStatus
from miko_clf.distil.schemas import RELATION_ORDER, AnswerSchema, parse_answer
from miko_clf.errors import PostError

JobKind = Literal["intentions", "rationale", "debate"]
AskingOrder = Literal["one-call", "per-stage", "per-relation", "student"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
ASKING_ORDERS: tuple[AskingOrder, ...] = get_args(AskingOrder)
AskRequest = Callable[[Request], Awaitable[CallRow]]

# Room for an answer, and the temperature: MIKO's own .7 where ten different thoughts are wanted,
# Mr.Harm's 0 where one sober text is. A student says what it finds likeliest.
_SAMPLING = {
    "describe": Sampling(300, 0.0),
    "key-information": Sampling(300, 0.0),
    "intentions": Sampling(700, 0.7),
    "one-call": Sampling(900, 0.7),
    "relation": Sampling(100, 0.7),
    "student": Sampling(60, 0.0),
    "rationale": Sampling(350, 0.0),
    "debate": Sampling(350, 0.0),
    "judge": Sampling(700, 0.0),
}


@dataclass(frozen=True)
class JobPlan:
    """How a task is carried out.

    `vision` is the model that describes pictures; without one, `model` is shown them itself
    unless `pictures` is false. `fallbacks` are asked, in order, what another model refused.
    `labels` are the sides of a debate. `sample` numbers a fresh set of answers to old questions.
    The order `student` is that of `distil.local`: ten short questions, and no picture.
    """

    task: JobKind | Literal["judge"]
    model: str
    order: AskingOrder = "one-call"
    vision: str | None = None
    fallbacks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pictures: bool = True
    masked: bool = True
    sample: int = 0
    temperature: float | None = None
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that may be asked, each once."""
        seeing = (self.vision,) if self.vision and self.pictures else ()
        return tuple(dict.fromkeys((self.model, *seeing, *self.fallbacks)))

    def sampling(self, stage: str) -> Sampling:
        """Return how the answers of a stage are drawn."""
        tokens, warmth, _, _ = _SAMPLING[stage]
        return Sampling(
            self.max_tokens or tokens,
            warmth if self.temperature is None else self.temperature,
            self.top_p,
            self.seed,
        )


@dataclass
class PostJob:
    """One post on its way through a task: what is known of it, and which calls answered."""

    post: Post
    plan: JobPlan
    ask: AskRequest

    def __post_init__(self) -> None:
        text = self.post.text
        self.text = mask_identities(text) if text and self.plan.masked else text
        self.description = self.post.description
        seen = self.plan.pictures and self.plan.order != "student"
        image = self.post.image if seen else None
        self.picture: RequestPicture | None = (
            load_request_picture(image) if image is not None else None
        )
        self.uses: list[tuple[str, bytes]] = []
        self.rows: dict[bytes, CallRow] = {}

    async def put(
        self,
        stage: str,
        name: str,
        answer: type[AnswerSchema],
        *,
        shown: RequestPicture | None = None,
        saw_label: bool = False,
        model: str | None = None,
        **values: str | None,
    ) -> tuple[CallRow, AnswerSchema | None]:
        """Ask one question of the post, again or elsewhere if need be; return the last answer."""
        asked = load_prompt(name)
        given = {"text": self.text, "description": self.description, **values}
        turns = (ChatTurn("system", asked.system), ChatTurn("user", asked.ask(**given), shown))
        sampling = self.plan.sampling(name)
        model = model or self.plan.model
        call = Request(stage, model, asked, turns, answer, sampling, self.plan.sample, saw_label)
        row, found = await self._first(call)
        for other in self.plan.fallbacks:
            if row.status != "refused":
                break
            if other != call.model:
                row, found = await self._first(call.of(other))
        self.uses.append((stage, row.key))
        return row, found

    async def _first(self, call: Request) -> tuple[CallRow, AnswerSchema | None]:
        """Ask one model, once more with room where it was cut off, once more where it was wrong.

        An answer that was cut off because it went round in circles would only do so for longer.
        """
        row, found = self._read(call, await self.ask(call))
        if row.status != "invalid" or (row.reason == "truncated" and is_repetitive(row.raw)):
            return row, found
        call = call.wider() if row.reason == "truncated" else call.again(row.raw, row.reason)
        return self._read(call, await self.ask(call))

    def _read(self, call: Request, row: CallRow) -> tuple[CallRow, AnswerSchema | None]:
        row, found = read_call(call, row)
        self.rows[row.key] = row
        return row, found

    def end(self, status: CallStatus, reason: str = "") -> JobOutcome:
        """Return how the post ended; one that ended well says what it lacks all the same."""
        if status == "ok" and not reason:
            lacking = [(stage, self.rows[key]) for stage, key in self.uses]
            reason = "; ".join(f"{at}: {row.reason}" for at, row in lacking if row.status != "ok")
        uses, rows = tuple(self.uses), tuple(self.rows.values())
        plan = self.plan
        return JobOutcome(self.post.id, plan.task, plan.sample, status, reason, uses, rows)


def read_call(call: Request, row: CallRow) -> tuple[CallRow, AnswerSchema | None]:
    """Return an answer with the status that reading it gives, and what it says if it is ok."""
    if row.status in ("refused", "failed"):
        return row, None
    found = parse_answer(row.raw, call.answer)
    if isinstance(found, AnswerSchema):
        return row._replace(status="ok", reason=""), found
    if row.finish == "length":
        return row._replace(status="invalid", reason="truncated"), None
    if is_refusal(row.raw):
        return row._replace(status="refused", reason="apology"), None
    return row._replace(status="invalid", reason=found), None


async def run_job(post: Post, plan: JobPlan, ask: AskRequest) -> JobOutcome:
    """Ask all that a plan wants to know of a post, and return how it ended."""
    try:
        way = PostJob(post, plan, ask)
    except PostError as error:
        return JobOutcome(post.id, plan.task, plan.sample, "failed", str(error))
    if way.text is None and way.picture is None and way.description is None:
        return way.end("failed", "the post has a picture alone, and pictures are not sent")
    return await _RUNNERS[plan.task](way)


async def _ask_intentions(way: PostJob) -> JobOutcome:
    if way.plan.order == "one-call":
        return await _ask_in_one_call(way)
    if way.plan.order == "student":
        return await _ask_intention_lm(way)
    row = await _ask_description(way, way.plan.vision or way.plan.model)
    if row is not None and way.text is None and row.status != "ok":
        return _end_like(way, row)
    row, keys = await way.put("key_information", "key-information", answers.KeyInformationAnswer)
    told = _write_keys(keys) if keys else None
    if way.plan.order == "per-stage":
        row, _ = await way.put("intentions", "intentions", answers.TenIntentionsAnswer, keys=told)
        return _end_like(way, row)
    return await _ask_ten_relations(way, "relation", told)


async def _ask_intention_lm(way: PostJob) -> JobOutcome:
    """Ask a student, which was taught one short question and no other."""
    return await _ask_ten_relations(way, "student", None)


async def _ask_ten_relations(way: PostJob, name: str, keys: str | None) -> JobOutcome:
    rows = await _gather_rows(
        *(_ask_relation(way, relation, name, keys) for relation in RELATION_ORDER)
    )
    bad = [row for row in rows if row.status != "ok"]
    if len(bad) == len(rows):
        return _end_like(way, bad[0])
    return way.end("ok", f"{len(bad)} of {len(rows)} relations missing" if bad else "")


async def _ask_in_one_call(way: PostJob) -> JobOutcome:
    if way.plan.vision:
        row = await _ask_description(way, way.plan.vision)
        if row is not None and way.text is None and row.status != "ok":
            return _end_like(way, row)
    shown = None if way.plan.vision else way.picture
    if shown is not None:
        way.description = None  # the model is to describe what it sees itself
    answer = answers.ThoughtAnswer if shown is None else answers.SeenAnswer
    row, _ = await way.put("one_call", "one-call", answer, shown=shown)
    return _end_like(way, row)


async def _ask_description(way: PostJob, model: str) -> CallRow | None:
    """Have the picture described, unless there is none or it is described already."""
    if way.picture is None or (way.description and not way.plan.vision):
        return None
    way.description = None
    row, found = await way.put(
        "description", "describe", answers.DescriptionAnswer, shown=way.picture, model=model
    )
    if found is not None:
        way.description = str(found.description)  # type: ignore[attr-defined]
    return row


async def _ask_relation(way: PostJob, relation: Relation, name: str, keys: str | None) -> CallRow:
    row, _ = await way.put(
        relation,
        name,
        answers.IntentionAnswer,
        keys=keys,
        stem=RELATION_STEMS[relation],
        meaning=RELATION_MEANINGS[relation],
    )
    return row


async def _ask_rationale(way: PostJob) -> JobOutcome:
    named = ", ".join(flatten_label(way.post.label))
    if not named:
        return way.end("failed", "a rationale explains a label, and the post has none")
    shown = await _choose_picture(way)
    row, _ = await way.put(
        "rationale", "rationale", answers.RationaleAnswer, shown=shown, saw_label=True, label=named
    )
    return _end_like(way, row)


async def _ask_debate(way: PostJob) -> JobOutcome:
    shown = await _choose_picture(way)
    rows = await _gather_rows(*(_ask_side(way, label, shown) for label in way.plan.labels))
    return _end_like(way, next((row for row in rows if row.status != "ok"), rows[0]))


async def _ask_side(way: PostJob, label: str, shown: RequestPicture | None) -> CallRow:
    row, _ = await way.put(
        f"debate {label}", "debate", answers.RationaleAnswer, shown=shown, label=label
    )
    return row


async def _gather_rows(*questions: Awaitable[CallRow]) -> list[CallRow]:
    """Ask at once what does not depend on each other; all are over before an error is raised."""
    rows = await asyncio.gather(*questions, return_exceptions=True)
    for row in rows:
        if isinstance(row, BaseException):
            raise row
    return [row for row in rows if isinstance(row, CallRow)]


async def _choose_picture(way: PostJob) -> RequestPicture | None:
    """Return the picture for a model that is shown it, having it described for one that is not."""
    if way.plan.vision:
        await _ask_description(way, way.plan.vision)
        return None
    return way.picture


def _end_like(way: PostJob, row: CallRow) -> JobOutcome:
    assert row.status is not None
    return way.end(row.status, row.reason)


def _write_keys(keys: AnswerSchema) -> str:
    return json.dumps(keys.model_dump(), ensure_ascii=False)


_RUNNERS: Mapping[str, Callable[[PostJob], Awaitable[JobOutcome]]] = {
    "intentions": _ask_intentions,
    "rationale": _ask_rationale,
    "debate": _ask_debate,
}
