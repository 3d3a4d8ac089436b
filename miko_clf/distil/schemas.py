"""What an LLM must answer: a pydantic model a question, its JSON schema, how it is read."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from miko_clf.data.post import RELATIONS, Relation

_Words = Annotated[str, Field(min_length=1)]
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


class AnswerSchema(BaseModel):
    """Frozen; a key that was not asked for is passed over, one that is absent is a fault."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


class DescriptionAnswer(AnswerSchema):
    """What the picture shows."""

    description: _Words


class KeyInformationAnswer(AnswerSchema):
    """What a post is about: MIKO's key information."""

    concept: _Words
    action: _Words
    object: _Words
    emotion: _Words
    keywords: list[str]


class RationaleAnswer(AnswerSchema):
    """Why a label holds, or would."""

    rationale: _Words


class IntentionAnswer(AnswerSchema):
    """One intention: the completion of its relation's stem."""

    intention: _Words


class JudgeVerdict(AnswerSchema):
    """What a judge says of one intention: is it reasonable, and how common is it."""

    plausible: bool
    typicality: Literal[1, 2, 3, 4, 5]


# Open comes first, as the thought from which the nine of ATOMIC follow.
RELATION_ORDER: tuple[Relation, ...] = ("Open", *RELATIONS[:-1])
TenIntentionsAnswer: type[AnswerSchema] = create_model(  # type: ignore[call-overload]
    "Ten", __base__=AnswerSchema, **dict.fromkeys(RELATION_ORDER, (_Words, ...))
)


class ThoughtAnswer(AnswerSchema):
    """MIKO's three stages for a post without a picture, or whose picture is described."""

    key_information: KeyInformationAnswer
    intentions: TenIntentionsAnswer  # type: ignore[valid-type]


class SeenAnswer(AnswerSchema):
    """MIKO's three stages in one answer, in their order."""

    description: _Words
    key_information: KeyInformationAnswer
    intentions: TenIntentionsAnswer  # type: ignore[valid-type]


@lru_cache(maxsize=256)
def make_judge_schema(keys: Sequence[str]) -> type[AnswerSchema]:
    """Return the model of a judge's answer: one verdict for each of the keys (a tuple)."""
    fields: Any = dict.fromkeys(keys, (JudgeVerdict, ...))
    return create_model("Judgement", __base__=AnswerSchema, **fields)


@lru_cache(maxsize=256)
def make_wire_schema(answer: type[AnswerSchema]) -> dict[str, Any]:
    """Return the JSON schema that servers are sent: types, enum, required and nothing else.

    Lengths and patterns stay here, where they are checked: decoders refuse some of them together.
    """
    whole = answer.model_json_schema()
    return dict(_make_portable(whole, whole.get("$defs", {})))


def parse_answer(raw: str, answer: type[AnswerSchema]) -> AnswerSchema | str:
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


def _make_portable(node: Any, known: dict[str, Any]) -> Any:
    if "$ref" in node:
        return _make_portable(known[node["$ref"].rsplit("/", 1)[1]], known)
    if "enum" in node:
        return {"type": node["type"], "enum": node["enum"]}
    if node["type"] == "object":
        fields = {name: _make_portable(part, known) for name, part in node["properties"].items()}
        return {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        }
    if node["type"] == "array":
        return {"type": "array", "items": _make_portable(node["items"], known)}
    return {"type": node["type"]}
