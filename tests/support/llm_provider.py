"""The pretended provider: its quotas, its faults, its books."""

import argparse
import asyncio
import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.support.llm_answers import Quirks, Said, chance, complain, completion, digest, say
from tests.support.llm_batches import Batches, Pace

# Those from `drop_answered` on are answered, and billed.
FAULTS = (
    "limited", "limited_wait", "error", "busy", "busy_wait", "filtered", "drop",
    "drop_answered", "late", "garbage", "page", "slow",
    "invalid", "truncated", "refusal", "filter", "apology",
)  # fmt: skip
UNHEARD = ("drop_answered", "late", "garbage", "page")  # billed, and of no use to the client
_JSON = (b"content-type", b"application/json")
_TURNED_DOWN = {"limited": 429, "limited_wait": 429, "error": 500, "busy": 503, "busy_wait": 503}


class Meter:
    """Counts requests, and for how long how many of them were under way."""

    def __init__(self, under_way: int = 0) -> None:
        self.by: Counter[str] = Counter()
        self.seconds: Counter[int] = Counter()
        self.under_way = under_way
        self.first = self.last = 0.0
        self._since = time.monotonic()

    def step(self, more: int) -> None:
        now = time.monotonic()
        if self.under_way:
            self.seconds[self.under_way] += now - self._since
        self.first, self.last, self._since = self.first or now, now, now
        self.under_way += more


class Provider:
    """One provider: its quotas, its faults, its books."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.faults = {name: float(rate) for name, rate in given.fault}
        self.meter = Meter()
        self.attempts: Counter[bytes] = Counter()
        self.tokens, self.filled = float(given.rpm or 0), time.monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.log = os.open(given.log, flags, 0o644) if given.log else None
        pace = Pace(given.batch_seconds, given.batch_share)
        routes = [
            *Batches(self.batched, pace).routes,
            Route("/v1/models", self.models),
            Route("/_stats", self.stats),
            Route("/_faults", self.change, methods=["POST"]),
        ]
        self.rest = Starlette(routes=routes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/chat/completions":
            await self.rest(scope, receive, send)
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        self.meter.step(1)
        try:
            with suppress(OSError):  # the client is gone
                await self.chat(body, scope, send)
        finally:
            self.meter.step(-1)

    async def chat(self, body: bytes, scope: Any, send: Any) -> None:
        """Turn a request down, drop it, or answer it."""
        if denied := self._denied(scope):
            await _reply(send, *denied)
            return
        name, sent = digest(body), json.loads(body)
        attempt = self.attempts[name] = self.attempts[name] + 1
        if complaint := complain(sent, _quirks(sent["model"])):
            await _reply(send, complaint[0], _error(complaint[1]))
            return
        fault = self._fault(chance(name, attempt, self.given.seed))
        self.meter.by[fault or "ok"] += 1
        if fault in _TURNED_DOWN:
            headers = {"retry-after": "1"} if fault.endswith("wait") else {}
            await _reply(send, _TURNED_DOWN[fault], _error(f"injected: {fault}"), headers)
        elif fault == "filtered":
            said = _error("The response was filtered by the content policy.", "content_filter")
            await _reply(send, 400, said)
        elif fault == "drop":
            await _abort(scope)
        else:
            await self._answer(sent, name, attempt, fault, scope, send)

    async def _answer(
        self, sent: Any, name: bytes, attempt: int, fault: str, scope: Any, send: Any
    ) -> None:
        extra = {"slow": self.given.slow, "late": self.given.late}.get(fault, 0.0)
        if wait := self.given.latency + extra:
            await asyncio.sleep(wait)
        quirks = _quirks(sent["model"])
        said = say(sent, name, quirks, fault)
        whole = completion(said, sent["model"], name, quirks)
        self._write(sent, name, attempt, fault, said)
        if fault == "drop_answered":
            await _abort(scope)
        elif fault == "page":
            await _reply(send, 200, b"<html>Bad gateway</html>", {"content-type": "text/html"})
        elif fault == "garbage":
            await _reply(send, 200, json.dumps(whole).encode()[:-40])
        else:
            await _reply(send, 200, whole)

    def batched(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer one request of a batch: of the faults only those of content strike there."""
        name, sent = digest(body), json.loads(body)
        fault = self._fault(chance(name, 1, self.given.seed))
        if fault == "filtered":
            return 400, _error("The response was filtered.", "content_filter")
        quirks = _quirks(sent["model"])
        said = say(sent, name, quirks, fault)
        self._write(sent, name, 1, "batch", said)
        return 200, completion(said, sent["model"], name, quirks)

    async def models(self, request: Any) -> JSONResponse:
        listed = [{"id": name, "object": "model", "created": 0} for name in self.given.model]
        return JSONResponse({"object": "list", "data": listed})

    async def stats(self, request: Any) -> JSONResponse:
        meter = self.meter
        return JSONResponse(
            {
                "by": meter.by,
                "under_way": meter.under_way,
                "seconds": meter.seconds,
                "span": meter.last - meter.first,
            }
        )

    async def change(self, request: Any) -> JSONResponse:
        """Take other rates of faults, and begin the counts anew."""
        self.faults = {str(name): float(rate) for name, rate in (await request.json()).items()}
        self.meter = Meter(self.meter.under_way)
        return JSONResponse({})

    def _denied(self, scope: Any) -> tuple[Any, ...] | None:
        """Return the answer to one who has no key, no money or no requests left."""
        headers = dict(scope["headers"])
        if self.given.key and headers.get(b"authorization") != f"Bearer {self.given.key}".encode():
            given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
            return 401, _error(f"Incorrect API key provided: {given}.", "invalid_api_key")
        if self.given.quota:
            return 429, _error("You exceeded your current quota.", "insufficient_quota")
        if not self.given.rpm:
            return None
        now = time.monotonic()
        gained = (now - self.filled) * self.given.rpm / 60
        self.tokens, self.filled = min(self.given.rpm, self.tokens + gained), now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        self.meter.by["rpm"] += 1
        wait = math.ceil((1 - self.tokens) * 60 / self.given.rpm)
        said = {} if self.given.no_retry_after else {"retry-after": str(wait)}
        return 429, _error("Rate limit reached", "rate_limit_exceeded"), said

    def _fault(self, drawn: float) -> str:
        for name, rate in self.faults.items():
            drawn -= rate
            if drawn < 0:
                return name
        return ""

    def _write(self, sent: Any, name: bytes, attempt: int, fault: str, said: Said) -> None:
        if self.log is not None:
            row = (name.hex(), attempt, fault or "ok", sent["model"], *said.bill)
            os.write(self.log, ("\t".join(map(str, row)) + "\n").encode())


class Dropping(HttpToolsProtocol):
    """Lets the application cut a connection off."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["transport"] = self.transport  # type: ignore[typeddict-unknown-key]


async def _abort(scope: Any) -> None:
    scope["transport"].abort()
    await asyncio.sleep(0)  # so that the server knows of it


async def _reply(
    send: Any, status: int, whole: Any, headers: Mapping[str, str] | None = None
) -> None:
    body = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    sent = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    if not any(key == b"content-type" for key, _ in sent):
        sent.append(_JSON)
    sent.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


@lru_cache(maxsize=64)
def _quirks(model: str) -> Quirks:
    """Return the quirks that a model is named for: `any?blind=True&obeys=json_object`."""
    _, _, query = model.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    lists = {name: tuple(given.pop(name).split(",")) for name in ("obeys", "chokes") & given.keys()}
    return Quirks(**lists, **dict.fromkeys(given, True))
