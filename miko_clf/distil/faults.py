"""What an error of a server means: wait, try again, take it as an answer, or stop."""

from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Literal, NamedTuple

import openai

from miko_clf.distil.reply import sound

Kind = Literal["limited", "transient", "refused", "failed", "fatal"]

_FILTERED = (
    "content_filter",
    "content_policy",
    "contentfilter",
    "content policy",
    "content management policy",
    "responsibleaipolicy",
    "moderation",
    "safety system",
    "prohibited_content",
)
_EMPTY_PURSE = ("insufficient_quota", "billing", "credit balance", "payment required")
_LONGEST_WAIT = 120.0


class Fault(NamedTuple):
    """An error by what to do about it.

    `wait` is what the server asked for, in seconds. `lost` says that an answer may have been made,
    and billed, that never came. `raw` is the body, as evidence.
    """

    kind: Kind
    reason: str
    wait: float | None = None
    lost: bool = False
    raw: str = ""


def fault_of(error: Exception, key: str) -> Fault:
    """Return what an error of the client means; `key` is taken out of what the server says."""
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Fault("transient", "no answer within the deadline", lost=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        said = _said(str(cause) or type(cause).__name__, key)
        return Fault("transient", f"connection: {said}", lost=not _unsent(cause))
    if not isinstance(error, openai.APIStatusError):  # a 200 whose body is no answer
        return Fault("transient", f"unreadable answer: {_said(str(error), key)}", lost=True)
    code = str(getattr(error, "code", "") or "")
    text = _said(words(error.body) or error.message, key)
    return fault_of_status(error.status_code, text, code, _wait(error.response.headers))


def fault_of_status(status: int, text: str, code: str = "", wait: float | None = None) -> Fault:
    """Return what an HTTP status means, with what the server said and the code that it gave."""
    reason = f"{status} {text}".strip()
    low = f"{code} {text}".lower()
    if status in (400, 403, 422, 451) and any(word in low for word in _FILTERED):
        return Fault("refused", f"filtered: {status}", raw=text)
    if status == 402 or (status == 429 and any(word in low for word in _EMPTY_PURSE)):
        return Fault("fatal", reason)
    if status == 429:
        return Fault("limited", reason, wait)
    if status in (408, 409, 425) or status >= 500:
        return Fault("transient", reason, wait)
    if status in (401, 403, 404, 405):
        return Fault("fatal", reason)
    return Fault("failed", reason, raw=text)


def _unsent(cause: BaseException) -> bool:
    """Say whether a connection was refused before anything was sent."""
    return "connect" in type(cause).__name__.lower()


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), if it does."""
    given = headers.get("retry-after", "")
    with suppress(ValueError):
        return min(max(0.0, float(given)), _LONGEST_WAIT)
    with suppress(ValueError, TypeError):
        return min(max(0.0, parsedate_to_datetime(given).timestamp() - time()), _LONGEST_WAIT)
    return None


def words(body: object) -> str:
    """Return what the body of an error says, with its code; empty where it says nothing."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, Mapping) else None
        code = inner.get("code") if isinstance(inner, Mapping) else None
        return f"{message or inner}" + (f" ({code})" if isinstance(code, str) else "")
    return str(body or "")


def _said(text: str, key: str) -> str:
    """Return a server's words in one short line, without the key."""
    if len(key) > 4:
        text = text.replace(key, "[key]")
    return sound(" ".join(text.split())[:300])
