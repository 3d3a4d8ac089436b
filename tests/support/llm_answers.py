"""What the pretended language model says: a text of the schema it was sent."""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b, shake_256
from typing import Any, NamedTuple

_LIST = """
amber basket candle dragon engine feather garden harbour island jacket kettle
lantern meadow needle orchard pepper quarry ribbon saddle timber umbrella valley
willow yonder anchor bridge cotton donkey ember forest goblet hammer iron
jigsaw kernel ladder marble nickel oyster pillow quiver raven silver tunnel
urchin velvet walnut yellow acorn bucket copper dahlia elbow falcon glacier
hazel indigo jasper kitten lemon mitten nutmeg olive parcel
"""
WORDS = _LIST.split()
PICTURE = 300  # tokens that a picture adds to a prompt
_LONG = {"description": 24, "rationale": 40}  # words of a text; others have eight


class Quirks(NamedTuple):
    """How the server differs from the best of its kind.

    `obeys` are the spellings of a schema that it obeys, `chokes` those it answers 500 to;
    `blind` drops pictures, `silent` counts no tokens, `endless` ignores limits, `modern` takes
    `max_completion_tokens` alone, `cold` refuses a temperature.
    """

    obeys: tuple[str, ...] = ("json_schema", "json_object+schema")
    chokes: tuple[str, ...] = ()
    blind: bool = False
    silent: bool = False
    endless: bool = False
    modern: bool = False
    cold: bool = False


class Bill(NamedTuple):
    """Tokens as this provider bills them; `cached` are among `prompt`."""

    prompt: int
    cached: int
    completion: int


class Said(NamedTuple):
    """An answer: the message, why it ended, and its bill."""

    message: dict[str, Any]
    finish: str
    bill: Bill


def digest(body: bytes) -> bytes:
    """Return what a request is known by."""
    return blake2b(body, digest_size=16).digest()


def chance(name: bytes, attempt: int, seed: int) -> float:
    """Return a number in [0, 1) that this attempt of this request always draws."""
    drawn = blake2b(name + attempt.to_bytes(4, "big"), digest_size=8, key=b"%d" % seed).digest()
    return int.from_bytes(drawn, "big") / 2**64


def complain(sent: Mapping[str, Any], quirks: Quirks) -> tuple[int, str] | None:
    """Return the status and the words with which a request is turned down, if it is."""
    if _spelling(sent) in quirks.chokes:
        return 500, "Internal Server Error"
    if quirks.modern and "max_tokens" in sent:
        return 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    if quirks.cold and "temperature" in sent:
        return 400, "Unsupported value: 'temperature' does not support 0.0 with this model."
    return None


def say(sent: Mapping[str, Any], name: bytes, quirks: Quirks, fault: str = "") -> Said:
    """Return the answer to a request, with what is wrong with it by the name of the fault."""
    prompt, cached = _counted(sent, quirks)
    schema = _schema(sent) if _spelling(sent) in quirks.obeys else None
    letters = iter(shake_256(name).digest(1000))
    text = json.dumps(_fill(schema, "", letters)) if schema else _prose(letters, 20)
    finish, message = "stop", {"role": "assistant", "content": text}
    if fault == "invalid":
        message["content"] = "Here you are: " + text[: len(text) * 2 // 3]
    elif fault == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    elif fault == "filter":
        message["content"], finish = "", "content_filter"
    elif fault == "apology":
        message["content"] = "I'm sorry, but I can't assist with that request."
    elif fault == "truncated":
        message["content"], finish = text[: len(text) // 2], "length"
    length = len(message["content"] or message.get("refusal") or "")
    limit = sent.get("max_tokens") or sent.get("max_completion_tokens")
    if limit and not quirks.endless and length > limit * 4:
        message["content"], finish, length = message["content"][: limit * 4], "length", limit * 4
    return Said(message, finish, Bill(prompt, cached, -(-length // 4)))


def completion(said: Said, model: str, name: bytes, quirks: Quirks) -> dict[str, Any]:
    """Return an answer as the chat completions route puts it."""
    prompt, cached, out = said.bill
    whole: dict[str, Any] = {
        "id": f"chatcmpl-{name.hex()[:24]}",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": model,
        "choices": [
            {"index": 0, "message": said.message, "finish_reason": said.finish, "logprobs": None}
        ],
    }
    if not quirks.silent:
        whole["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": out,
            "total_tokens": prompt + out,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return whole


def _spelling(sent: Mapping[str, Any]) -> str:
    form = sent.get("response_format") or {}
    kind = str(form.get("type", ""))
    return "json_object+schema" if kind == "json_object" and "schema" in form else kind


def _schema(sent: Mapping[str, Any]) -> Any:
    form = sent["response_format"]
    return form["json_schema"]["schema"] if "json_schema" in form else form.get("schema")


def _counted(sent: Mapping[str, Any], quirks: Quirks) -> tuple[int, int]:
    """Return the tokens of a prompt, and those of its first turn, which are always cached."""
    chars = pictures = 0
    for turn in sent["messages"]:
        content = turn["content"]
        for part in content if isinstance(content, list) else [{"text": content}]:
            chars += len(part.get("text", ""))
            pictures += "image_url" in part
    first = sent["messages"][0]["content"]
    cached = len(first) // 4 if isinstance(first, str) else 0
    return chars // 4 + (0 if quirks.blind else pictures * PICTURE), cached


def _fill(schema: Any, name: str, letters: Iterator[int]) -> Any:
    if "enum" in schema:
        return schema["enum"][next(letters) % len(schema["enum"])]
    match schema["type"]:
        case "object":
            return {key: _fill(each, key, letters) for key, each in schema["properties"].items()}
        case "array":
            return [_fill(schema["items"], name, letters) for _ in range(4)]
        case "boolean":
            return next(letters) > 64
        case "integer" | "number":
            return next(letters) % 5 + 1
    return _prose(letters, _LONG.get(name, 8))


def _prose(letters: Iterator[int], words: int) -> str:
    return " ".join(WORDS[next(letters) % len(WORDS)] for _ in range(words))
