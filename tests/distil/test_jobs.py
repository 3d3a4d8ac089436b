"""What is asked of a post: in which order, of which model, again or not, under which key."""

import asyncio
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from miko_clf.data.post import Post
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import CallRow, JobOutcome
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.schemas import RELATION_ORDER
from tests.support.filled_kb import make_up_answer

PLAN = JobPlan("intentions", "m")
APOLOGY = "I'm sorry, but I can't assist with that request."


class Asked:
    """Answers calls and keeps them; `says` may return an answer, its text, or a status."""

    def __init__(self, says: Callable[[Request], Any] = make_up_answer) -> None:
        self.says = says
        self.calls: list[Request] = []

    async def ask(self, call: Request) -> CallRow:
        self.calls.append(call)
        said = self.says(call)
        if isinstance(said, str):
            status = said if said in ("refused", "failed") else None
            return CallRow(call.key, status, "", said, "stop", call.model)  # type: ignore[arg-type]
        assert isinstance(said, Response)
        return CallRow(call.key, said.status, said.reason, said.raw, said.finish, call.model)

    @property
    def stages(self) -> list[str]:
        return [call.stage for call in self.calls]

    @property
    def models(self) -> list[str]:
        return [call.model for call in self.calls]


def png(colour: tuple[int, int, int] = (9, 9, 9)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def post(**fields: Any) -> Post:
    return Post(**{"id": "p", "text": "so much fun", **fields})


def walked(asked: Asked, plan: JobPlan = PLAN, **fields: Any) -> JobOutcome:
    return asyncio.run(JobRunner(plan).run(post(**fields), asked))


def key(plan: JobPlan = PLAN, **fields: Any) -> bytes:
    asked = Asked()
    walked(asked, plan, **fields)
    return asked.calls[0].key


@pytest.mark.parametrize(
    "same",
    [{"id": "q"}, {"label": "sarcastic"}, {"group": "g"}, {"text": "so much fun"}],
    ids=str,
)
def test_a_key_does_not_depend_on_what_is_not_asked(same: dict[str, Any]):
    assert key(**same) == key()


def test_a_key_knows_a_picture_by_its_bytes_wherever_they_stand(tmp_path: Path):
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(png())
    assert (
        len({key(image=png()), key(image=tmp_path / "one.png"), key(image=tmp_path / "two.png")})
        == 1
    )
    assert len({key(), key(image=png()), key(image=png((9, 9, 8)))}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"seed": 1},
        {"max_tokens": 99},
        {"sample": 1},
        {"order": "per-stage"},
    ],
    ids=str,
)
def test_a_key_depends_on_what_determines_the_answer(other: dict[str, Any]):
    assert key(dataclasses.replace(PLAN, **other)) != key()


@pytest.mark.parametrize("same", [{"fallbacks": ("n",)}, {"labels": ("a", "b")}], ids=str)
def test_a_key_does_not_depend_on_what_comes_after(same: dict[str, Any]):
    assert key(dataclasses.replace(PLAN, **same)) == key()


@given(some.text(min_size=1, max_size=20), some.text(min_size=1, max_size=20))
def test_two_texts_have_one_key_only_if_they_are_one(one: str, other: str):
    plan = dataclasses.replace(PLAN, masked=False)
    try:
        keys = [key(plan, text=text) for text in (one, other)]
    except (UnicodeEncodeError, ValueError):
        return  # not a text that a post can have
    assert (keys[0] == keys[1]) == (one == other)


def test_the_label_is_shown_for_a_rationale_alone_and_that_is_marked():
    for task, labels in (("rationale", ()), ("debate", ("a", "b")), ("intentions", ())):
        asked = Asked()
        walked(asked, JobPlan(task, "m", labels=labels), label="gold")  # type: ignore[arg-type]
        shown = [any("gold" in turn.text for turn in call.turns) for call in asked.calls]
        assert (
            shown == [call.saw_label for call in asked.calls] == [task == "rationale"] * len(shown)
        )


def test_a_rationale_of_a_post_without_a_label_is_not_asked_for():
    asked = Asked()
    assert walked(asked, JobPlan("rationale", "m")).status == "failed"
    assert asked.calls == []


def test_a_debate_asks_for_each_side_once():
    asked = Asked()
    outcome = walked(asked, JobPlan("debate", "m", labels=("harmful", "harmless")))
    assert asked.stages == ["debate harmful", "debate harmless"]
    assert [stage for stage, _ in outcome.uses] == asked.stages


