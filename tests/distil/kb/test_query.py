"""What is made of the answers that a knowledge base keeps."""

import asyncio
import json
from pathlib import Path

import pytest

from miko_clf.data.post import RELATIONS, Post
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.query import (
    KnowledgeChoice,
    PostKnowledge,
    iterate_knowledge,
    load_knowledge,
)
from miko_clf.distil.kb.store import JudgeScore, KnowledgeBase, open_for_reading
from miko_clf.distil.relations import RELATION_STEMS
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.errors import DistilError
from tests.support.filled_kb import Says, fill_kb, make_reply, make_up_answer

POSTS = [
    Post(id=f"p{n}", text=f"Sunny day number {n} at the lake", label=("good", "bad")[n % 2])
    for n in range(3)
]
ONE_CALL = JobPlan("intentions", "teacher")


def fill(
    path: Path, plan: JobPlan = ONE_CALL, says: Says = make_up_answer, posts: list = POSTS
) -> Path:
    asyncio.run(fill_kb(path, posts, plan, says))
    return path


def of(path: Path, name: str = "p1", choice: KnowledgeChoice = KnowledgeChoice()) -> PostKnowledge:  # noqa: B008
    found = load_knowledge(open_for_reading(path), name, choice)
    assert found is not None
    return found


def score(path: Path, *scores: JudgeScore) -> None:
    with KnowledgeBase(path) as store:
        asyncio.run(store.put_scores(scores))


def edited(change: dict[str, str]) -> Says:
    """Return what answers with some of the ten completions changed."""

    def says(call: Request) -> Response:
        raw = json.loads(make_up_answer(call).raw)
        return make_reply(json.dumps({**raw, "intentions": {**raw["intentions"], **change}}))

    return says


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("kb") / "kb.sqlite")


@pytest.mark.parametrize("order", ["one-call", "per-stage", "per-relation"])
def test_every_order_of_asking_gives_ten_whole_sentences_and_key_information(
    order: str, tmp_path: Path
):
    one = of(fill(tmp_path / "kb.sqlite", JobPlan("intentions", "teacher", order=order)))
    assert [each.relation for each in one.intentions] == list(RELATIONS)
    assert all(each.text.startswith(RELATION_STEMS[each.relation]) for each in one.intentions)
    assert one.key_information is not None
    assert len(one.key_information.keywords) == 3
    assert one.ends["intentions"].status == "ok"
    assert one.absent == {}


def test_an_intention_says_where_it_comes_from(kb: Path):
    source = dict(of(kb).intentions[0].provenance or {})
    assert len(source.pop("sha256")) == 16
    assert source.pop("at").endswith("+00:00")
    assert source == {
        "model": "teacher",
        "answered_by": "teacher-2",
        "host": "127.0.0.1:1",
        "prompt": "one-call.1",
        "max_tokens": 900,
        "temperature": 0.7,
        "top_p": 1.0,
        "sample": 0,
        "request": "r1",
    }
    assert of(kb).models == ("teacher-2",)


def test_a_refusal_leaves_no_intention_and_says_refused(tmp_path: Path):
    path = fill(
        tmp_path / "kb.sqlite", says=lambda call: make_reply("I'm sorry, I can't help with that.")
    )
    one = of(path)
    assert one.intentions == ()
    assert one.key_information is None
    assert one.absent == dict.fromkeys(RELATIONS, "refused")
    assert one.filled().intentions == ()


def test_one_refused_relation_of_ten_is_the_only_one_absent(tmp_path: Path):
    def says(call: Request) -> Response:
        refused = call.stage == "xReact"
        return (
            make_reply("", status="refused", reason="content_filter")
            if refused
            else make_up_answer(call)
        )

    plan = JobPlan("intentions", "teacher", order="per-relation")
    one = of(fill(tmp_path / "kb.sqlite", plan, says))
    assert one.absent == {"xReact": "refused"}
    assert len(one.intentions) == 9


def test_what_the_sieve_finds_is_absent_with_its_reason(tmp_path: Path):
    change = {"xNeed": "Sunny day number 1 at the lake", "oWant": "...", "xAttr": "bad to the bone"}
    path = fill(tmp_path / "kb.sqlite", says=edited(change))
    assert of(path).absent == {"xNeed": "copy of the post", "oWant": "empty"}
    strict = of(path, choice=KnowledgeChoice(labels=("good", "bad")))
    assert strict.absent["xAttr"] == "names the label"
    assert all(each.text.strip() for each in strict.intentions)


def test_the_newest_sample_that_is_ok_counts_unless_one_is_named(tmp_path: Path):
    path = fill(tmp_path / "kb.sqlite")
    first = of(path).intentions
    fill(path, JobPlan("intentions", "teacher", sample=1))
    second = of(path)
    assert second.sample == 1
    assert second.intentions[0].text != first[0].text
    fill(
        path,
        JobPlan("intentions", "teacher", sample=2),
        lambda call: make_reply("", status="refused"),
    )
    assert of(path).sample == 1
    assert of(path, choice=KnowledgeChoice(sample=0)).intentions == first
    assert of(path, choice=KnowledgeChoice(sample=2)).absent["xNeed"] == "refused"
    assert of(path, choice=KnowledgeChoice(sample=7)).ends == {}


def test_a_rationale_that_was_shown_the_label_says_so(tmp_path: Path):
    one = of(fill(tmp_path / "kb.sqlite", JobPlan("rationale", "teacher")))
    assert one.rationale is not None
    assert one.rationale.saw_label


