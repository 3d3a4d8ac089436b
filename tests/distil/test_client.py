"""The client: what it does where a server fails to answer, and its gate in virtual time."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.distil import client
from miko_clf.distil.client import GATE_COOL_SECONDS, GATE_SUCCESSES, RequestGate, TeacherClient
from miko_clf.distil.request import ChatTurn, Request, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.schemas import DescriptionAnswer
from miko_clf.errors import DistilError
from tests.support.scripted_server import Says, Scripted, serve_script
from tests.support.virtual_clock import run_virtually

KEY = "sk-a-secret-of-mine"
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}
LIMITED = Says(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.005)
    monkeypatch.setenv("MIKO_API_KEY", KEY)


def make_call(text: str = "What is shown?") -> Request:
    turns = (ChatTurn("system", "Answer in JSON."), ChatTurn("user", text))
    return Request(
        "description", "m", load_prompt("describe"), turns, DescriptionAnswer, Sampling(50)
    )


def send_to_script(*script: Says, **given: Any) -> tuple[Response, Scripted]:
    """Return what came of a call to a server with a script, and the server."""

    async def main() -> tuple[Response, Scripted]:
        async with serve_script(*script) as server, open_client(server.url, **given) as teacher:
            return await teacher.send(make_call()), server

    return asyncio.run(main())


@asynccontextmanager
async def open_client(url: str, **given: Any) -> AsyncIterator[TeacherClient]:
    teacher = TeacherClient(url, **given)
    try:
        yield teacher
    finally:
        await teacher.close()


def make_body(**more: Any) -> dict[str, Any]:
    return {"id": "r1", "model": "m-2", "choices": [{**CHOICE, **more}]}


def test_an_answer_comes_with_its_tokens_its_model_and_its_number():
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 6},
    }
    reply, server = send_to_script(Says(body={**make_body(), "usage": usage}))
    assert (reply.raw, reply.finish, reply.status) == ("{}", "stop", None)
    assert (reply.usage, reply.model, reply.request) == (TokenUsage(9, 6, 4), "m-2", "r1")
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
        (Says(body=make_body(message=None)), 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_passing_fault_is_tried_again_and_what_may_be_billed_is_counted(fault: Says, lost: int):
    reply, server = send_to_script(fault, fault)
    assert (reply.status, reply.tries, reply.lost) == (None, 3, 2 * lost)
    assert json.loads(reply.raw)["description"]
    assert len(server.heard) == 3
    assert server.heard[0] == server.heard[2]


def test_a_fault_that_stays_is_a_failure_after_so_many_tries():
    reply, server = send_to_script(*[Says(500, b"oops")] * 9, tries=4)
    assert (reply.status, reply.reason, reply.tries) == ("failed", "500 oops", 4)
    assert len(server.heard) == 4


def test_a_429_is_asked_again_without_end_and_is_no_failure():
    soon = LIMITED._replace(headers=(("retry-after", "0.01"),))
    reply, server = send_to_script(*[soon] * 12, tries=1)
    assert (reply.status, reply.tries) == (None, 1)
    assert len(server.heard) == 13


def test_a_429_is_not_asked_again_before_the_time_the_server_named():
    started = time.monotonic()
    send_to_script(LIMITED._replace(headers=(("retry-after", "0.4"),)))
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Says(body=make_body(message={"content": None, "refusal": "I cannot."})), "refusal"),
        (Says(body=make_body(finish_reason="content_filter")), "content_filter"),
        (Says(body={"choices": [], "usage": {}}), "no choices"),
        (Says(400, {"error": {"code": "content_filter", "message": "no"}}), "filtered: 400"),
        (Says(400, {"error": {"message": "ResponsibleAIPolicyViolation"}}), "filtered: 400"),
        (Says(403, {"error": {"message": "flagged by moderation"}}), "filtered: 403"),
    ],
)
def test_every_signal_of_a_refusal_is_a_refusal_and_is_not_asked_again(says: Says, reason: str):
    reply, server = send_to_script(says)
    assert (reply.status, reply.reason) == ("refused", reason)
    assert reply.raw or reason == "content_filter"
    assert len(server.heard) == 1


def test_a_question_that_the_server_cannot_take_fails_without_another_try():
    reply, server = send_to_script(Says(400, {"error": {"message": "prompt too long"}}))
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
        send_to_script(says, tries=9)
    assert str(says.status) in str(raised.value)
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_is_taken_without_the_line_end_of_its_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIKO_API_KEY", f"{KEY}\n")
    _, server = send_to_script(Says())
    assert server.keys == [f"bearer {KEY}"]


@pytest.mark.parametrize("key", ["sk-“quoted”", "sk-two words", "sk-ünsound", "sk-bell\a"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MIKO_API_KEY", key)
    with pytest.raises(DistilError, match="MIKO_API_KEY") as raised:
        TeacherClient("http://127.0.0.1:1/v1")
    assert key not in str(raised.value)


def test_a_named_key_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MINE", raising=False)
    with pytest.raises(DistilError, match="no key MINE"):
        TeacherClient("http://127.0.0.1:1/v1", key_name="MINE")


def test_an_answer_that_trickles_in_for_ever_is_cut_off_at_the_deadline():
    started = time.monotonic()
    reply, _ = send_to_script(Says(trickle=0.05), deadline=0.4)
    assert time.monotonic() - started < 5
    assert (reply.status, reply.tries, reply.lost) == (None, 2, 1)


def test_a_text_in_parts_is_put_together_and_half_a_character_replaced():
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "far \ud83d"}]
    reply, _ = send_to_script(Says(body=make_body(message={"content": parts})))
    assert reply.raw == "so far ?"


def test_a_dead_server_ends_the_run_in_one_line_after_the_patience():
    async def main() -> list[Any]:
        async with open_client("http://127.0.0.1:9/v1", patience=0.2, tries=99) as teacher:
            sending = (teacher.send(make_call(str(n))) for n in range(20))
            return await asyncio.gather(*sending, return_exceptions=True)

    ends = asyncio.run(main())
    assert {type(end) for end in ends} == {DistilError}
    assert "no answer for" in str(ends[0])
    assert "\n" not in str(ends[0])


def test_many_calls_that_fail_at_once_after_a_long_rest_are_no_outage():
    async def main() -> list[Response]:
        drops = [Says(drop=True)] * 20
        async with serve_script(*drops) as server, open_client(server.url, patience=0.3) as teacher:
            await asyncio.sleep(0.4)  # nothing was asked, so nothing was silent
            return await asyncio.gather(*(teacher.send(make_call(str(n))) for n in range(20)))

    assert {reply.status for reply in asyncio.run(main())} == {None}


def test_whoever_pays_is_told_before_a_lost_answer_is_asked_for_again():
    told: list[int] = []

    async def main() -> Response:
        script = (Says(drop=True), Says(500, b""), Says(drop=True))
        async with serve_script(*script) as server, open_client(server.url) as teacher:
            teacher.books = Books(server, told)
            return await teacher.send(make_call())

    assert asyncio.run(main()).lost == 2
    assert told == [1, 3]


def test_no_more_calls_are_in_flight_than_the_ceiling():
    most = 0

    async def main() -> None:
        async with serve_script() as server, open_client(server.url, ceiling=3) as teacher:

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, teacher.gate.under_way)
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            await asyncio.gather(*(teacher.send(make_call(str(n))) for n in range(20)))
            watching.cancel()

    asyncio.run(main())
    assert most == 3


class Books:
    """Note how many requests the server had heard whenever an answer was lost."""

    def __init__(self, server: Scripted, told: list[int]) -> None:
        self.server, self.told = server, told

    async def count_lost(self, request: Request) -> None:
        self.told.append(len(self.server.heard))


class Bucket:
    """A server that takes `rpm` requests a minute, as many of them at once as it likes."""

    def __init__(self, rpm: int, says: bool) -> None:
        self.rpm, self.says = rpm, says
        self.tokens, self.filled = float(rpm), 0.0
        self.attempts: Counter[int] = Counter()

    def wait(self, call: int) -> float | None:
        """Return None where a request is taken, else how long the server says to wait."""
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.rpm, self.tokens + (now - self.filled) * self.rpm / 60)
        self.filled = now
        self.attempts[call] += 1
        if self.tokens >= 1 - 1e-9:
            self.tokens -= 1
            return None
        return math.ceil((1 - self.tokens) * 60 / self.rpm - 1e-9)


async def through(gate: RequestGate, bucket: Bucket, call: int, latency: float) -> None:
    while True:
        async with gate:
            await asyncio.sleep(0.01)
            wait = bucket.wait(call)
            if wait is None:
                await asyncio.sleep(latency)
                gate.count_success()
                return
            gate.shut(wait if bucket.says else None)


async def within(seconds: float, *work: Coroutine[Any, Any, Any]) -> float:
    """Return the time at which all is done; a gate that forgot to wake somebody fails here."""
    await asyncio.wait_for(asyncio.gather(*work), seconds)
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("says", [True, False])
def test_ninety_calls_at_sixty_a_minute_end_within_five_percent_of_the_floor(says: bool):
    bucket = Bucket(60, says)
    gate = RequestGate(64)
    ended = run_virtually(within(60, *(through(gate, bucket, n, 0.2) for n in range(90))))
    assert 30.0 <= ended <= 31.5
    assert bucket.attempts.total() < 2 * 90
    assert not says or max(bucket.attempts.values()) <= 10


def test_without_a_limit_the_ceiling_is_kept_full():
    gate, seen = RequestGate(64), []

    async def call() -> None:
        async with gate:
            seen.append(gate.under_way)
            await asyncio.sleep(1.0)
            gate.count_success()

    ended = run_virtually(within(60, *(call() for _ in range(640))))
    assert ended == pytest.approx(10.0, abs=0.01)
    assert max(seen) == 64


def test_a_429_shuts_the_gate_for_as_long_as_the_server_says():
    gate, at = RequestGate(8), []

    async def call() -> None:
        async with gate:
            at.append(asyncio.get_running_loop().time())

    async def main() -> None:
        gate.shut(7.0)
        await within(60, *(call() for _ in range(3)))

    run_virtually(main())
    assert min(at) == pytest.approx(7.0)


def test_after_a_429_one_call_goes_first_and_then_twice_as_many_at_each_tick():
    gate, at = RequestGate(64), []

    async def call() -> None:
        async with gate:
            at.append(round(asyncio.get_running_loop().time() - 1.0, 3))
            await asyncio.sleep(5)

    async def main() -> None:
        gate.shut(1.0)
        await within(60, *(call() for _ in range(15)))

    run_virtually(main())
    assert Counter(at) == {0.0: 1, 0.2: 2, 0.4: 4, 0.6: 8}


def test_the_limit_falls_by_a_quarter_once_in_two_seconds_and_rises_by_one_in_25():
    async def main() -> list[float]:
        gate, found = RequestGate(64), []
        for pause in (0.0, GATE_COOL_SECONDS / 2, GATE_COOL_SECONDS / 2, GATE_COOL_SECONDS):
            await asyncio.sleep(pause)
            gate.shut(0.0)
            found.append(gate.limit)
        for _ in range(GATE_SUCCESSES - 1):
            gate.count_success()
        found.append(gate.limit)
        gate.count_success()
        return [*found, gate.limit]

    assert run_virtually(main()) == [48.0, 48.0, 36.0, 27.0, 27.0, 28.0]


def test_the_limit_never_passes_the_ceiling_nor_falls_below_one():
    async def main() -> tuple[float, float]:
        gate = RequestGate(4)
        for _ in range(GATE_SUCCESSES * 3):
            gate.count_success()
        high = gate.limit
        for _ in range(40):
            await asyncio.sleep(GATE_COOL_SECONDS)
            gate.shut(0.0)
        return high, gate.limit

    assert run_virtually(main()) == (4.0, 1.0)


def test_a_waiter_that_is_cancelled_hands_its_turn_to_the_next():
    gate, went = RequestGate(1), []
    tasks: dict[str, asyncio.Task[None]] = {}

    async def call(name: str) -> None:
        async with gate:
            went.append(name)
            await asyncio.sleep(1.0)
        if name == "a":
            tasks["b"].cancel()  # whose turn it is, though it has not run yet

    async def main() -> None:
        tasks.update({name: asyncio.create_task(call(name)) for name in "abc"})
        await asyncio.wait(tasks.values(), timeout=60)

    run_virtually(main())
    assert went == ["a", "c"]
    assert tasks["b"].cancelled()


@settings(max_examples=60, deadline=None)
@given(
    ceiling=some.integers(1, 9),
    script=some.lists(
        some.tuples(some.floats(0, 3), some.one_of(some.none(), some.floats(0, 5))), max_size=60
    ),
    calls=some.integers(1, 40),
)
def test_every_call_gets_through_and_never_too_many_at_once(
    ceiling: int, script: list[tuple[float, float | None]], calls: int
):
    gate, turned, most = RequestGate(ceiling), iter(script), 0

    async def call() -> None:
        nonlocal most
        while True:
            async with gate:
                most = max(most, gate.under_way)
                took, wait = next(turned, (0.1, -1.0))
                await asyncio.sleep(took)
                if wait == -1.0:
                    gate.count_success()
                    return
                gate.shut(wait)

    run_virtually(within(10_000, *(call() for _ in range(calls))))
    assert most <= ceiling
    assert gate.under_way == 0
