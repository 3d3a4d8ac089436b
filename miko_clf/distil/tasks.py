"""What is asked of a post, in which order: MIKO's intentions, Mr.Harm's rationales, a debate."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from miko_clf.data.labels import flat
from miko_clf.data.post import Post, Relation
from miko_clf.distil import answer as answers
from miko_clf.distil.answer import ORDER, Answer, read
from miko_clf.distil.call import Call, Sampling, Status, Turn
from miko_clf.distil.picture import Picture, picture
from miko_clf.distil.privacy import mask
from miko_clf.distil.prompt import prompt
from miko_clf.distil.relations import MEANINGS, STEMS
from miko_clf.distil.shelf import Outcome, Row
from miko_clf.distil.sieve import loops, refuses
from miko_clf.errors import PostError

Task = Literal["intentions", "rationale", "debate"]
Order = Literal["one-call", "per-stage", "per-relation", "student"]
TASKS: tuple[Task, ...] = get_args(Task)
ORDERS: tuple[Order, ...] = get_args(Order)
Ask = Callable[[Call], Awaitable[Row]]

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
class Plan:
    """How a task is carried out.

    `vision` is the model that describes pictures; without one, `model` is shown them itself
    unless `pictures` is false. `fallbacks` are asked, in order, what another model refused.
    `labels` are the sides of a debate. `sample` numbers a fresh set of answers to old questions.
    The order `student` is that of `distil.local`: ten short questions, and no picture.
    """

    task: Task | Literal["judge"]
    model: str
    order: Order = "one-call"
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
class Walk:
    """One post on its way through a task: what is known of it, and which calls answered."""

    post: Post
    plan: Plan
    ask: Ask

    def __post_init__(self) -> None:
        text = self.post.text
        self.text = mask(text) if text and self.plan.masked else text
        self.description = self.post.description
        seen = self.plan.pictures and self.plan.order != "student"
        image = self.post.image if seen else None
        self.picture: Picture | None = picture(image) if image is not None else None
        self.uses: list[tuple[str, bytes]] = []
        self.rows: dict[bytes, Row] = {}

    async def put(
        self,
        stage: str,
        name: str,
        answer: type[Answer],
        *,
        shown: Picture | None = None,
        saw_label: bool = False,
        model: str | None = None,
        **values: str | None,
    ) -> tuple[Row, Answer | None]:
        """Ask one question of the post, again or elsewhere if need be; return the last answer."""
        asked = prompt(name)
        given = {"text": self.text, "description": self.description, **values}
        turns = (Turn("system", asked.system), Turn("user", asked.ask(**given), shown))
        sampling = self.plan.sampling(name)
        model = model or self.plan.model
        call = Call(stage, model, asked, turns, answer, sampling, self.plan.sample, saw_label)
        row, found = await self._first(call)
        for other in self.plan.fallbacks:
            if row.status != "refused":
                break
            if other != call.model:
                row, found = await self._first(call.of(other))
        self.uses.append((stage, row.key))
        return row, found

    async def _first(self, call: Call) -> tuple[Row, Answer | None]:
        """Ask one model, once more with room where it was cut off, once more where it was wrong.

        An answer that was cut off because it went round in circles would only do so for longer.
        """
        row, found = self._read(call, await self.ask(call))
        if row.status != "invalid" or (row.reason == "truncated" and loops(row.raw)):
            return row, found
        call = call.wider() if row.reason == "truncated" else call.again(row.raw, row.reason)
        return self._read(call, await self.ask(call))

    def _read(self, call: Call, row: Row) -> tuple[Row, Answer | None]:
        row, found = understand(call, row)
        self.rows[row.key] = row
        return row, found

    def end(self, status: Status, reason: str = "") -> Outcome:
        """Return how the post ended; one that ended well says what it lacks all the same."""
        if status == "ok" and not reason:
            lacking = [(stage, self.rows[key]) for stage, key in self.uses]
            reason = "; ".join(f"{at}: {row.reason}" for at, row in lacking if row.status != "ok")
        uses, rows = tuple(self.uses), tuple(self.rows.values())
        plan = self.plan
        return Outcome(self.post.id, plan.task, plan.sample, status, reason, uses, rows)


def understand(call: Call, row: Row) -> tuple[Row, Answer | None]:
    """Return an answer with the status that reading it gives, and what it says if it is ok."""
    if row.status in ("refused", "failed"):
        return row, None
    found = read(row.raw, call.answer)
    if isinstance(found, Answer):
        return row._replace(status="ok", reason=""), found
    if row.finish == "length":
        return row._replace(status="invalid", reason="truncated"), None
    if refuses(row.raw):
        return row._replace(status="refused", reason="apology"), None
    return row._replace(status="invalid", reason=found), None


async def walk(post: Post, plan: Plan, ask: Ask) -> Outcome:
    """Ask all that a plan wants to know of a post, and return how it ended."""
    try:
        way = Walk(post, plan, ask)
    except PostError as error:
        return Outcome(post.id, plan.task, plan.sample, "failed", str(error))
    if way.text is None and way.picture is None and way.description is None:
        return way.end("failed", "the post has a picture alone, and pictures are not sent")
    return await _WAYS[plan.task](way)


async def _intentions(way: Walk) -> Outcome:
    if way.plan.order == "one-call":
        return await _in_one_call(way)
    if way.plan.order == "student":
        return await _in_student_words(way)
    row = await _describe(way, way.plan.vision or way.plan.model)
    if row is not None and way.text is None and row.status != "ok":
        return _ended(way, row)
    row, keys = await way.put("key_information", "key-information", answers.Keys)
    told = _told(keys) if keys else None
    if way.plan.order == "per-stage":
        row, _ = await way.put("intentions", "intentions", answers.Ten, keys=told)
        return _ended(way, row)
    return await _ten(way, "relation", told)


async def _in_student_words(way: Walk) -> Outcome:
    """Ask a student, which was taught one short question and no other."""
    return await _ten(way, "student", None)


async def _ten(way: Walk, name: str, keys: str | None) -> Outcome:
    rows = await _together(*(_relation(way, relation, name, keys) for relation in ORDER))
    bad = [row for row in rows if row.status != "ok"]
    if len(bad) == len(rows):
        return _ended(way, bad[0])
    return way.end("ok", f"{len(bad)} of {len(rows)} relations missing" if bad else "")


async def _in_one_call(way: Walk) -> Outcome:
    if way.plan.vision:
        row = await _describe(way, way.plan.vision)
        if row is not None and way.text is None and row.status != "ok":
            return _ended(way, row)
    shown = None if way.plan.vision else way.picture
    if shown is not None:
        way.description = None  # the model is to describe what it sees itself
    answer = answers.Thought if shown is None else answers.Seen
    row, _ = await way.put("one_call", "one-call", answer, shown=shown)
    return _ended(way, row)


async def _describe(way: Walk, model: str) -> Row | None:
    """Have the picture described, unless there is none or it is described already."""
    if way.picture is None or (way.description and not way.plan.vision):
        return None
    way.description = None
    row, found = await way.put(
        "description", "describe", answers.Described, shown=way.picture, model=model
    )
    if found is not None:
        way.description = str(found.description)  # type: ignore[attr-defined]
    return row


async def _relation(way: Walk, relation: Relation, name: str, keys: str | None) -> Row:
    row, _ = await way.put(
        relation,
        name,
        answers.Intended,
        keys=keys,
        stem=STEMS[relation],
        meaning=MEANINGS[relation],
    )
    return row


async def _rationale(way: Walk) -> Outcome:
    named = ", ".join(flat(way.post.label))
    if not named:
        return way.end("failed", "a rationale explains a label, and the post has none")
    shown = await _shown(way)
    row, _ = await way.put(
        "rationale", "rationale", answers.Reasoned, shown=shown, saw_label=True, label=named
    )
    return _ended(way, row)


async def _debate(way: Walk) -> Outcome:
    shown = await _shown(way)
    rows = await _together(*(_side(way, label, shown) for label in way.plan.labels))
    return _ended(way, next((row for row in rows if row.status != "ok"), rows[0]))


async def _side(way: Walk, label: str, shown: Picture | None) -> Row:
    row, _ = await way.put(f"debate {label}", "debate", answers.Reasoned, shown=shown, label=label)
    return row


async def _together(*questions: Awaitable[Row]) -> list[Row]:
    """Ask at once what does not depend on each other; all are over before an error is raised."""
    rows = await asyncio.gather(*questions, return_exceptions=True)
    for row in rows:
        if isinstance(row, BaseException):
            raise row
    return [row for row in rows if isinstance(row, Row)]


async def _shown(way: Walk) -> Picture | None:
    """Return the picture for a model that is shown it, having it described for one that is not."""
    if way.plan.vision:
        await _describe(way, way.plan.vision)
        return None
    return way.picture


def _ended(way: Walk, row: Row) -> Outcome:
    assert row.status is not None
    return way.end(row.status, row.reason)


def _told(keys: Answer) -> str:
    return json.dumps(keys.model_dump(), ensure_ascii=False)


_WAYS: Mapping[str, Callable[[Walk], Awaitable[Outcome]]] = {
    "intentions": _intentions,
    "rationale": _rationale,
    "debate": _debate,
}
