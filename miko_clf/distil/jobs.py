"""The jobs: what is asked of a post, in which order: intentions, a rationale, or a debate."""

import asyncio
import json
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post
from miko_clf.distil import schemas
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

# Room for an answer, and the temperature: MIKO's own .7 where ten different thoughts are wanted,
# Mr.Harm's 0 where one sober text is. An intention LM says what it finds likeliest.
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


class Asker(Protocol):
    """Gets a request answered: the scheduler does, and what estimates a run pretends to."""

    async def ask(self, request: Request) -> CallRow:
        """Return the answer to a request."""


@dataclass(frozen=True)
class JobPlan:
    """How a job is carried out.

    `vision` is the model that describes pictures; without one, `model` is shown them itself
    unless `pictures` is false. `fallbacks` are asked, in order, what another model refused.
    `labels` are the sides of a debate. `sample` numbers a fresh set of answers to old questions.
    The order `student` is that of an intention LM: ten short questions, and no picture.
    """

    job: JobKind | Literal["judge"]
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

    def sampling(self, prompt_name: str) -> Sampling:
        """Return how the answers to a prompt are drawn."""
        max_tokens, temperature, _, _ = _SAMPLING[prompt_name]
        temperature = temperature if self.temperature is None else self.temperature
        return Sampling(self.max_tokens or max_tokens, temperature, self.top_p, self.seed)


@dataclass(frozen=True)
class JobRunner:
    """Asks all that a plan wants to know of a post."""

    plan: JobPlan

    async def run(self, post: Post, asker: Asker) -> JobOutcome:
        """Ask the questions of the job, one after the other or at once; return how it ended."""
        try:
            job = PostJob(post, self.plan, asker)
        except PostError as error:
            return JobOutcome(post.id, self.plan.job, self.plan.sample, "failed", str(error))
        match self.plan.job:
            case "intentions":
                return await _ask_intentions(job)
            case "rationale":
                return await _ask_rationale(job)
            case "debate":
                return await _ask_debate(job)
        raise AssertionError(f"{self.plan.job} has a runner of its own")


@dataclass
class PostJob:
    """One post on its way through a job; raises `PostError` where nothing of it can be sent."""

    post: Post
    plan: JobPlan
    asker: Asker

    def __post_init__(self) -> None:
        text, image = self.post.text, self.post.image
        self.text = mask_identities(text) if text and self.plan.masked else text
        self.description = self.post.description
        self.picture: RequestPicture | None = None
        if image is not None and self.plan.pictures and self.plan.order != "student":
            self.picture = load_request_picture(image)
        if self.text is None and self.picture is None and self.description is None:
            raise PostError("the post has a picture alone, and pictures are not sent")
        self.uses: list[tuple[str, bytes]] = []
        self.rows: dict[bytes, CallRow] = {}

    async def put(
        self,
        stage: str,
        prompt_name: str,
        schema: type[AnswerSchema],
        *,
        picture: RequestPicture | None = None,
        saw_label: bool = False,
        model: str | None = None,
        **values: str | None,
    ) -> tuple[CallRow, AnswerSchema | None]:
        """Ask one question of the post, again or elsewhere if need be; return the last answer."""
        prompt, sampling = load_prompt(prompt_name), self.plan.sampling(prompt_name)
        question = prompt.fill(text=self.text, description=self.description, **values)
        turns = (ChatTurn("system", prompt.system), ChatTurn("user", question, picture))
        model = model or self.plan.model
        sample = self.plan.sample
        request = Request(stage, model, prompt, turns, schema, sampling, sample, saw_label)
        row, answer = await self._ask_model(request)
        for other in self.plan.fallbacks:
            if row.status != "refused":
                break
            if other != request.model:
                row, answer = await self._ask_model(request.address(other))
        self.uses.append((stage, row.key))
        return row, answer

    async def _ask_model(self, request: Request) -> tuple[CallRow, AnswerSchema | None]:
        """Ask one model, once more with room where it was cut off, once more where it was wrong.

        An answer that was cut off because it went round in circles would only do so for longer.
        """
        row, answer = await self._ask_once(request)
        if row.status != "invalid" or (row.reason == "truncated" and is_repetitive(row.raw)):
            return row, answer
        if row.reason == "truncated":
            return await self._ask_once(request.widen())
        return await self._ask_once(request.correct(row.raw, row.reason))

    async def _ask_once(self, request: Request) -> tuple[CallRow, AnswerSchema | None]:
        row, answer = read_call(request, await self.asker.ask(request))
        self.rows[row.key] = row
        return row, answer

    def end(self, status: CallStatus, reason: str = "") -> JobOutcome:
        """Return how the post ended; one that ended well says what it lacks all the same."""
        if status == "ok" and not reason:
            rows = [(stage, self.rows[key]) for stage, key in self.uses]
            reason = "; ".join(f"{at}: {row.reason}" for at, row in rows if row.status != "ok")
        uses, rows_read = tuple(self.uses), tuple(self.rows.values())
        plan = self.plan
        return JobOutcome(self.post.id, plan.job, plan.sample, status, reason, uses, rows_read)

    def end_like(self, row: CallRow) -> JobOutcome:
        """Return that the post ended as an answer did."""
        assert row.status is not None
        return self.end(row.status, row.reason)


