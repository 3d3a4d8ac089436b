"""MIKO's two questions about each intention, put to an LLM: is it plausible, is it typical."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from miko_clf.data.post import Post
from miko_clf.distil.answer import Answer, judgement
from miko_clf.distil.privacy import mask
from miko_clf.distil.shelf import Outcome, Row, Score
from miko_clf.distil.tasks import Ask, Plan, Walk
from miko_clf.errors import PostError

REPEAT = 0.05  # the share of posts that are judged twice
_WARMTH = 0.7  # of the second opinion: at 0 a model would only repeat itself

Keep = Callable[[Sequence[Score]], Awaitable[None]]


async def judge(post: Post, plan: Plan, ask: Ask, keep: Keep, repeat: float = REPEAT) -> Outcome:
    """Have all intentions of a post judged in one call, keep the scores, return how it ended.

    A share `repeat` of the posts, drawn by their ids, is judged once more by another seed, at a
    temperature of 0.7 unless the plan sets one; those scores carry the name `second(judge)`.
    `plan.sample` is the sample of the intentions, and of the scores. How the second opinion ends
    changes nothing for the post.
    """
    if post.image == b"":  # only the file that it came from holds it
        post = post.model_copy(update={"image": None})
    try:
        way = Walk(post, replace(plan, sample=0), ask)
    except PostError as error:
        return Outcome(post.id, plan.task, plan.sample, "failed", str(error))
    if fault := _unfit(way):
        return way.end("failed", fault)._replace(sample=plan.sample)
    row, found = await _asked(way, "judge")
    name = judge_name(row.model)
    scores = _scores(post, plan, name, found)
    if scores and drawn(post.id, repeat):
        other = Walk(post, _another(plan), ask)
        row_again, found = await _asked(other, "judge again")
        if row_again.model == row.model:
            scores += _scores(post, plan, second(name), found)
        way.uses += other.uses
        way.rows |= other.rows
    await keep(scores)
    assert row.status is not None
    return way.end(row.status, row.reason)._replace(sample=plan.sample)


def judge_name(model: str) -> str:
    """Return the name under which a model's scores are kept."""
    return f"llm:{model}"


def second(judge: str) -> str:
    """Return the name under which a judge's second opinion is kept."""
    return f"again:{judge}"


def statements(post: Post) -> dict[str, str]:
    """Return the intentions of a post by key: the relation, numbered from the second on."""
    found: dict[str, str] = {}
    for each in post.intentions:
        key, number = str(each.relation), 2
        while key in found:
            key, number = f"{each.relation}_{number}", number + 1
        found[key] = " ".join(each.text.split())
    return found


def drawn(name: str, share: float) -> bool:
    """Say whether a post is among a share of all posts, always the same ones."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") < share * 2**64


async def _asked(way: Walk, stage: str) -> tuple[Row, Answer | None]:
    """Ask the two questions of every intention; a picture is shown where no words describe it."""
    told = statements(way.post)
    listed = "\n".join(f"{key}: {text}" for key, text in told.items())
    return await way.put(
        stage,
        "judge",
        judgement(tuple(told)),
        shown=None if way.description else way.picture,
        statements=mask(listed) if way.plan.masked else listed,
    )


def _unfit(way: Walk) -> str:
    """Return why a post cannot be judged, if it cannot."""
    if not way.post.intentions:
        return "the post carries no intentions to judge"
    if way.text is None and way.picture is None and way.description is None:
        return "the post has a picture alone, and pictures are not sent"
    return ""


def _scores(post: Post, plan: Plan, judge: str, found: Answer | None) -> list[Score]:
    """Return verdicts as scores in 0..1; none where the answer could not be read."""
    verdicts: dict[str, Any] = found.model_dump() if found else {}
    return [
        Score(
            post.id,
            key,
            plan.sample,
            judge,
            float(verdict["plausible"]),
            (verdict["typicality"] - 1) / 4,
        )
        for key, verdict in verdicts.items()
    ]


def _another(plan: Plan) -> Plan:
    warmth = _WARMTH if plan.temperature is None else plan.temperature
    return replace(plan, sample=1, seed=(plan.seed or 0) + 1, temperature=warmth)
