"""The client of an OpenAI-compatible server: a request in, a response out."""

import asyncio
import json
import math
import os
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
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
    """Whatever answers requests: a server, or an intention LM on this machine."""

    async def send(self, request: Request) -> Response:
        """Return what came of a request."""

    async def close(self) -> None:
        """Let what was held go."""


class LossBook(Protocol):
    """Whoever pays for requests, and is told of an answer that may have been billed and lost."""

    async def count_lost(self, request: Request) -> None:
        """Count the answer as billed, before the request is sent once more."""


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


# The client's own chat.completions.create turns every message and every answer through typed
# models, which takes more of the processor than all the rest of a call.
_ROUTE = "/chat/completions"
# Connections of one client: it looks through all that it has at the start and end of each call.
_SHARE = 8
_KEY_NAMES = ("MIKO_API_KEY", "OPENAI_API_KEY")
_FIRST_PAUSE = 0.5  # seconds after a transient error, doubled each time
_LONGEST_PAUSE = 20.0
_ALARM = 16  # transient errors in a row, over all requests, before silence counts as an outage


class TeacherClient:
    """A server's models, asked through one gate.

    The key comes from the environment alone. A 429 is waited for and asked again, without end and
    without counting as a failure. Lost connections and 5xx are tried again `tries` times; when
    nothing at all has come back for `patience` seconds, `DistilError` ends the run, in which
    nothing is lost. A key, a model or a route that the server refuses raises at once. `books`, if
    set, are told before a request is sent again whose answer may have been billed.
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
        self.books: LossBook | None = None
        self._pace = AsyncLimiter(max(1.0, per_minute), 60) if per_minute else None
        self._key = _read_key(key_name)
        self._silent, self._since = 0, 0.0
        self._clients: list[AsyncOpenAI] = []
        self._free: list[AsyncOpenAI] = []
        self.client = self._add_client()

    async def close(self) -> None:
        """Let the connections go."""
        await asyncio.gather(*(client.close() for client in self._clients))

    async def send(self, request: Request) -> Response:
        """Return what came of a request; raises `DistilError` where the run cannot go on."""
        try:
            body = await make_body(request, self.dialects)
        except PostError as error:
            return Response(status="failed", reason=str(error), host=self.host)
        started = time.monotonic()
        failures = lost = 0
        while True:
            outcome = await self._try_once(body)
            if isinstance(outcome, Response):
                seconds = time.monotonic() - started
                return outcome._replace(tries=failures + 1, lost=lost, seconds=seconds)
            if outcome.kind == "limited":
                continue
            failures += outcome.kind == "transient"
            lost += outcome.lost
            if outcome.kind in ("refused", "failed") or failures >= self.tries:
                seconds, tries = time.monotonic() - started, max(1, failures)
                response = outcome.make_response(self.host, tries)
                return response._replace(lost=lost, seconds=seconds)
            if outcome.kind == "fatal":
                raise DistilError(f"{self.server}: {outcome.reason}")
            if outcome.lost and self.books:
                await self.books.count_lost(request)
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 1))
            pause *= random.uniform(0.8, 1.2)  # so that requests that failed together part
            await asyncio.sleep(outcome.wait or pause)

    async def _try_once(self, body: dict[str, Any]) -> Response | ServerFault:
        """Return what came of sending once; raises `DistilError` after too long a silence."""
        if self._pace:
            await self._pace.acquire()
        async with self.gate:
            try:
                completion = await self._post(body)
                self.gate.count_success()
                response = parse_completion(completion, self.host)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                fault = classify_error(error, self._key)
                if fault.kind == "limited":
                    self.gate.shut(fault.wait)
                    self._silent = 0
                if fault.kind == "transient":
                    self._count_silence(fault)
                return fault
        self._silent = 0
        return response

    async def _post(self, body: dict[str, Any]) -> object:
        client = self._free.pop() if self._free else self._add_client()
        try:
            async with asyncio.timeout(self.deadline):  # the client's own is for each read
                return await client.post(_ROUTE, body=body, cast_to=object)
        finally:
            self._free.append(client)

    def _add_client(self) -> AsyncOpenAI:
        """Return one more client, which then has room for more requests than this one."""
        client = AsyncOpenAI(
            base_url=self.server, api_key=self._key, max_retries=0, timeout=self.deadline
        )
        self._clients.append(client)
        self._free += [client] * (_SHARE - 1)
        return client

    def _count_silence(self, fault: ServerFault) -> None:
        """Count a transient error; raise once the server has been silent for too long."""
        self._since = self._since if self._silent else time.monotonic()
        self._silent += 1
        silence = time.monotonic() - self._since
        if self._silent >= _ALARM and silence > self.patience:
            raise DistilError(
                f"{self.server}: no answer for {silence:,.0f} seconds, last: {fault.reason}; "
                "what was answered is kept, the same command goes on from here"
            )


def _read_key(name: str | None) -> str:
    """Return the key, without the line end that a file of secrets leaves behind it."""
    for variable in _KEY_NAMES if name is None else (name,):
        key = os.environ.get(variable, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise DistilError(f"the key in {variable} holds characters that no header can carry")
        return key
    if name is not None:
        raise DistilError(f"the environment holds no key {name}")
    return "none"


async def make_body(request: Request, dialects: Mapping[str, ServerDialect]) -> dict[str, Any]:
    """Return the body of a request in the dialect of its model; raises `PostError`."""
    dialect = dialects.get(request.model, ServerDialect())
    if any(turn.picture for turn in request.turns):  # which takes a while to read and to shrink
        return await asyncio.to_thread(make_request_body, request, dialect)
    return make_request_body(request, dialect)


def make_request_body(request: Request, dialect: ServerDialect) -> dict[str, Any]:
    """Return the body of a request, as the chat completions route takes it; raises `PostError`.

    Every request names its sampling in full: the defaults of servers differ.
    """
    schema = make_wire_schema(request.answer)
    messages = make_chat_messages(request.turns)
    if dialect.schema in ("json_object", "prompt"):
        text = f"\nThe JSON schema of the answer: {json.dumps(schema, separators=(',', ':'))}"
        messages[0] = {**messages[0], "content": messages[0]["content"] + text}
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        dialect.limit: sampling.max_tokens,
        **_make_response_format(dialect.schema, schema),
    }
    if dialect.warm:
        body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.seed is not None or request.index:
        body["seed"] = (sampling.seed or 0) + request.index
    return body


def _make_response_format(mode: SchemaMode, schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema, "strict": True}
    formats: dict[str, dict[str, Any]] = {
        "json_schema": {"type": "json_schema", "json_schema": named},
        "json_object+schema": {"type": "json_object", "schema": schema},
        "json_object": {"type": "json_object"},
    }
    return {"response_format": formats[mode]} if mode in formats else {}


# The constants that proved good in published clients of the kind: a quarter less at a 429, at most
# once in two seconds; one more for 25 successes.
_DECREASE = 0.75
GATE_SUCCESSES = 25
GATE_COOL_SECONDS = 2.0
_FIRST_WAIT = 0.5  # seconds after a 429 that names no time, doubled at each one in a row
_LONGEST_WAIT = 16.0
_TICK = 0.2  # seconds after an opening in which one request goes, then two, then four
_WIDE = 10  # ticks after which so many may go that the limit alone counts


class RequestGate:
    """Additive increase, multiplicative decrease of the requests under way; use `async with`.

    A request that the server turned away (429) is no failure: the gate shuts for as long as the
    server said, and the caller comes again. It then opens step by step, for a limit on requests
    a minute lets few of those through that waited.
    """

    def __init__(self, ceiling: int = 64) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.under_way = 0
        self.num_limited = 0
        self._opens = -math.inf
        self._gone = 0  # requests since the last opening
        self._cut = -GATE_COOL_SECONDS
        self._successes = 0
        self._in_a_row = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        while self._count_room(asyncio.get_running_loop().time()) <= 0:
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

    async def __aexit__(self, *_: object) -> None:
        self.under_way -= 1
        self._wake()

    def count_success(self) -> None:
        """Count an answer; enough of them raise the limit by one."""
        self._in_a_row = 0
        self._successes += 1
        if self._successes >= GATE_SUCCESSES:
            self._successes = 0
            self.limit = min(self.ceiling, self.limit + 1)

    def shut(self, wait: float | None) -> None:
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

    def _count_ticks(self, now: float) -> int:
        """Return how many ticks ago the gate opened, -1 while it is shut."""
        ticks = (now - self._opens) / _TICK + 1e-6  # a clock may call a hair too early
        return math.floor(max(-1.0, min(ticks, _WIDE)))

    def _count_room(self, now: float) -> int:
        """Return how many requests may go now."""
        ticks = self._count_ticks(now)
        room = int(self.limit) - self.under_way
        return room if ticks == _WIDE else min(room, 2 ** (ticks + 1) - 1 - self._gone)

    def _wake(self) -> None:
        """Let as many waiters try as there is room for; until wide open, come again at a tick."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = loop.time()
        room = self._count_room(now)
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1
        ticks = self._count_ticks(now)
        if self._waiting and ticks < _WIDE:
            self._timer = loop.call_at(self._opens + (ticks + 1) * _TICK, self._wake)
