"""What stands between the network and the scorer: request ids, body limits, error answers."""

import logging
import re
from collections.abc import Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miko_clf.serve.schemas import MAX_BODY_BYTES, MEBIBYTE, ErrorResponse, RequestError

# A body over the limit is read on and thrown away up to here, so that the answer arrives:
# a connection closed in the middle of an upload loses it.
_MAX_DISCARDED = 4 * MAX_BODY_BYTES
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_logger = logging.getLogger(__name__)

TakeCapacity = Callable[[int], None]


class RequestMiddleware:
    """ASGI middleware that names every request and answers every failure in one form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; what it raises becomes an answer, unless one has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
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
            response = make_error_response(_as_request_error(error, request_id), request_id)
            await response(scope, receive, named)


def make_error_response(error: RequestError, request_id: str) -> Response:
    """Return the response that says an error."""
    body = ErrorResponse(error=error.message, code=error.code, request_id=request_id)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(body.model_dump_json(), error.status, headers, "application/json")


async def read_json_body(request: Request, take: TakeCapacity) -> bytes:
    """Return the body of a JSON request, counted as it comes; raises `RequestError` (413, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or "content-encoding" in request.headers:
        message = "send application/json, without a content encoding"
        raise RequestError(415, "unsupported_type", message)
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            take(len(chunk))
            body += chunk
        elif size > _MAX_DISCARDED:
            break
    if size > MAX_BODY_BYTES:
        message = f"the body is larger than {MAX_BODY_BYTES // MEBIBYTE} MiB"
        raise RequestError(413, "too_large", message)
    return bytes(body)


def _as_request_error(error: Exception, request_id: str) -> RequestError:
    if isinstance(error, RequestError):
        return error
    _logger.error("request %s failed", request_id, exc_info=error)
    message = "the server failed; its log says why under this request id"
    return RequestError(500, "internal", message)
