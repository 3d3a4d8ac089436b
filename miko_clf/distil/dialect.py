"""How one server wants a call to be put: where the schema goes, and what it calls its limits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from miko_clf.distil.answer import wire_schema
from miko_clf.distil.call import Call, messages

Schema = Literal["json_schema", "json_object+schema", "json_object", "prompt"]
SCHEMAS: tuple[Schema, ...] = get_args(Schema)


@dataclass(frozen=True)
class Dialect:
    """What a model's server understands. Found out by the probe, kept with the answers.

    `schema` says how the shape of an answer is asked for: three spellings of `response_format`, or
    in the prompt. `limit` is the name of the longest answer, `warm` that a temperature is taken.
    """

    schema: Schema = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    warm: bool = True


def body(call: Call, dialect: Dialect) -> dict[str, Any]:
    """Return the request of a call, as the chat completions route takes it; raises `PostError`.

    Every call names its sampling in full: the defaults of servers differ.
    """
    wanted = wire_schema(call.answer)
    turns = messages(call.turns)
    if dialect.schema in ("json_object", "prompt"):
        told = f"\nThe JSON schema of the answer: {json.dumps(wanted, separators=(',', ':'))}"
        turns[0] = {**turns[0], "content": turns[0]["content"] + told}
    sampling = call.sampling
    sent: dict[str, Any] = {
        "model": call.model,
        "messages": turns,
        dialect.limit: sampling.max_tokens,
        **_format(dialect.schema, wanted),
    }
    if dialect.warm:
        sent |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.seed is not None:
        sent["seed"] = sampling.seed + call.index
    elif call.index:
        sent["seed"] = call.index
    return sent


def _format(schema: Schema, wanted: Mapping[str, Any]) -> dict[str, Any]:
    match schema:
        case "json_schema":
            inner = {"name": "answer", "schema": wanted, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": inner}}
        case "json_object+schema":
            return {"response_format": {"type": "json_object", "schema": wanted}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
    return {}
