"""The client of an OpenAI-compatible server: a request in, a response out."""

import asyncio
import json
import math
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

import openai
from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI

from miko_clf.distil.request import Request, make_chat_messages
from miko_clf.distil.response import Response, ServerFault, classify_error, parse_completion
from miko_clf.distil.schemas import make_wire_schema
from miko_clf.errors import DistilError, PostError


class Sender(Protocol):
    """Whatever answers calls: a server, or a student of one on this machine."""

    async def send(self, call: Request) -> Response:
        """Return what came of a call."""

    async def close(self) -> None:
        """Let what was held go."""


SchemaMode = Literal["json_schema", "json_object+schema", "json_object", "prompt"]
SCHEMA_MODES: tuple[SchemaMode, ...] = get_args(SchemaMode)


@dataclass(frozen=True)
class ServerDialect:
    """What a model's server understands. Found out by the probe, kept with the answers.

    `schema` says how the shape of an answer is asked for: three spellings of `response_format`, or
    in the prompt. `limit` is the name of the longest answer, `warm` that a temperature is taken.
    """

    schema: SchemaMode = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    warm: bool = True


def make_request_body(call: Request, dialect: ServerDialect) -> dict[str, Any]:
    """Return the request of a call, as the chat completions route takes it; raises `PostError`.

    Every call names its sampling in full: the defaults of servers differ.
    """
    wanted = make_wire_schema(call.answer)
    turns = make_chat_messages(call.turns)
    if dialect.schema in ("json_object", "prompt"):
        told = f"\nThe JSON schema of the answer: {json.dumps(wanted, separators=(',', ':'))}"
        turns[0] = {**turns[0], "content": turns[0]["content"] + told}
    sampling = call.sampling
    sent: dict[str, Any] = {
        "model": call.model,
        "messages": turns,
        dialect.limit: sampling.max_tokens,
        **_make_response_format(dialect.schema, wanted),
    }
    if dialect.warm:
        sent |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.seed is not None:
        sent["seed"] = sampling.seed + call.index
    elif call.index:
        sent["seed"] = call.index
    return sent


def _make_response_format(schema: SchemaMode, wanted: Mapping[str, Any]) -> dict[str, Any]:
    match schema:
        case "json_schema":
            inner = {"name": "answer", "schema": wanted, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": inner}}
        case "json_object+schema":
            return {"response_format": {"type": "json_object", "schema": wanted}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
    return {}


# The constants that proved good in published clients of the kind: a quarter less at a 429, at most
# once in two seconds; one more for 25 successes.
_DECREASE = 0.75
GATE_SUCCESSES = 25
GATE_COOL_SECONDS = 2.0
_FIRST_WAIT = 0.5  # seconds after a 429 that names no time, doubled at each one in a row
_LONGEST_WAIT = 16.0
_TICK = 0.2  # seconds after an opening in which one call goes, then two, then four
_WIDE = 10  # ticks after which so many may go that the limit alone counts


class RequestGate:
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
        self._cut = -GATE_COOL_SECONDS
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
        if self._successes >= GATE_SUCCESSES:
            self._successes = 0
            self.limit = min(self.ceiling, self.limit + 1)

    def limited(self, wait: float | None) -> None:
        """Shut for `wait` seconds, what the server asked for, or for a guess where it is None."""
        now = asyncio.get_running_loop().time()
        self.num_limited += 1
        if now - self._cut >= GATE_COOL_SECONDS:
            self._cut = now
            self._successes = 0
            self._in_a_row += 1
            self.limit = max(1.0, self.limit * _DECREASE)
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


# The client's own chat.completions.create turns every message and every answer through typed
# models, which takes more of the processor than all the rest of a call.
_ROUTE = "/chat/completions"
# Connections of one client: it looks through all that it has at the start and end of each call.
_SHARE = 8
_KEY_NAMES = ("MIKO_API_KEY", "OPENAI_API_KEY")
_FIRST_PAUSE = 0.5  # seconds after a transient error, doubled each time
_LONGEST_PAUSE = 20.0
_ALARM = 16  # transient errors in a row, over all calls, before silence counts as an outage


class TeacherClient:
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
        self.gate = RequestGate(ceiling)
        self.dialects: dict[str, ServerDialect] = {}
        self.deadline = deadline
        self.tries = tries
        self.patience = patience
        self._pace = AsyncLimiter(max(1.0, per_minute), 60) if per_minute else None
        self._key = _read_key(key_name)
        self.lost: Callable[[Request], Awaitable[None]] | None = None
        self._silent, self._since = 0, 0.0
        self._clients: list[AsyncOpenAI] = []
        self._free: list[AsyncOpenAI] = []
        self.client = self._another()

    async def close(self) -> None:
        """Let the connections go."""
        await asyncio.gather(*(client.close() for client in self._clients))

    async def send(self, call: Request) -> Response:
        """Return what came of a call; raises `DistilError` where the run cannot go on."""
        try:
            sent = await self._body(call)
        except PostError as error:
            return Response(status="failed", reason=str(error), host=self.host)
        started = time.monotonic()
        failures = lost = 0
        while True:
            try:
                reply = await self._once(sent)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                fault = classify_error(error, self._key)
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
                return Response(
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

    async def _body(self, call: Request) -> dict[str, Any]:
        dialect = self.dialects.get(call.model, ServerDialect())
        if any(turn.picture for turn in call.turns):  # reading and shrinking it takes a while
            return await asyncio.to_thread(make_request_body, call, dialect)
        return make_request_body(call, dialect)

    async def _once(self, sent: dict[str, Any]) -> Response:
        if self._pace:
            await self._pace.acquire()
        async with self.gate:
            try:
                answer = await self._posted(sent)
            except openai.RateLimitError as error:
                fault = classify_error(error, self._key)
                if fault.kind == "limited":
                    self.gate.limited(fault.wait)
                raise
            self.gate.succeeded()
        return parse_completion(answer, self.host)

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

    def _listen(self, fault: ServerFault) -> None:
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


def _read_key(name: str | None) -> str:
    """Return the key, without the line end that a file of secrets leaves behind it."""
    names = _KEY_NAMES if name is None else (name,)
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
