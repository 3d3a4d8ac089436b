"""How many calls may be under way: one more for every few that succeed, fewer when refused."""

import asyncio
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


class Gate:
    """Additive increase, multiplicative decrease of the calls under way; use `async with`.

    A call that the server turned away (429) is no failure: the gate shuts for as long as the
    server said, and the caller comes again.
    """

    def __init__(self, ceiling: int = 64) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.under_way = 0
        self.num_limited = 0
        self._opens = 0.0
        self._cut = -COOL
        self._successes = 0
        self._in_a_row = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        while not self._free():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # the turn was ours and goes to the next
                raise
        self.under_way += 1

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
        self._wake()

    def _free(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self.under_way < int(self.limit) and now >= self._opens

    def _wake(self) -> None:
        """Let as many waiters try as there is room for, or set a clock for the opening."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if loop.time() < self._opens:
            self._timer = loop.call_at(self._opens, self._wake)
            return
        room = int(self.limit) - self.under_way
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1
