"""The gate: in virtual time, so that minutes of waiting take no time and are exact."""

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from virtual import virtually

from miko_clf.distil.gate import COOL, SUCCESSES, Gate


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


async def through(gate: Gate, bucket: Bucket, call: int, latency: float) -> None:
    while True:
        async with gate:
            await asyncio.sleep(0.01)
            wait = bucket.wait(call)
            if wait is None:
                await asyncio.sleep(latency)
                gate.succeeded()
                return
            gate.limited(wait if bucket.says else None)


async def within(seconds: float, *work: Coroutine[Any, Any, Any]) -> float:
    """Return the time at which all is done; a gate that forgot to wake somebody fails here."""
    await asyncio.wait_for(asyncio.gather(*work), seconds)
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("says", [True, False])
def test_ninety_calls_at_sixty_a_minute_end_within_five_percent_of_the_floor(says: bool):
    bucket = Bucket(60, says)
    gate = Gate(64)
    ended = virtually(within(60, *(through(gate, bucket, n, 0.2) for n in range(90))))
    assert 30.0 <= ended <= 31.5
    assert bucket.attempts.total() < 2 * 90
    assert not says or max(bucket.attempts.values()) <= 10


def test_without_a_limit_the_ceiling_is_kept_full():
    gate, seen = Gate(64), []

    async def call() -> None:
        async with gate:
            seen.append(gate.under_way)
            await asyncio.sleep(1.0)
            gate.succeeded()

    ended = virtually(within(60, *(call() for _ in range(640))))
    assert ended == pytest.approx(10.0, abs=0.01)
    assert max(seen) == 64


def test_a_429_shuts_the_gate_for_as_long_as_the_server_says():
    gate, at = Gate(8), []

    async def call() -> None:
        async with gate:
            at.append(asyncio.get_running_loop().time())

    async def main() -> None:
        gate.limited(7.0)
        await within(60, *(call() for _ in range(3)))

    virtually(main())
    assert min(at) == pytest.approx(7.0)


def test_after_a_429_one_call_goes_first_and_then_twice_as_many_at_each_tick():
    gate, at = Gate(64), []

    async def call() -> None:
        async with gate:
            at.append(round(asyncio.get_running_loop().time() - 1.0, 3))
            await asyncio.sleep(5)

    async def main() -> None:
        gate.limited(1.0)
        await within(60, *(call() for _ in range(15)))

    virtually(main())
    assert Counter(at) == {0.0: 1, 0.2: 2, 0.4: 4, 0.6: 8}


def test_the_limit_falls_by_a_quarter_once_in_two_seconds_and_rises_by_one_in_25():
    async def main() -> list[float]:
        gate, found = Gate(64), []
        for pause in (0.0, COOL / 2, COOL / 2, COOL):
            await asyncio.sleep(pause)
            gate.limited(0.0)
            found.append(gate.limit)
        for _ in range(SUCCESSES - 1):
            gate.succeeded()
        found.append(gate.limit)
        gate.succeeded()
        return [*found, gate.limit]

    assert virtually(main()) == [48.0, 48.0, 36.0, 27.0, 27.0, 28.0]


def test_the_limit_never_passes_the_ceiling_nor_falls_below_one():
    async def main() -> tuple[float, float]:
        gate = Gate(4)
        for _ in range(SUCCESSES * 3):
            gate.succeeded()
        high = gate.limit
        for _ in range(40):
            await asyncio.sleep(COOL)
            gate.limited(0.0)
        return high, gate.limit

    assert virtually(main()) == (4.0, 1.0)


def test_a_waiter_that_is_cancelled_hands_its_turn_to_the_next():
    gate, went = Gate(1), []
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

    virtually(main())
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
    gate, turned, most = Gate(ceiling), iter(script), 0

    async def call() -> None:
        nonlocal most
        while True:
            async with gate:
                most = max(most, gate.under_way)
                took, wait = next(turned, (0.1, -1.0))
                await asyncio.sleep(took)
                if wait == -1.0:
                    gate.succeeded()
                    return
                gate.limited(wait)

    virtually(within(10_000, *(call() for _ in range(calls))))
    assert most <= ceiling
    assert gate.under_way == 0
