"""What stands between the network and the scorer: limits, request ids, one form of error."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miko_clf.serve.wire import MAX_BODY, MIB, ErrorBody, WireError

# A body over the limit is read on and thrown away up to here, so that the answer arrives:
# a connection closed in the middle of an upload loses it.
_MAX_DISCARDED = 4 * MAX_BODY
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_log = logging.getLogger(__name__)

Take = Callable[[int], None]


class Room:
    """A bound on what is held at once, of posts or of bytes; used from the event loop alone."""

    def __init__(self, size: int, wait: Callable[[int], int]) -> None:
        self.size = size
        self.taken = 0
        self._wait = wait

    @contextmanager
    def hold(self) -> Iterator[Take]:
        """Give a function that takes room until the block ends; it raises `WireError` (429)."""
        mine = 0

        def take(amount: int) -> None:
            nonlocal mine
            if self.taken + amount > self.size:
                message = "the server has as much work as it can hold; try again later"
                raise WireError(429, "busy", message, retry_after=self._wait(self.taken))
            self.taken += amount
            mine += amount

        try:
            yield take
        finally:
            self.taken -= mine


class Guard:
    """ASGI middleware that names every request and answers every failure in one form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; what it raises becomes an answer, unless one has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, named)
        except ClientDisconnect:
            return
        except Exception as error:
            if begun:
                raise
            await answer(_as_wire_error(error, request_id), request_id)(scope, receive, named)


def answer(error: WireError, request_id: str) -> Response:
    """Return the response that says an error."""
    body = ErrorBody(error=error.message, code=error.code, request_id=request_id)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(body.model_dump_json(), error.status, headers, "application/json")


async def read_body(request: Request, take: Take) -> bytes:
    """Return the body of a JSON request, counted as it comes; raises `WireError` (413, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or "content-encoding" in request.headers:
        message = "send application/json, without a content encoding"
        raise WireError(415, "unsupported_type", message)
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            take(len(chunk))
            body += chunk
        elif size > _MAX_DISCARDED:
            break
    if size > MAX_BODY:
        raise WireError(413, "too_large", f"the body is larger than {MAX_BODY // MIB} MiB")
    return bytes(body)


def _as_wire_error(error: Exception, request_id: str) -> WireError:
    if isinstance(error, WireError):
        return error
    _log.error("request %s failed", request_id, exc_info=error)
    return WireError(500, "internal", "the server failed; its log says why under this request id")