def test_a_debate_gives_both_sides_in_one_order_and_never_one_alone(tmp_path: Path):
    plan = JobPlan("debate", "teacher", labels=("good", "bad"))
    whole = of(fill(tmp_path / "whole.sqlite", plan)).rationale
    assert whole is not None
    assert not whole.saw_label
    bad, good = whole.text.split("\n")
    assert bad.startswith("The case for bad: ")
    assert good.startswith("The case for good: ")

    def says(call: Request) -> Response:
        return (
            make_reply("", status="refused")
            if call.stage == "debate good"
            else make_up_answer(call)
        )

    one = of(fill(tmp_path / "half.sqlite", plan, says))
    assert one.rationale is None
    assert one.absent == {"debate": "refused"}


def test_a_base_with_rationales_and_debates_must_be_told_which(tmp_path: Path):
    path = fill(tmp_path / "kb.sqlite", JobPlan("rationale", "teacher"))
    fill(path, JobPlan("debate", "teacher", labels=("good", "bad")))
    with pytest.raises(DistilError, match="choose rationale or debate"):
        next(iterate_knowledge(open_for_reading(path)))
    reasons = [
        of(path, choice=KnowledgeChoice(rationale=task)).rationale
        for task in ("rationale", "debate")
    ]
    assert [reason.saw_label for reason in reasons if reason] == [True, False]


def test_people_count_before_the_critic_before_an_llm(tmp_path: Path):
    path = fill(tmp_path / "kb.sqlite")
    score(
        path,
        JudgeScore("p1", "xNeed", 0, "llm:a", 0.0, 0.25),
        JudgeScore("p1", "xNeed", 0, "again:llm:a", 0.0, 1.0),
        JudgeScore("p1", "xNeed", 0, "critic:c", 0.3, None),
        JudgeScore("p1", "xNeed", 0, "human:x", 1.0, None),
        JudgeScore("p1", "xNeed", 0, "human:y", 0.0, None),
        JudgeScore("p1", "xWant", 1, "human:x", 1.0, None),
    )
    one = of(path)
    need, want = (next(i for i in one.intentions if i.relation == r) for r in ("xNeed", "xWant"))
    assert (need.plausibility, need.typicality) == (0.5, 0.25)
    assert need.provenance is not None
    assert need.provenance["plausibility_by"] == "human:x, human:y"
    assert need.provenance["typicality_by"] == "llm:a"
    assert want.plausibility is None


def test_what_is_not_plausible_enough_or_not_judged_or_left_out_is_absent(tmp_path: Path):
    path = fill(tmp_path / "kb.sqlite")
    choice = KnowledgeChoice(min_plausibility=0.5, without=("Open",))
    with pytest.raises(DistilError, match="no intention here has been judged"):
        next(iterate_knowledge(open_for_reading(path), choice))
    score(
        path,
        *(JudgeScore("p1", r, 0, "critic:c", p, None) for r, p in (("xNeed", 0.4), ("xWant", 0.5))),
    )
    one = of(path, choice=choice)
    assert [each.relation for each in one.intentions] == ["xWant"]
    reasons = (one.absent["xNeed"], one.absent["xAttr"], one.absent["Open"])
    assert reasons == ("not plausible enough", "not judged", "left out")


def test_every_post_is_read_by_id_even_those_nobody_was_asked_about(tmp_path: Path):
    posts = [Post(id=f"{n:04}", text=f"words {n}") for n in range(600)]
    path = fill(tmp_path / "kb.sqlite", posts=posts[:1])
    with KnowledgeBase(path) as store:
        rows = [store.get_post("0000")._replace(id=post.id) for post in posts[1:]]  # type: ignore[union-attr]
        asyncio.run(store.put_posts(rows))
        found = list(iterate_knowledge(store.db))
    assert [one.post.id for one in found] == ["0000"] * 600  # the record is that of the first
    assert [len(one.intentions) for one in found] == [10] + [0] * 599
    assert found[599].absent == {}


def test_reading_everything_holds_no_transaction_open(tmp_path: Path):
    path = fill(tmp_path / "kb.sqlite")
    with KnowledgeBase(path) as store:
        walk = iterate_knowledge(store.db)
        next(walk)
        asyncio.run(store.put_fact("seen", 1))
        assert store.get_fact("seen") == 1


def test_a_description_of_a_picture_that_is_not_there_is_not_believed(tmp_path: Path):
    def says(call: Request) -> Response:
        return make_reply(
            json.dumps({**json.loads(make_up_answer(call).raw), "description": "a red barn"})
        )

    assert of(fill(tmp_path / "kb.sqlite", says=says)).description is None


def test_what_the_base_was_asked_replaces_what_the_post_had(tmp_path: Path):
    old = Post.model_validate(
        {
            "id": "p1",
            "text": "hello there",
            "description": "a door",
            "intentions": [{"relation": "Open", "text": "The author posts this because of rain."}],
        }
    )
    path = fill(
        tmp_path / "a.sqlite", says=lambda call: make_reply("", status="refused"), posts=[old]
    )
    assert of(path).filled() == old.model_copy(update={"intentions": ()})
    other = fill(tmp_path / "b.sqlite", JobPlan("debate", "t", labels=("a", "b")), posts=[old])
    assert of(other).filled().intentions == old.intentions