def read_call(request: Request, row: CallRow) -> tuple[CallRow, AnswerSchema | None]:
    """Return an answer with the status that reading it gives, and what it says if it is ok."""
    if row.status in ("refused", "failed"):
        return row, None
    answer = parse_answer(row.raw, request.answer)
    if isinstance(answer, AnswerSchema):
        return row._replace(status="ok", reason=""), answer
    if row.finish == "length":
        return row._replace(status="invalid", reason="truncated"), None
    if is_refusal(row.raw):
        return row._replace(status="refused", reason="apology"), None
    return row._replace(status="invalid", reason=answer), None


async def _ask_intentions(job: PostJob) -> JobOutcome:
    order = job.plan.order
    if order == "one-call":
        return await _ask_in_one_call(job)
    if order == "student":  # which was taught one short question and no other
        return await _ask_ten_relations(job, "student", None)
    row = await _ask_description(job, job.plan.vision or job.plan.model)
    if row is not None and job.text is None and row.status != "ok":
        return job.end_like(row)
    _, answer = await job.put("key_information", "key-information", schemas.KeyInformationAnswer)
    keys = json.dumps(answer.model_dump(), ensure_ascii=False) if answer else None
    if order == "per-relation":
        return await _ask_ten_relations(job, "relation", keys)
    row, _ = await job.put("intentions", "intentions", schemas.TenIntentionsAnswer, keys=keys)
    return job.end_like(row)


async def _ask_in_one_call(job: PostJob) -> JobOutcome:
    if job.plan.vision:
        row = await _ask_description(job, job.plan.vision)
        if row is not None and job.text is None and row.status != "ok":
            return job.end_like(row)
    picture = None if job.plan.vision else job.picture
    if picture is not None:
        job.description = None  # the model is to describe what it sees itself
    schema = schemas.ThoughtAnswer if picture is None else schemas.SeenAnswer
    row, _ = await job.put("one_call", "one-call", schema, picture=picture)
    return job.end_like(row)


async def _ask_ten_relations(job: PostJob, prompt_name: str, keys: str | None) -> JobOutcome:
    schema, stems, meanings = schemas.IntentionAnswer, RELATION_STEMS, RELATION_MEANINGS
    rows = await _gather_rows(
        job.put(at, prompt_name, schema, keys=keys, stem=stems[at], meaning=meanings[at])
        for at in RELATION_ORDER
    )
    bad = [row for row in rows if row.status != "ok"]
    if len(bad) == len(rows):
        return job.end_like(bad[0])
    return job.end("ok", f"{len(bad)} of {len(rows)} relations missing" if bad else "")


async def _ask_description(job: PostJob, model: str) -> CallRow | None:
    """Have the picture described, unless there is none or it is described already."""
    if job.picture is None or (job.description and not job.plan.vision):
        return None
    job.description = None
    schema = schemas.DescriptionAnswer
    row, answer = await job.put("description", "describe", schema, picture=job.picture, model=model)
    if isinstance(answer, schemas.DescriptionAnswer):
        job.description = answer.description
    return row


async def _ask_rationale(job: PostJob) -> JobOutcome:
    label = ", ".join(flatten_label(job.post.label))
    if not label:
        return job.end("failed", "a rationale explains a label, and the post has none")
    schema, picture = schemas.RationaleAnswer, await _choose_picture(job)
    row, _ = await job.put(
        "rationale", "rationale", schema, picture=picture, saw_label=True, label=label
    )
    return job.end_like(row)


async def _ask_debate(job: PostJob) -> JobOutcome:
    schema, picture = schemas.RationaleAnswer, await _choose_picture(job)
    rows = await _gather_rows(
        job.put(f"debate {label}", "debate", schema, picture=picture, label=label)
        for label in job.plan.labels
    )
    return job.end_like(next((row for row in rows if row.status != "ok"), rows[0]))


async def _choose_picture(job: PostJob) -> RequestPicture | None:
    """Return the picture for a model that is shown it, having it described for one that is not."""
    if job.plan.vision:
        await _ask_description(job, job.plan.vision)
        return None
    return job.picture


async def _gather_rows(questions: Iterable[Awaitable[tuple[CallRow, object]]]) -> list[CallRow]:
    """Ask at once what does not depend on each other; all are over before an error is raised."""
    rows = []
    for answer in await asyncio.gather(*questions, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        rows.append(answer[0])
    return rows
