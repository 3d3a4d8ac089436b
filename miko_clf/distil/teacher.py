"""The client of an OpenAI-compatible server: one call in, one reply out, whatever happens."""

import asyncio
import os
import time
from typing import Any
from urllib.parse import urlsplit

import openai
from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI

from miko_clf.distil.call import Call, Reply
from miko_clf.distil.dialect import Dialect, body
from miko_clf.distil.faults import Fault, fault_of
from miko_clf.distil.gate import Gate
from miko_clf.distil.reply import reply_of
from miko_clf.errors import DistilError, PostError

# The client's own chat.completions.create turns every message and every answer through typed
# models, which takes more of the processor than all the rest of a call.
_ROUTE = "/chat/completions"
KEY_NAMES = ("MIKO_API_KEY", "OPENAI_API_KEY")
_FIRST_PAUSE = 0.5  # seconds after a transient error, doubled each time
_LONGEST_PAUSE = 20.0
_ALARM = 16  # transient errors in a row, over all calls, before silence counts as an outage


class Teacher:
    """A server's models, asked through one gate.

    The key comes from the environment alone. A 429 is waited for and asked again, without end and
    without counting as a failure. Lost connections and 5xx are tried again `tries` times; when
    nothing at all has come back for `patience` seconds, `DistilError` ends the run, in which
    nothing is lost. A key, a model or a route that the server refuses raises at once.
    """

    def __init__(
        self,
        server: str,
        *,
        ceiling: int = 64,
        per_minute: float | None = None,
        deadline: float = 120.0,
        tries: int = 6,
        patience: float = 180.0,
        key_name: str | None = None,
    ) -> None:
        self.server = server
        self.host = urlsplit(server).netloc
        if urlsplit(server).scheme not in ("http", "https") or not self.host:
            raise DistilError(
                f"--server {server}: the address of a server is needed, such as "
                "http://127.0.0.1:8000/v1"
            )
        self.gate = Gate(ceiling)
        self.dialects: dict[str, Dialect] = {}
        self.deadline = deadline
        self.tries = tries
        self.patience = patience
        self._pace = AsyncLimiter(max(1.0, per_minute), 60) if per_minute else None
        self._key = _key(key_name)
        self._answered = time.monotonic()
        self._silent = 0
        self.client = AsyncOpenAI(
            base_url=server, api_key=self._key, max_retries=0, timeout=deadline
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self.client.close()

    async def send(self, call: Call) -> Reply:
        """Return what came of a call; raises `DistilError` where the run cannot go on."""
        try:
            sent = await self._body(call)
        except PostError as error:
            return Reply(status="failed", reason=str(error), host=self.host)
        started = time.monotonic()
        failures = lost = 0
        while True:
            try:
                reply = await self._once(sent)
            except (openai.OpenAIError, ValueError) as error:
                fault = fault_of(error, self._key)
            else:
                self._answered, self._silent = time.monotonic(), 0
                seconds = time.monotonic() - started
                return reply._replace(tries=failures + 1, lost=lost, seconds=seconds)
            if fault.kind == "limited":
                continue
            failures += fault.kind == "transient"
            lost += fault.lost
            if fault.kind == "refused" or fault.kind == "failed" or failures >= self.tries:
                return Reply(
                    raw=fault.raw,
                    status="refused" if fault.kind == "refused" else "failed",
                    reason=fault.reason,
                    host=self.host,
                    tries=max(1, failures),
                    lost=lost,
                    seconds=time.monotonic() - started,
                )
            if fault.kind == "fatal":
                raise DistilError(f"{self.server}: {fault.reason}")
            self._listen(fault)
            await asyncio.sleep(fault.wait or _pause(failures))

    async def _body(self, call: Call) -> dict[str, Any]:
        dialect = self.dialects.get(call.model, Dialect())
        if any(turn.picture for turn in call.turns):  # reading and shrinking it takes a while
            return await asyncio.to_thread(body, call, dialect)
        return body(call, dialect)

    async def _once(self, sent: dict[str, Any]) -> Reply:
        if self._pace:
            await self._pace.acquire()
        async with self.gate:
            try:
                answer = await self.client.post(_ROUTE, body=sent, cast_to=object)
            except openai.RateLimitError as error:
                fault = fault_of(error, self._key)
                if fault.kind == "limited":
                    self.gate.limited(fault.wait)
                raise
            self.gate.succeeded()
        return reply_of(answer, self.host)

    def _listen(self, fault: Fault) -> None:
        """Count a transient error; raise once the server has been silent for too long."""
        self._silent += 1
        silence = time.monotonic() - self._answered
        if self._silent >= _ALARM and silence > self.patience:
            raise DistilError(
                f"{self.server}: no answer for {silence:,.0f} seconds, last: {fault.reason}; "
                "what was answered is kept, the same command goes on from here"
            )


def _pause(failures: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 1))


def _key(name: str | None) -> str:
    if name is not None:
        if not os.environ.get(name):
            raise DistilError(f"the environment holds no key {name}")
        return os.environ[name]
    return next((os.environ[each] for each in KEY_NAMES if os.environ.get(each)), "none")
