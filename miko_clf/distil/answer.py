"""What an LLM must answer: one pydantic model a question, the schema it is sent, how it is read."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from miko_clf.data.post import RELATIONS, Relation

Words = Annotated[str, Field(min_length=1)]
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


class Answer(BaseModel):
    """Frozen; a key that was not asked for is passed over, one that is absent is a fault."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


class Described(Answer):
    """What the picture shows."""

    description: Words


class Keys(Answer):
    """What a post is about: MIKO's key information."""

    concept: Words
    action: Words
    object: Words
    emotion: Words
    keywords: list[str]


class Reasoned(Answer):
    """Why a label holds, or would."""

    rationale: Words


class Intended(Answer):
    """One intention: the completion of its relation's stem."""

    intention: Words


class Verdict(Answer):
    """What a judge says of one intention: is it reasonable, and how common is it."""

    plausible: bool
    typicality: Literal[1, 2, 3, 4, 5]


# Open comes first, as the thought from which the nine of ATOMIC follow.
ORDER: tuple[Relation, ...] = ("Open", *RELATIONS[:-1])
Ten: type[Answer] = create_model(  # type: ignore[call-overload]
    "Ten", __base__=Answer, **dict.fromkeys(ORDER, (Words, ...))
)


class Thought(Answer):
    """MIKO's three stages for a post without a picture, or whose picture is described."""

    key_information: Keys
    intentions: Ten  # type: ignore[valid-type]


class Seen(Answer):
    """MIKO's three stages in one answer, in their order."""

    description: Words
    key_information: Keys
    intentions: Ten  # type: ignore[valid-type]


@lru_cache(maxsize=256)
def judgement(keys: Sequence[str]) -> type[Answer]:
    """Return the model of a judge's answer: one verdict for each of the keys (a tuple)."""
    fields: Any = dict.fromkeys(keys, (Verdict, ...))
    made: type[Answer] = create_model("Judgement", __base__=Answer, **fields)
    return made


@lru_cache(maxsize=256)
def wire_schema(answer: type[Answer]) -> dict[str, Any]:
    """Return the JSON schema that servers are sent: types, enum, required and nothing else.

    Lengths and patterns stay here, where they are checked: decoders refuse some of them together.
    """
    whole = answer.model_json_schema()
    found = _portable(whole, whole.get("$defs", {}))
    assert isinstance(found, dict)
    return found


def read(raw: str, answer: type[Answer]) -> Answer | str:
    """Return the answer that the text holds, or one line saying why it holds none."""
    fenced = _FENCE.match(raw)
    text = fenced.group(1) if fenced else raw
    start = text.find("{")
    if start < 0:
        return "no JSON object in the answer"
    try:  # decoders let raw control characters into strings, which strict JSON refuses
        value, _ = json.JSONDecoder(strict=False).raw_decode(text[start:])
        return answer.model_validate(value)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at character {start + error.pos}"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    except RecursionError:
        return "not valid JSON: nested too deeply"


def _portable(node: Any, known: dict[str, Any]) -> Any:
    if "$ref" in node:
        return _portable(known[node["$ref"].rsplit("/", 1)[1]], known)
    if "enum" in node:
        return {"type": node["type"], "enum": node["enum"]}
    if node["type"] == "object":
        fields = {name: _portable(each, known) for name, each in node["properties"].items()}
        return {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        }
    if node["type"] == "array":
        return {"type": "array", "items": _portable(node["items"], known)}
    return {"type": node["type"]}
