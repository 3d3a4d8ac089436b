"""An LLM as judge: MIKO's two questions about each intention of a knowledge base."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.distil.agreement import name_second_opinion, warn_of_own_work
from miko_clf.distil.client import Sender
from miko_clf.distil.jobs import Asker, JobPlan, JobRunner, PostJob
from miko_clf.distil.kb.query import iterate_knowledge
from miko_clf.distil.kb.store import CallRow, JobOutcome, JudgeScore, KnowledgeBase, PlacedPosts
from miko_clf.distil.request import mask_identities
from miko_clf.distil.run import DistilRun, RunTerms
from miko_clf.distil.scheduler import ESTIMATE_POSTS, RunTally
from miko_clf.distil.schemas import AnswerSchema, make_judge_schema
from miko_clf.errors import PostError
from miko_clf.progress import print_notice

REPEAT_SHARE = 0.05  # the share of posts that are judged twice
_SECOND_TEMPERATURE = 0.7  # at 0 a model would only repeat itself


@dataclass(frozen=True)
class JudgeRunner(JobRunner):
    """Has all intentions of a post judged in one call, and keeps the scores in `store`, if any.

    A share `repeat` of the posts, drawn by their ids, is judged once more by another seed, at a
    temperature of 0.7 unless the plan sets one; those scores carry the name `again:JUDGE`. Scores
    belong to the sample of the intentions: that of `samples` by post, else that of the plan.
    """

    store: KnowledgeBase | None = None
    repeat: float = REPEAT_SHARE
    samples: MutableMapping[str, int] = field(default_factory=dict)

    async def run(self, post: Post, asker: Asker) -> JobOutcome:
        """Ask the judge; how a second opinion ends changes nothing for the post."""
        sample = self.samples.pop(post.id, self.plan.sample)
        if post.image == b"":  # only the file that it came from holds it
            post = post.model_copy(update={"image": None})
        try:
            if not post.intentions:
                raise PostError("the post carries no intentions to judge")
            job = PostJob(post, replace(self.plan, sample=0), asker)
        except PostError as error:
            return JobOutcome(post.id, self.plan.job, sample, "failed", str(error))
        row, answer = await _ask_judge(job, "judge")
        name = f"llm:{row.model}"
        scores = _score(post.id, sample, name, answer)
        if scores and is_drawn(post.id, self.repeat):
            again = replace(self.plan, sample=1, seed=(self.plan.seed or 0) + 1)
            if again.temperature is None:
                again = replace(again, temperature=_SECOND_TEMPERATURE)
            other = PostJob(post, again, asker)
            row_again, answer = await _ask_judge(other, "judge again")
            if row_again.model == row.model:
                scores += _score(post.id, sample, name_second_opinion(name), answer)
            job.uses += other.uses
            job.rows |= other.rows
        if self.store is not None:
            await self.store.put_scores(scores)
        return job.end_like(row)._replace(sample=sample)


def list_statements(post: Post) -> dict[str, str]:
    """Return the intentions of a post by key: the relation, numbered from the second on."""
    statements: dict[str, str] = {}
    for intention in post.intentions:
        key, number = str(intention.relation), 2
        while key in statements:
            key, number = f"{intention.relation}_{number}", number + 1
        statements[key] = " ".join(intention.text.split())
    return statements


def is_drawn(name: str, share: float) -> bool:
    """Say whether a post is among a share of all posts, always the same ones."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") < share * 2**64


async def _ask_judge(job: PostJob, stage: str) -> tuple[CallRow, AnswerSchema | None]:
    """Ask the two questions of every intention; a picture is shown where no words describe it."""
    statements = list_statements(job.post)
    text = "\n".join(f"{key}: {statement}" for key, statement in statements.items())
    return await job.put(
        stage,
        "judge",
        make_judge_schema(tuple(statements)),
        picture=None if job.description else job.picture,
        statements=mask_identities(text) if job.plan.masked else text,
    )


def _score(post: str, sample: int, judge: str, answer: AnswerSchema | None) -> list[JudgeScore]:
    """Return verdicts as scores in 0..1; none where the answer could not be read."""
    verdicts: dict[str, Any] = answer.model_dump() if answer else {}
    return [
        JudgeScore(post, key, sample, judge, float(mark["plausible"]), (mark["typicality"] - 1) / 4)
        for key, mark in verdicts.items()
    ]


def judge_knowledge_base(
    kb: Path,
    plan: JobPlan,
    sender: Sender,
    terms: RunTerms | None = None,
    *,
    repeat: float = REPEAT_SHARE,
) -> RunTally:
    """Have every intention of a knowledge base judged, and keep what the judge says.

    What was judged already is not asked again. Raises what `run.distil_posts` raises.
    """
    return asyncio.run(_judge_knowledge_base(kb, plan, sender, terms or RunTerms(), repeat))


async def _judge_knowledge_base(
    kb: Path, plan: JobPlan, sender: Sender, terms: RunTerms, repeat: float
) -> RunTally:
    try:
        with KnowledgeBase(kb) as store:
            if warning := warn_of_own_work(store.db, plan.model):
                print_notice(warning)
            first = [post for post, _ in islice(_load_posts(store, {}), ESTIMATE_POSTS)]
            total = sum(1 for _ in _load_posts(store, {}))
            run = DistilRun(store, JudgeRunner(plan, None, repeat), sender, terms)
            await run.prepare(first, total)
            if terms.dry:
                return RunTally()
            run.runner = runner = JudgeRunner(plan, store, repeat)
            return await run.send(_load_posts(store, runner.samples), total)
    finally:
        await sender.close()


def _load_posts(store: KnowledgeBase, samples: MutableMapping[str, int]) -> PlacedPosts:
    """Yield posts that carry intentions, and note in `samples` which sample of them it is."""
    for knowledge in iterate_knowledge(store.db):
        row = store.get_post(knowledge.post.id)
        if knowledge.intentions and knowledge.sample is not None and row is not None:
            samples[knowledge.post.id] = knowledge.sample
            yield knowledge.filled(), row
