"""A knowledge base in figures."""

import asyncio
import io
import json
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median

import pytest
from rich.console import Console

from miko_clf.data.post import RELATIONS, Post
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.query import iterate_knowledge
from miko_clf.distil.kb.stats import (
    BitSet,
    DistinctCounter,
    KnowledgeStats,
    compute_knowledge_stats,
    make_stats_tables,
)
from miko_clf.distil.kb.store import JudgeScore, KnowledgeBase, open_for_reading
from miko_clf.distil.relations import strip_relation_stem
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from tests.support.filled_kb import Says, fill_kb, make_reply, make_up_answer

POSTS = [
    Post(id=f"p{n:02}", text=f"Sunny day number {n} at the lake", label=("good", "bad")[n % 2])
    for n in range(12)
]


def fill(path: Path, posts: list[Post], says: Says = make_up_answer) -> Path:
    asyncio.run(fill_kb(path, posts, JobPlan("intentions", "teacher"), says))
    return path


def refusing(*names: str) -> Says:
    def says(call: Request) -> Response:
        refused = any(f"number {name} " in call.turns[1].text for name in names)
        return (
            make_reply("", status="refused", reason="content_filter")
            if refused
            else make_up_answer(call)
        )

    return says


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve posts, of which the fourth, bad, was refused."""
    return fill(tmp_path_factory.mktemp("kb") / "kb.sqlite", POSTS, refusing("3"))


def test_figures_count_what_is_kept_refused_and_sieved(tmp_path: Path):
    def says(call: Request) -> Response:
        if "number 3 " in call.turns[1].text:
            return make_reply("", status="refused", reason="content_filter")
        raw = json.loads(make_up_answer(call).raw)
        if "number 5 " in call.turns[1].text:
            raw["intentions"]["oWant"] = "PersonX wants some more cake"
        return make_reply(json.dumps(raw))

    found = compute_knowledge_stats(
        open_for_reading(fill(tmp_path / "kb.sqlite", POSTS, says=says))
    )
    by_name = {each.relation: each for each in found.relations}
    assert [each.relation for each in found.relations] == [*RELATIONS, "all"]
    want, whole = by_name["oWant"], by_name["all"]
    assert (want.asked, want.kept, want.refused, want.sieved) == (12, 10, 0.0833, {"PersonX": 1})
    assert (whole.asked, whole.kept, whole.judged, whole.valid) == (120, 109, 0, None)
    assert found.tasks == {"intentions": {"ok": 11, "refused": 1}}
    assert found.refusals == {"intentions": {"bad": (1, 6), "good": (0, 6)}}
    [bill] = found.bills
    assert (bill.model, bill.calls, bill.prompt_tokens, bill.cached_share) == (
        "teacher", 12, 1200, 0.4,
    )  # fmt: skip
    assert bill.usd == 3.0
    assert KnowledgeStats.model_validate_json(found.model_dump_json()) == found


def test_words_are_counted_exactly(kb: Path):
    texts = [
        each.text
        for one in iterate_knowledge(open_for_reading(kb))
        for each in one.intentions
        if each.relation == "xWant"
    ]
    own = [strip_relation_stem("xWant", text).lower().rstrip(".").split() for text in texts]
    pairs = [pair for words in own for pair in pairwise(words)]
    every = [word for words in own for word in words]
    found = next(
        each
        for each in compute_knowledge_stats(open_for_reading(kb)).relations
        if each.relation == "xWant"
    )
    lengths = [len(text.split()) for text in texts]
    assert found.words_mean == round(sum(lengths) / len(lengths), 2)
    assert found.words_median == median(lengths)
    assert found.distinct_1 == round(len(set(every)) / len(every), 4)
    assert found.distinct_2 == round(len(set(pairs)) / len(pairs), 4)


def test_valid_shares_have_wilson_intervals_and_posts_as_units_over_all(tmp_path: Path):
    kb = fill(tmp_path / "kb.sqlite", POSTS[:10])
    with KnowledgeBase(kb) as store:
        scores = [
            JudgeScore(post.id, name, 0, "human:x", float(n < 8), None)
            for n, post in enumerate(POSTS[:10])
            for name in RELATIONS
        ]
        asyncio.run(store.put_scores(scores))
    found = compute_knowledge_stats(open_for_reading(kb)).relations
    assert (found[0].valid, found[0].judged) == (0.8, 10)
    assert found[0].valid_interval == (0.4902, 0.9433)  # Wilson's, 8 of 10
    assert found[-1].judged == 100
    low, high = found[-1].valid_interval or (0, 0)
    assert (low, high) == (pytest.approx(0.5387, abs=1e-3), 1.0)  # ten posts, not 100 intentions


def test_refusals_of_several_classes_count_for_each(tmp_path: Path):
    posts = [Post(id="a", text="Day number 1 here", label=("x", "y")), Post(id="b", text="hello")]
    found = compute_knowledge_stats(
        open_for_reading(fill(tmp_path / "kb.sqlite", posts, says=refusing("1")))
    )
    assert found.refusals == {"intentions": {"no label": (0, 1), "x": (1, 1), "y": (1, 1)}}


def test_tables_say_the_figures(kb: Path):
    console = Console(width=200, file=io.StringIO(), record=True)
    for table in make_stats_tables(compute_knowledge_stats(open_for_reading(kb))):
        console.print(table)
    text = console.export_text()
    assert "12 posts" in text
    assert all(name in text for name in (*RELATIONS, "distinct-2", "refusals by class", "teacher"))


def test_different_words_are_estimated_within_a_thousandth_in_two_mebibytes():
    random = Random(0)
    bits = BitSet()
    words = {f"{random.randrange(4000)} {random.randrange(4000)}" for _ in range(150_000)}
    for word in words:
        bits.add(word)
        bits.add(word)
    assert bits.different == pytest.approx(len(words), rel=0.001)
    assert bits.total == 2 * len(words)
    assert len(bits.bits) == 2 << 20


def test_what_two_have_counted_is_joined_without_counting_twice():
    one, other = DistinctCounter(), DistinctCounter()
    one.add("the red barn")
    other.add("The red door")
    one.join(other)
    assert (one.ones.different, one.ones.total) == (4, 6)
    assert (one.twos.different, one.twos.total) == (3, 4)
    assert DistinctCounter().ones.share is None
