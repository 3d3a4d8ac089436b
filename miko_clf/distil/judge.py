"""An LLM as judge: MIKO's two questions about each intention of a knowledge base."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.distil.agreement import name_second_opinion, warn_of_own_work
from miko_clf.distil.budget import BudgetLedger
from miko_clf.distil.client import Sender, TeacherClient
from miko_clf.distil.jobs import AskRequest, JobPlan, PostJob
from miko_clf.distil.kb.query import KnowledgeChoice, iterate_knowledge
from miko_clf.distil.kb.store import CallRow, JobOutcome, JudgeScore, KnowledgeBase, PostRow
from miko_clf.distil.request import mask_identities
from miko_clf.distil.run import RunTerms, probe_models, run_scheduler
from miko_clf.distil.scheduler import ESTIMATE_POSTS, RunPost, RunTally, estimate_cost
from miko_clf.distil.schemas import AnswerSchema, make_judge_schema
from miko_clf.errors import PostError
from miko_clf.progress import print_notice

REPEAT_SHARE = 0.05  # the share of posts that are judged twice
_WARMTH = 0.7  # of the second opinion: at 0 a model would only repeat itself

KeepScores = Callable[[Sequence[JudgeScore]], Awaitable[None]]


async def judge_post(
    post: Post, plan: JobPlan, ask: AskRequest, keep: KeepScores, repeat: float = REPEAT_SHARE
) -> JobOutcome:
    """Have all intentions of a post judged in one call, keep the scores, return how it ended.

    A share `repeat` of the posts, drawn by their ids, is judged once more by another seed, at a
    temperature of 0.7 unless the plan sets one; those scores carry the name `second(judge)`.
    `plan.sample` is the sample of the intentions, and of the scores. How the second opinion ends
    changes nothing for the post.
    """
    if post.image == b"":  # only the file that it came from holds it
        post = post.model_copy(update={"image": None})
    try:
        way = PostJob(post, replace(plan, sample=0), ask)
    except PostError as error:
        return JobOutcome(post.id, plan.task, plan.sample, "failed", str(error))
    if fault := _find_obstacle(way):
        return way.end("failed", fault)._replace(sample=plan.sample)
    row, found = await _ask_judge(way, "judge")
    name = name_judge(row.model)
    scores = _make_scores(post, plan, name, found)
    if scores and is_drawn(post.id, repeat):
        other = PostJob(post, _plan_second_opinion(plan), ask)
        row_again, found = await _ask_judge(other, "judge again")
        if row_again.model == row.model:
            scores += _make_scores(post, plan, name_second_opinion(name), found)
        way.uses += other.uses
        way.rows |= other.rows
    await keep(scores)
    assert row.status is not None
    return way.end(row.status, row.reason)._replace(sample=plan.sample)


def name_judge(model: str) -> str:
    """Return the name under which a model's scores are kept."""
    return f"llm:{model}"


def list_statements(post: Post) -> dict[str, str]:
    """Return the intentions of a post by key: the relation, numbered from the second on."""
    found: dict[str, str] = {}
    for each in post.intentions:
        key, number = str(each.relation), 2
        while key in found:
            key, number = f"{each.relation}_{number}", number + 1
        found[key] = " ".join(each.text.split())
    return found


def is_drawn(name: str, share: float) -> bool:
    """Say whether a post is among a share of all posts, always the same ones."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") < share * 2**64


async def _ask_judge(way: PostJob, stage: str) -> tuple[CallRow, AnswerSchema | None]:
    """Ask the two questions of every intention; a picture is shown where no words describe it."""
    told = list_statements(way.post)
    listed = "\n".join(f"{key}: {text}" for key, text in told.items())
    return await way.put(
        stage,
        "judge",
        make_judge_schema(tuple(told)),
        shown=None if way.description else way.picture,
        statements=mask_identities(listed) if way.plan.masked else listed,
    )


def _find_obstacle(way: PostJob) -> str:
    """Return why a post cannot be judged, if it cannot."""
    if not way.post.intentions:
        return "the post carries no intentions to judge"
    if way.text is None and way.picture is None and way.description is None:
        return "the post has a picture alone, and pictures are not sent"
    return ""


def _make_scores(
    post: Post, plan: JobPlan, judge: str, found: AnswerSchema | None
) -> list[JudgeScore]:
    """Return verdicts as scores in 0..1; none where the answer could not be read."""
    verdicts: dict[str, Any] = found.model_dump() if found else {}
    return [
        JudgeScore(
            post.id,
            key,
            plan.sample,
            judge,
            float(verdict["plausible"]),
            (verdict["typicality"] - 1) / 4,
        )
        for key, verdict in verdicts.items()
    ]


def _plan_second_opinion(plan: JobPlan) -> JobPlan:
    warmth = _WARMTH if plan.temperature is None else plan.temperature
    return replace(plan, sample=1, seed=(plan.seed or 0) + 1, temperature=warmth)


def judge_knowledge_base(
    kb: Path,
    plan: JobPlan,
    sender: Sender,
    terms: RunTerms | None = None,
    *,
    repeat: float = REPEAT_SHARE,
) -> RunTally:
    """Have every intention of a knowledge base judged, and keep what the judge says.

    What was judged already is not asked again. Raises what `run.gather` raises.
    """
    return asyncio.run(_judge_knowledge_base(kb, plan, sender, terms or RunTerms(), repeat))


async def _judge_knowledge_base(
    kb: Path, plan: JobPlan, sender: Sender, terms: RunTerms, repeat: float
) -> RunTally:
    try:
        with KnowledgeBase(kb) as shelf:
            if warning := warn_of_own_work(shelf.db, plan.model):
                print_notice(warning)
            ledger = BudgetLedger(
                terms.prices, plan.models, budget=terms.budget, spent=shelf.spent()
            )
            first = [post for post, _ in islice(_load_posts(shelf, {}), ESTIMATE_POSTS)]
            total = sum(1 for _ in _load_posts(shelf, {}))
            samples: dict[str, int] = {}
            if terms.probe and isinstance(sender, TeacherClient):
                await probe_models(sender, plan, shelf, ledger, first)
            pretended = _make_runner(plan, repeat, None, {})
            print_notice((await estimate_cost(first, pretended, ledger, plan.models, total)).line())
            if terms.dry:
                return RunTally()
            run = partial(run_scheduler, width=terms.width, total=total, title="judge")
            way = _make_runner(plan, repeat, shelf, samples)
            return await run(shelf, _load_posts(shelf, samples), way, sender, ledger)
    finally:
        await sender.close()


def _make_runner(
    plan: JobPlan, repeat: float, shelf: KnowledgeBase | None, samples: dict[str, int]
) -> RunPost:
    """Return the way of a post; what is said of it belongs to the sample that was read."""

    async def keep(scores: object) -> None:
        if shelf is not None:
            await shelf.score(scores)  # type: ignore[arg-type]

    async def way(post: Post, ask: AskRequest) -> JobOutcome:
        of = replace(plan, sample=samples.pop(post.id, plan.sample))
        return await judge_post(post, of, ask, keep, repeat)

    return way


def _load_posts(shelf: KnowledgeBase, samples: dict[str, int]) -> Iterator[tuple[Post, PostRow]]:
    """Yield posts that carry intentions, and note in `samples` which sample of them it is."""
    for known in iterate_knowledge(shelf.db, KnowledgeChoice(sample=None)):
        row = shelf.post(known.post.id)
        if known.intentions and known.sample is not None and row is not None:
            samples[known.post.id] = known.sample
            yield known.filled(), row
