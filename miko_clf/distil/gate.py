"""How many calls may be under way: one more for every few that succeed, fewer when refused."""

import asyncio
import math
import random
from collections import deque
from types import TracebackType

# The constants that proved good in published clients of the kind: a quarter less at a 429, at most
# once in two seconds; one more for 25 successes.
DECREASE = 0.75
SUCCESSES = 25
COOL = 2.0
_FIRST_WAIT = 0.5  # seconds after a 429 that names no time, doubled at each one in a row
_LONGEST_WAIT = 16.0
_TICK = 0.2  # seconds after an opening in which one call goes, then two, then four
_WIDE = 10  # ticks after which so many may go that the limit alone counts


class Gate:
    """Additive increase, multiplicative decrease of the calls under way; use `async with`.

    A call that the server turned away (429) is no failure: the gate shuts for as long as the
    server said, and the caller comes again. It then opens step by step, for a limit on requests
    a minute lets few of those through that waited.
    """

    def __init__(self, ceiling: int = 64) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.under_way = 0
        self.num_limited = 0
        self._opens = -math.inf
        self._gone = 0  # calls since the last opening
        self._cut = -COOL
        self._successes = 0
        self._in_a_row = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        while self._room(asyncio.get_running_loop().time()) <= 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            if self._timer is None:
                self._wake()  # the gate may have shut since the last look at the clock
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # the turn was ours and goes to the next
                raise
        self.under_way += 1
        self._gone += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.under_way -= 1
        self._wake()

    def succeeded(self) -> None:
        """Count an answer; enough of them raise the limit by one."""
        self._in_a_row = 0
        self._successes += 1
        if self._successes >= SUCCESSES:
            self._successes = 0
            self.limit = min(self.ceiling, self.limit + 1)

    def limited(self, wait: float | None) -> None:
        """Shut for `wait` seconds, what the server asked for, or for a guess where it is None."""
        now = asyncio.get_running_loop().time()
        self.num_limited += 1
        if now - self._cut >= COOL:
            self._cut = now
            self._successes = 0
            self._in_a_row += 1
            self.limit = max(1.0, self.limit * DECREASE)
        guess = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** max(0, self._in_a_row - 1))
        pause = wait if wait is not None else guess * random.uniform(0.8, 1.2)
        self._opens = max(self._opens, now + pause)
        self._gone = 0
        self._wake()

    def _steps(self, now: float) -> int:
        """Return how many ticks ago the gate opened, -1 while it is shut."""
        steps = (now - self._opens) / _TICK + 1e-6  # a clock may call a hair too early
        return math.floor(max(-1.0, min(steps, _WIDE)))

    def _room(self, now: float) -> int:
        """Return how many calls may go now."""
        steps = self._steps(now)
        room = int(self.limit) - self.under_way
        return room if steps == _WIDE else min(room, 2 ** (steps + 1) - 1 - self._gone)

    def _wake(self) -> None:
        """Let as many waiters try as there is room for; until wide open, come again at a tick."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = loop.time()
        room = self._room(now)
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1
        steps = self._steps(now)
        if self._waiting and steps < _WIDE:
            self._timer = loop.call_at(self._opens + (steps + 1) * _TICK, self._wake)
