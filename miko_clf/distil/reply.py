"""What a chat completion says, whatever the server leaves out: text, refusal, tokens."""

import json
from collections.abc import Mapping
from typing import Any

from miko_clf.distil.call import Reply, Usage


def reply_of(answer: Any, host: str) -> Reply:
    """Return what the JSON of a chat completion says, refusals by their signals.

    Raises `ValueError` where it is none.
    """
    if not isinstance(answer, Mapping) or not ("choices" in answer or "usage" in answer):
        raise ValueError(f"no chat completion: {str(answer)[:100]}")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    reply = Reply(
        usage=_usage(answer.get("usage")),
        model=sound(answer.get("model")),
        request=sound(answer.get("id")),
        host=host,
    )
    if not isinstance(choice, Mapping):
        if answer.get("error"):  # some gateways report an outage behind them with status 200
            raise ValueError(f"no chat completion: {str(answer['error'])[:100]}")
        rest = json.dumps({**answer, "usage": None})[:2000]  # others drop a blocked candidate
        return reply._replace(status="refused", reason="no choices", raw=rest)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise ValueError(f"no message in a chat completion: {str(choice)[:100]}")
    refusal = sound(message.get("refusal"))
    finish = sound(choice.get("finish_reason"))
    reply = reply._replace(raw=_text(message.get("content")) or refusal, finish=finish)
    if refusal:
        return reply._replace(status="refused", reason="refusal")
    if finish in ("content_filter", "refusal"):
        return reply._replace(status="refused", reason=finish)
    return reply


def sound(text: Any) -> str:
    """Return a text that can be kept: half a surrogate pair, as a cut leaves it, becomes `?`."""
    return str(text or "").encode(errors="replace").decode()


def _text(content: Any) -> str:
    """Return the text of a message, which some servers give in parts."""
    if isinstance(content, list):
        content = "".join(
            str(part.get("text") or "") for part in content if isinstance(part, Mapping)
        )
    return sound(content)


def _usage(usage: Any) -> Usage:
    """Return the tokens that a server counted, zeros where it did not."""
    if not isinstance(usage, Mapping):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    return Usage(*(count if isinstance(count, int) else 0 for count in counts))