@pytest.mark.parametrize(
    ("order", "stages"),
    [
        ("one-call", ["one_call"]),
        ("per-stage", ["description", "key_information", "intentions"]),
        ("per-relation", ["description", "key_information", *RELATION_ORDER]),
    ],
)
def test_each_order_asks_its_questions(order: str, stages: list[str]):
    asked = Asked()
    outcome = walked(asked, JobPlan("intentions", "m", order=order), image=png())  # type: ignore[arg-type]
    assert asked.stages == stages
    assert outcome.status == "ok"
    assert [stage for stage, _ in outcome.uses] == stages


def test_another_model_sees_the_picture_and_the_first_reads_what_it_says():
    asked = Asked()
    walked(asked, JobPlan("intentions", "m", vision="v"), image=png())
    assert asked.models == ["v", "m"]
    assert [any(turn.picture for turn in call.turns) for call in asked.calls] == [True, False]
    told = json.loads(make_up_answer(asked.calls[0]).raw)["description"]
    assert told in asked.calls[1].turns[1].text


def test_pictures_are_not_sent_where_they_are_not_to_be():
    asked = Asked()
    walked(asked, JobPlan("intentions", "m", pictures=False), image=png())
    assert not any(turn.picture for call in asked.calls for turn in call.turns)
    alone = walked(Asked(), JobPlan("intentions", "m", pictures=False), text=None, image=png())
    assert (alone.status, alone.uses) == ("failed", ())


def test_a_picture_that_cannot_be_read_fails_that_post_alone(tmp_path: Path):
    outcome = walked(Asked(), image=tmp_path / "gone.png")
    assert outcome.status == "failed"
    assert "gone.png" in outcome.reason


@pytest.mark.parametrize("how", ["refused", APOLOGY])
def test_what_one_model_refuses_goes_to_the_next_and_never_back(how: str):
    asked = Asked(lambda call: how if call.model in ("m", "n") else make_up_answer(call))
    plan = dataclasses.replace(PLAN, fallbacks=("n", "m", "o", "p"))
    assert walked(asked, plan).status == "ok"
    assert asked.models == ["m", "n", "o"]


def test_what_all_refuse_is_refused_and_each_was_asked_once():
    asked = Asked(lambda call: "refused")
    assert walked(asked, dataclasses.replace(PLAN, fallbacks=("n", "o"))).status == "refused"
    assert asked.models == ["m", "n", "o"]


def test_what_failed_does_not_go_to_another_model():
    asked = Asked(lambda call: "failed")
    assert walked(asked, dataclasses.replace(PLAN, fallbacks=("n",))).status == "failed"
    assert asked.models == ["m"]


def test_an_answer_that_was_cut_off_gets_one_more_try_with_room():
    cut = make_up_answer(first_call()).raw[:40]
    asked = Asked(lambda call: Response(raw=cut, finish="length"))
    outcome = walked(asked)
    assert (outcome.status, outcome.reason) == ("invalid", "truncated")
    first, second = asked.calls
    assert second.sampling.max_tokens == 3 * first.sampling.max_tokens
    assert second.turns == first.turns
    asked.says = lambda call: (
        make_up_answer(call) if call.key == second.key else Response(cut, "length")
    )
    assert walked(asked).status == "ok"


def test_a_wrong_answer_is_asked_for_once_more_with_what_is_wrong():
    asked = Asked(
        lambda call: make_up_answer(call) if len(call.turns) > 2 else '{"key_information": 3}'
    )
    outcome = walked(asked)
    assert outcome.status == "ok"
    first, second = asked.calls
    assert [turn.role for turn in second.turns] == ["system", "user", "assistant", "user"]
    assert "key_information" in second.turns[-1].text
    assert second.sampling == first.sampling
    assert outcome.uses == (("one_call", second.key),)
    assert {row.key: row.status for row in outcome.read} == {first.key: "invalid", second.key: "ok"}


def test_an_answer_that_stays_wrong_is_invalid_after_two():
    asked = Asked(lambda call: "no JSON at all")
    outcome = walked(asked)
    assert (outcome.status, outcome.reason) == ("invalid", "no JSON object in the answer")
    assert len(asked.calls) == 2


def test_relations_that_are_missing_do_not_cost_the_others():
    asked = Asked(
        lambda call: "refused" if call.stage in ("xNeed", "oWant") else make_up_answer(call)
    )
    outcome = walked(asked, JobPlan("intentions", "m", order="per-relation"))
    assert (outcome.status, outcome.reason) == ("ok", "2 of 10 relations missing")


def test_names_and_addresses_are_masked_unless_told_otherwise():
    text = "ask @somebody at a@b.org"
    for masked in (True, False):
        asked = Asked()
        walked(asked, dataclasses.replace(PLAN, masked=masked), text=text)
        assert ("@somebody" in asked.calls[0].turns[1].text) is not masked


def first_call() -> Request:
    asked = Asked()
    walked(asked)
    return asked.calls[0]
