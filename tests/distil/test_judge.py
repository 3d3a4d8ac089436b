"""A judge is asked MIKO's two questions of every intention, and twice of some."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from miko_clf.data.post import Intention, Post
from miko_clf.distil.agreement import (
    match_judges,
    measure_agreements,
    name_second_opinion,
    warn_of_own_work,
)
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.judge import (
    JudgeRunner,
    is_drawn,
    judge_knowledge_base,
    list_statements,
)
from miko_clf.distil.kb.store import JudgeScore, KnowledgeBase
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.scheduler import RunTally
from miko_clf.distil.schemas import RELATION_ORDER, make_wire_schema
from tests.support.filled_kb import make_rows, make_scheduler

PLAN = JobPlan("judge", "critic-1")


def post(name: str = "p", *relations: str, **given: Any) -> Post:
    told = [Intention(relation=each, text=f"they {each} it") for each in relations or ("xNeed",)]  # type: ignore[arg-type]
    return Post(id=name, intentions=tuple(told), **{"text": "a cold meal", **given})


def keys(call: Request) -> list[str]:
    return list(make_wire_schema(call.answer)["properties"])


class Pretender:
    """Answers as a judge does, and remembers what it was asked."""

    def __init__(self, plausible: bool = True, typicality: int = 4) -> None:
        self.verdict = {"plausible": plausible, "typicality": typicality}
        self.asked: list[Request] = []
        self.says: list[str] = []

    async def send(self, call: Request) -> Response:
        self.asked.append(call)
        if self.says:
            return Response(self.says.pop(0))
        if "plausible" not in json.dumps(make_wire_schema(call.answer)):
            return Response(json.dumps(_thought()))
        return Response(json.dumps(dict.fromkeys(keys(call), self.verdict)))

    async def close(self) -> None:
        pass


def _thought() -> dict[str, Any]:
    told = ("concept", "action", "object", "emotion")
    return {
        "key_information": {**dict.fromkeys(told, "x"), "keywords": ["x"]},
        "intentions": dict.fromkeys(RELATION_ORDER, "to be kind"),
    }


def judged(
    kb: Path,
    posts: Sequence[Post],
    pretender: Pretender,
    plan: JobPlan = PLAN,
    repeat: float = 0.0,
) -> RunTally:
    async def run() -> RunTally:
        with KnowledgeBase(kb) as store:
            runner = JudgeRunner(plan, store, repeat)
            scheduler = make_scheduler(store, pretender, runner, width=4)
            return await scheduler.run(make_rows(posts, store.run))

    return asyncio.run(run())


def made(kb: Path, plan: JobPlan) -> None:
    """Have the intentions of one post written."""

    async def run() -> None:
        with KnowledgeBase(kb) as store:
            scheduler = make_scheduler(store, Pretender(), JobRunner(plan), width=1)
            await scheduler.run(make_rows([Post(id="p", text="x")], store.run))

    asyncio.run(run())


def scores(kb: Path) -> list[tuple[Any, ...]]:
    with KnowledgeBase(kb) as store:
        return store.db.execute("SELECT * FROM scores ORDER BY post, relation, judge").fetchall()


def keep(kb: Path, *found: JudgeScore) -> None:
    with KnowledgeBase(kb) as store:
        asyncio.run(store.put_scores(found))


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


def test_one_call_judges_all_intentions_of_a_post(kb: Path) -> None:
    pretender = Pretender()
    pretender.says = [
        json.dumps(
            {
                "xNeed": {"plausible": True, "typicality": 5},
                "Open": {"plausible": False, "typicality": 1},
                "oWant": {"plausible": True, "typicality": 3},
            }
        )
    ]
    tally = judged(kb, [post("p", "xNeed", "Open", "oWant")], pretender)
    assert tally.posts == {"ok": 1}
    (call,) = pretender.asked
    assert keys(call) == ["xNeed", "Open", "oWant"]
    assert "xNeed: they xNeed it\nOpen: they Open it\noWant: they oWant it" in call.turns[1].text
    assert scores(kb) == [
        ("p", "Open", 0, "llm:critic-1", 0.0, 0.0),
        ("p", "oWant", 0, "llm:critic-1", 1.0, 0.5),
        ("p", "xNeed", 0, "llm:critic-1", 1.0, 1.0),
    ]


def test_several_intentions_of_one_relation_are_judged_each(kb: Path) -> None:
    told = post("p", "xNeed", "xNeed", "xWant", "xNeed")
    assert list(list_statements(told)) == ["xNeed", "xNeed_2", "xWant", "xNeed_3"]
    judged(kb, [told], Pretender())
    assert [row[1] for row in scores(kb)] == ["xNeed", "xNeed_2", "xNeed_3", "xWant"]


def test_scores_are_of_the_sample_whose_intentions_are_judged(kb: Path) -> None:
    pretender = Pretender()
    judged(kb, [post()], pretender, JobPlan("judge", "critic-1", sample=-1, seed=3), repeat=1.0)
    assert {row[2] for row in scores(kb)} == {-1}
    assert [call.index for call in pretender.asked] == [0, 1]
    with KnowledgeBase(kb) as store:
        assert store.db.execute("SELECT task, sample FROM outcomes").fetchall() == [("judge", -1)]


def test_a_share_of_the_posts_is_judged_again_by_another_seed(kb: Path) -> None:
    posts = [post(f"p{i}", text=f"number {i}") for i in range(200)]
    pretender = Pretender()
    judged(kb, posts, pretender, repeat=0.2)
    again = [call for call in pretender.asked if call.stage == "judge again"]
    assert len(again) == sum(is_drawn(each.id, 0.2) for each in posts)
    assert 20 <= len(again) <= 60
    assert {call.index for call in again} == {1}
    assert {call.sampling.seed for call in again} == {1}
    assert {call.sampling.temperature for call in again} == {0.7}
    names = {row[3] for row in scores(kb)}
    assert names == {"llm:critic-1", name_second_opinion("llm:critic-1")}


def test_judging_again_from_the_start_asks_nothing(kb: Path) -> None:
    posts = [post(f"p{i}", text=f"number {i}") for i in range(20)]
    judged(kb, posts, Pretender(), repeat=0.5)
    before = scores(kb)
    pretender = Pretender(plausible=False)
    tally = judged(kb, posts, pretender, repeat=0.5)
    assert pretender.asked == []
    assert tally.posts == {"ok": 20}
    assert scores(kb) == before


def test_an_answer_that_leaves_a_statement_out_is_asked_again_and_leaves_no_score(
    kb: Path,
) -> None:
    pretender = Pretender()
    half = json.dumps({"xNeed": pretender.verdict})
    pretender.says = [half, half]
    tally = judged(kb, [post("p", "xNeed", "xWant")], pretender)
    assert tally.posts == {"invalid": 1}
    assert len(pretender.asked) == 2
    assert scores(kb) == []


def test_a_typicality_beyond_the_scale_is_no_verdict(kb: Path) -> None:
    assert judged(kb, [post()], Pretender(typicality=6)).posts == {"invalid": 1}


def test_a_post_without_intentions_is_not_sent(kb: Path) -> None:
    pretender = Pretender()
    assert judged(kb, [Post(id="p", text="x")], pretender).posts == {"failed": 1}
    assert pretender.asked == []


def test_the_picture_is_shown_where_no_words_describe_it(kb: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    pretender = Pretender()
    bare = post("a", image=tmp_path / "a.png")
    judged(kb, [bare, post("b", image=tmp_path / "a.png", description="a dog")], pretender)
    shown = {call.turns[1].picture is not None: call for call in pretender.asked}
    assert "a dog" in shown[False].turns[1].text
    assert "a dog" not in shown[True].turns[1].text


def test_what_is_private_in_a_statement_is_masked(kb: Path) -> None:
    pretender = Pretender()
    told = Intention(relation="xNeed", text="they need to write to ann@example.org")
    judged(kb, [Post(id="p", text="x", intentions=(told,))], pretender)
    assert "ann@example.org" not in pretender.asked[0].turns[1].text


def test_what_is_said_of_a_knowledge_base_belongs_to_the_sample_that_was_read(kb: Path) -> None:
    made(kb, JobPlan("intentions", "writer", sample=3))
    judge_knowledge_base(kb, PLAN, Pretender(), repeat=1.0)
    assert {row[2:4] for row in scores(kb)} == {(3, "llm:critic-1"), (3, "again:llm:critic-1")}


def test_a_picture_that_only_a_file_elsewhere_holds_is_not_shown(kb: Path) -> None:
    pretender = Pretender()
    assert judged(kb, [post(image=b"")], pretender).posts == {"ok": 1}
    assert pretender.asked[0].turns[1].picture is None


def test_agreement_with_itself_counts_both_opinions(kb: Path) -> None:
    first, again = "llm:m", name_second_opinion("llm:m")
    opinions = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)]
    for number, (one, other) in enumerate(opinions):
        keep(kb, JudgeScore(f"p{number}", "Open", 0, first, one, 0.5))
        keep(kb, JudgeScore(f"p{number}", "Open", 0, again, other, 0.75 if number else 0.5))
    keep(kb, JudgeScore("p9", "Open", 0, first, 1.0, 1.0))
    with KnowledgeBase(kb) as store:
        (found,) = measure_agreements(store.db)
    assert (found.one, found.other) == (first, again)
    assert found.plausibility.units == 4
    assert found.plausibility.raw == 0.75
    # Two values, 5 of 8 ratings positive: chance is 2 * (5/8) * (3/8).
    chance = 2 * 5 / 8 * 3 / 8
    assert found.plausibility.ac1 == pytest.approx((0.75 - chance) / (1 - chance), abs=1e-4)
    assert found.typicality is not None
    assert found.typicality.raw == 0.25
    assert "raw 0.750" in found.line()


def test_agreement_with_people_is_by_post_relation_and_sample(kb: Path) -> None:
    keep(
        kb,
        JudgeScore("p", "Open", -1, "human:published", 0.9, None),
        JudgeScore("p", "xNeed", -1, "human:published", 0.1, None),
        JudgeScore("p", "Open", -1, "llm:m", 1.0, 0.5),
        JudgeScore("p", "xNeed", -1, "llm:m", 1.0, 0.5),
        JudgeScore("p", "xNeed", 0, "llm:m", 0.0, 0.5),
        JudgeScore("p", "Open", -1, name_second_opinion("llm:m"), 1.0, 0.5),
    )
    with KnowledgeBase(kb) as store:
        _, found = measure_agreements(store.db)
        assert match_judges(store.db, "llm:m", "human:nobody") is None
    assert (found.one, found.other) == ("llm:m", "human:published")
    assert (found.plausibility.units, found.plausibility.raw) == (2, 0.5)
    assert found.typicality is None


def test_a_judge_of_its_own_work_is_warned_about(kb: Path) -> None:
    made(kb, JobPlan("intentions", "writer"))
    judged(kb, [post()], Pretender(), JobPlan("judge", "critic-1"))
    with KnowledgeBase(kb) as store:
        assert warn_of_own_work(store.db, "writer").startswith("writer wrote 1 of the answers")
        assert warn_of_own_work(store.db, "critic-1") == ""
