"""The client of an OpenAI-compatible server: one call in, one reply out, whatever happens."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
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
# Connections of one client: it looks through all that it has at the start and end of each call.
_SHARE = 8
KEY_NAMES = ("MIKO_API_KEY", "OPENAI_API_KEY")
_FIRST_PAUSE = 0.5  # seconds after a transient error, doubled each time
_LONGEST_PAUSE = 20.0
_ALARM = 16  # transient errors in a row, over all calls, before silence counts as an outage


class Teacher:
    """A server's models, asked through one gate.

    The key comes from the environment alone. A 429 is waited for and asked again, without end and
    without counting as a failure. Lost connections and 5xx are tried again `tries` times; when
    nothing at all has come back for `patience` seconds, `DistilError` ends the run, in which
    nothing is lost. A key, a model or a route that the server refuses raises at once. `lost`, if
    set, is awaited before a call is sent again whose answer may have been billed.
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
        self.lost: Callable[[Call], Awaitable[None]] | None = None
        self._silent, self._since = 0, 0.0
        self._clients: list[AsyncOpenAI] = []
        self._free: list[AsyncOpenAI] = []
        self.client = self._another()

    async def close(self) -> None:
        """Let the connections go."""
        await asyncio.gather(*(client.close() for client in self._clients))

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
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                fault = fault_of(error, self._key)
            else:
                self._silent = 0
                seconds = time.monotonic() - started
                return reply._replace(tries=failures + 1, lost=lost, seconds=seconds)
            if fault.kind == "limited":
                self._silent = 0
                continue
            failures += fault.kind == "transient"
            lost += fault.lost
            if fault.kind == "transient":
                self._listen(fault)
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
            if fault.lost and self.lost:
                await self.lost(call)
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
                answer = await self._posted(sent)
            except openai.RateLimitError as error:
                fault = fault_of(error, self._key)
                if fault.kind == "limited":
                    self.gate.limited(fault.wait)
                raise
            self.gate.succeeded()
        return reply_of(answer, self.host)

    async def _posted(self, sent: dict[str, Any]) -> object:
        client = self._free.pop() if self._free else self._another()
        try:
            async with asyncio.timeout(self.deadline):  # the client's own is for each read
                return await client.post(_ROUTE, body=sent, cast_to=object)
        finally:
            self._free.append(client)

    def _another(self) -> AsyncOpenAI:
        """Return one more client, which then has room for more calls than this one."""
        client = AsyncOpenAI(
            base_url=self.server, api_key=self._key, max_retries=0, timeout=self.deadline
        )
        self._clients.append(client)
        self._free += [client] * (_SHARE - 1)
        return client

    def _listen(self, fault: Fault) -> None:
        """Count a transient error; raise once the server has been silent for too long."""
        self._since = self._since if self._silent else time.monotonic()
        self._silent += 1
        silence = time.monotonic() - self._since
        if self._silent >= _ALARM and silence > self.patience:
            raise DistilError(
                f"{self.server}: no answer for {silence:,.0f} seconds, last: {fault.reason}; "
                "what was answered is kept, the same command goes on from here"
            )


def _pause(failures: int) -> float:
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 1))
    return pause * random.uniform(0.8, 1.2)  # so that calls that failed together part


def _key(name: str | None) -> str:
    """Return the key, without the line end that a file of secrets leaves behind it."""
    names = KEY_NAMES if name is None else (name,)
    for each in names:
        key = os.environ.get(each, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise DistilError(f"the key in {each} holds characters that no header can carry")
        return key
    if name is not None:
        raise DistilError(f"the environment holds no key {name}")
    return "none"
