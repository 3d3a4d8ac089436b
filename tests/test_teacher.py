"""The client: what it does about every way in which a server can fail to answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scripted import Says, Scripted, scripted

from miko_clf.distil import teacher as module
from miko_clf.distil.answer import Described
from miko_clf.distil.call import Call, Reply, Sampling, Turn, Usage
from miko_clf.distil.prompt import prompt
from miko_clf.distil.teacher import Teacher
from miko_clf.errors import DistilError

KEY = "sk-a-secret-of-mine"
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}
LIMITED = Says(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.005)
    monkeypatch.setenv("MIKO_API_KEY", KEY)


def call(text: str = "What is shown?") -> Call:
    turns = (Turn("system", "Answer in JSON."), Turn("user", text))
    return Call("description", "m", prompt("describe"), turns, Described, Sampling(50))


def sent(*script: Says, **given: Any) -> tuple[Reply, Scripted]:
    """Return what came of a call to a server with a script, and the server."""

    async def main() -> tuple[Reply, Scripted]:
        async with scripted(*script) as server, asking(server.url, **given) as teacher:
            return await teacher.send(call()), server

    return asyncio.run(main())


@asynccontextmanager
async def asking(url: str, **given: Any) -> AsyncIterator[Teacher]:
    teacher = Teacher(url, **given)
    try:
        yield teacher
    finally:
        await teacher.close()


def answered(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "model": "m-2", "choices": [{**CHOICE, **more}]}


def test_an_answer_comes_with_its_tokens_its_model_and_its_number():
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 6},
    }
    reply, server = sent(Says(body={**answered(), "usage": usage}))
    assert (reply.raw, reply.finish, reply.status) == ("{}", "stop", None)
    assert (reply.usage, reply.model, reply.request) == (Usage(9, 6, 4), "m-2", "r1")
    assert (reply.tries, reply.lost) == (1, 0)
    assert server.keys == [f"bearer {KEY}"]


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (Says(500, {"error": {"message": "oops"}}), 0),
        (Says(503, b"busy", (("retry-after", "0.01"),)), 0),
        (Says(408, b""), 0),
        (Says(drop=True), 1),
        (Says(body=b"<html>", headers=(("content-type", "text/html"),)), 1),
        (Says(body=b"\xff\xfe"), 1),
        (Says(body=b""), 1),
        (Says(body=b"null"), 1),
        (Says(body=[]), 1),
        (Says(body={"error": {"message": "upstream", "code": 502}, "choices": []}), 1),
        (Says(body=answered(message=None)), 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_passing_fault_is_tried_again_and_what_may_be_billed_is_counted(fault: Says, lost: int):
    reply, server = sent(fault, fault)
    assert (reply.status, reply.tries, reply.lost) == (None, 3, 2 * lost)
    assert json.loads(reply.raw)["description"]
    assert len(server.heard) == 3
    assert server.heard[0] == server.heard[2]


def test_a_fault_that_stays_is_a_failure_after_so_many_tries():
    reply, server = sent(*[Says(500, b"oops")] * 9, tries=4)
    assert (reply.status, reply.reason, reply.tries) == ("failed", "500 oops", 4)
    assert len(server.heard) == 4


def test_a_429_is_asked_again_without_end_and_is_no_failure():
    soon = LIMITED._replace(headers=(("retry-after", "0.01"),))
    reply, server = sent(*[soon] * 12, tries=1)
    assert (reply.status, reply.tries) == (None, 1)
    assert len(server.heard) == 13


def test_a_429_is_not_asked_again_before_the_time_the_server_named():
    started = time.monotonic()
    sent(LIMITED._replace(headers=(("retry-after", "0.4"),)))
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Says(body=answered(message={"content": None, "refusal": "I cannot."})), "refusal"),
        (Says(body=answered(finish_reason="content_filter")), "content_filter"),
        (Says(body={"choices": [], "usage": {}}), "no choices"),
        (Says(400, {"error": {"code": "content_filter", "message": "no"}}), "filtered: 400"),
        (Says(400, {"error": {"message": "ResponsibleAIPolicyViolation"}}), "filtered: 400"),
        (Says(403, {"error": {"message": "flagged by moderation"}}), "filtered: 403"),
    ],
)
def test_every_signal_of_a_refusal_is_a_refusal_and_is_not_asked_again(says: Says, reason: str):
    reply, server = sent(says)
    assert (reply.status, reply.reason) == ("refused", reason)
    assert reply.raw or reason == "content_filter"
    assert len(server.heard) == 1


def test_a_question_that_the_server_cannot_take_fails_without_another_try():
    reply, server = sent(Says(400, {"error": {"message": "prompt too long"}}))
    assert (reply.status, reply.reason) == ("failed", "400 prompt too long")
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "says",
    [
        Says(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}),
        Says(402, {"error": {"message": "payment required"}}),
        Says(403, {"error": {"message": "no access"}}),
        Says(404, {"error": {"message": "no such model"}}),
        Says(429, {"error": {"message": "You exceeded it", "code": "insufficient_quota"}}),
    ],
    ids=lambda says: str(says.status),
)
def test_what_no_waiting_mends_ends_the_run_at_once_and_tells_no_key(says: Says):
    with pytest.raises(DistilError) as raised:
        sent(says, tries=9)
    assert str(says.status) in str(raised.value)
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_is_taken_without_the_line_end_of_its_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIKO_API_KEY", f"{KEY}\n")
    _, server = sent(Says())
    assert server.keys == [f"bearer {KEY}"]


@pytest.mark.parametrize("key", ["sk-“quoted”", "sk-two words", "sk-ünsound", "sk-bell\a"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MIKO_API_KEY", key)
    with pytest.raises(DistilError, match="MIKO_API_KEY") as raised:
        Teacher("http://127.0.0.1:1/v1")
    assert key not in str(raised.value)


def test_a_named_key_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MINE", raising=False)
    with pytest.raises(DistilError, match="no key MINE"):
        Teacher("http://127.0.0.1:1/v1", key_name="MINE")


def test_an_answer_that_trickles_in_for_ever_is_cut_off_at_the_deadline():
    started = time.monotonic()
    reply, _ = sent(Says(trickle=0.05), deadline=0.4)
    assert time.monotonic() - started < 5
    assert (reply.status, reply.tries, reply.lost) == (None, 2, 1)


def test_a_text_in_parts_is_put_together_and_half_a_character_replaced():
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "far \ud83d"}]
    reply, _ = sent(Says(body=answered(message={"content": parts})))
    assert reply.raw == "so far ?"


def test_a_dead_server_ends_the_run_in_one_line_after_the_patience():
    async def main() -> list[Any]:
        async with asking("http://127.0.0.1:9/v1", patience=0.2, tries=99) as teacher:
            sending = (teacher.send(call(str(n))) for n in range(20))
            return await asyncio.gather(*sending, return_exceptions=True)

    ends = asyncio.run(main())
    assert {type(end) for end in ends} == {DistilError}
    assert "no answer for" in str(ends[0])
    assert "\n" not in str(ends[0])


def test_many_calls_that_fail_at_once_after_a_long_rest_are_no_outage():
    async def main() -> list[Reply]:
        drops = [Says(drop=True)] * 20
        async with scripted(*drops) as server, asking(server.url, patience=0.3) as teacher:
            await asyncio.sleep(0.4)  # nothing was asked, so nothing was silent
            return await asyncio.gather(*(teacher.send(call(str(n))) for n in range(20)))

    assert {reply.status for reply in asyncio.run(main())} == {None}


def test_whoever_pays_is_told_before_a_lost_answer_is_asked_for_again():
    told: list[int] = []

    async def main() -> Reply:
        script = (Says(drop=True), Says(500, b""), Says(drop=True))
        async with scripted(*script) as server, asking(server.url) as teacher:
            teacher.lost = _telling(lambda: told.append(len(server.heard)))
            return await teacher.send(call())

    assert asyncio.run(main()).lost == 2
    assert told == [1, 3]


def test_no_more_calls_are_in_flight_than_the_ceiling():
    most = 0

    async def main() -> None:
        async with scripted() as server, asking(server.url, ceiling=3) as teacher:

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, teacher.gate.under_way)
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            await asyncio.gather(*(teacher.send(call(str(n))) for n in range(20)))
            watching.cancel()

    asyncio.run(main())
    assert most == 3


def _telling(tell: Callable[[], None]) -> Callable[[Call], Awaitable[None]]:
    async def told(_: Call) -> None:
        tell()

    return told
