"""The response to a request: what a completion says, and what a server's error means."""

import json
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal, NamedTuple

import openai

CallStatus = Literal["ok", "refused", "invalid", "failed"]
CALL_STATUSES: tuple[CallStatus, ...] = ("ok", "refused", "invalid", "failed")


class TokenUsage(NamedTuple):
    """Tokens as the server counted them; `cached` are among `prompt`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Response(NamedTuple):
    """What came of sending a request.

    `refused` and `failed` are set where the server says so itself, with the reason; otherwise
    `raw` is still to be read. `tries` are requests sent, `lost` those of them whose answer may
    have been made, and billed, without reaching us.
    """

    raw: str = ""
    finish: str = ""
    status: CallStatus | None = None
    reason: str = ""
    usage: TokenUsage = TokenUsage()
    model: str = ""
    request: str = ""
    host: str = ""
    tries: int = 1
    lost: int = 0
    seconds: float = 0.0


def parse_completion(answer: Any, host: str) -> Response:
    """Return what a chat completion's JSON says, refusals by signal; `ValueError` if it is none."""
    if not isinstance(answer, Mapping) or not ("choices" in answer or "usage" in answer):
        raise ValueError(f"no chat completion: {str(answer)[:100]}")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    response = Response(
        usage=_read_usage(answer.get("usage")),
        model=replace_surrogates(answer.get("model")),
        request=replace_surrogates(answer.get("id")),
        host=host,
    )
    if not isinstance(choice, Mapping):
        if answer.get("error"):  # some gateways report an outage behind them with status 200
            raise ValueError(f"no chat completion: {str(answer['error'])[:100]}")
        rest = json.dumps({**answer, "usage": None})[:2000]  # others drop a blocked candidate
        return response._replace(status="refused", reason="no choices", raw=rest)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise ValueError(f"no message in a chat completion: {str(choice)[:100]}")
    refusal = replace_surrogates(message.get("refusal"))
    finish = replace_surrogates(choice.get("finish_reason"))
    content = message.get("content")
    if isinstance(content, list):  # which some servers give in parts
        parts = (part for part in content if isinstance(part, Mapping))
        content = "".join(str(part.get("text") or "") for part in parts)
    response = response._replace(raw=replace_surrogates(content) or refusal, finish=finish)
    if refusal:
        return response._replace(status="refused", reason="refusal")
    if finish in ("content_filter", "refusal"):
        return response._replace(status="refused", reason=finish)
    return response


def replace_surrogates(text: Any) -> str:
    """Return a text that can be kept: half a surrogate pair, as a cut leaves it, becomes `?`."""
    return str(text or "").encode(errors="replace").decode()


def _read_usage(usage: Any) -> TokenUsage:
    """Return the tokens that a server counted, zeros where it did not."""
    if not isinstance(usage, Mapping):
        return TokenUsage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    return TokenUsage(*(count if isinstance(count, int) else 0 for count in counts))


FaultKind = Literal["limited", "transient", "refused", "failed", "fatal"]

_FILTERED = (
    "content_filter", "content_policy", "contentfilter", "content policy", "safety system",
    "content management policy", "responsibleaipolicy", "moderation", "prohibited_content",
)  # fmt: skip
_EMPTY_PURSE = ("insufficient_quota", "billing", "credit balance", "payment required")
_LONGEST_WAIT = 120.0


class ServerFault(NamedTuple):
    """An error by what to do about it.

    `wait` is what the server asked for, in seconds. `lost` says that an answer may have been made,
    and billed, that never came. `raw` is the body, as evidence.
    """

    kind: FaultKind
    reason: str
    wait: float | None = None
    lost: bool = False
    raw: str = ""

    def make_response(self, host: str, tries: int) -> Response:
        """Return the response to a request that ends by this error."""
        status: CallStatus = "refused" if self.kind == "refused" else "failed"
        return Response(raw=self.raw, status=status, reason=self.reason, host=host, tries=tries)


def classify_error(error: Exception, key: str) -> ServerFault:
    """Return what an error of the client means; `key` is taken out of what the server says."""
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return ServerFault("transient", "no answer within the deadline", lost=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        text = _shorten(str(cause) or type(cause).__name__, key)
        was_sent = "connect" not in type(cause).__name__.lower()  # else it was refused before
        return ServerFault("transient", f"connection: {text}", lost=was_sent)
    if not isinstance(error, openai.APIStatusError):  # a 200 whose body is no answer
        reason = f"unreadable answer: {_shorten(str(error), key)}"
        return ServerFault("transient", reason, lost=True)
    code = str(getattr(error, "code", "") or "")
    text = _shorten(read_error_body(error.body) or error.message, key)
    return classify_status(error.status_code, text, code, _read_retry_after(error.response.headers))


def classify_status(
    status: int, text: str, code: str = "", wait: float | None = None
) -> ServerFault:
    """Return what an HTTP status means, with the server's words and the code that it gave."""
    reason = f"{status} {text}".strip()
    low = f"{code} {text}".lower()
    if status in (400, 403, 422, 451) and any(word in low for word in _FILTERED):
        return ServerFault("refused", f"filtered: {status}", raw=text)
    if status == 402 or (status == 429 and any(word in low for word in _EMPTY_PURSE)):
        return ServerFault("fatal", reason)
    if status == 429:
        return ServerFault("limited", reason, wait)
    if status in (408, 409, 425) or status >= 500:
        return ServerFault("transient", reason, wait)
    if status in (401, 403, 404, 405):
        return ServerFault("fatal", reason)
    return ServerFault("failed", reason, raw=text)


def _read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), if it does."""
    wait = headers.get("retry-after", "")
    with suppress(ValueError):
        return min(max(0.0, float(wait)), _LONGEST_WAIT)
    with suppress(ValueError, TypeError):
        return min(max(0.0, parsedate_to_datetime(wait).timestamp() - time()), _LONGEST_WAIT)
    return None


def read_error_body(body: object) -> str:
    """Return what the body of an error says, with its code; empty where it says nothing."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, Mapping) else None
        code = inner.get("code") if isinstance(inner, Mapping) else None
        return f"{message or inner}" + (f" ({code})" if isinstance(code, str) else "")
    return str(body or "")


def _shorten(text: str, key: str) -> str:
    """Return a server's words in one short line, without the key."""
    if len(key) > 4:
        text = text.replace(key, "[key]")
    return replace_surrogates(" ".join(text.split())[:300])
