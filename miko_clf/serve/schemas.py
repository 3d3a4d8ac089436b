"""What is said over HTTP: requests, answers, and the one form of every error."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from miko_clf.data.image_formats import HEAD_BYTES, is_readable_format, name_image_format
from miko_clf.data.post import Post, Relation
from miko_clf.serve.engine import MAX_BATCH
from miko_clf.serve.postprocess import Score

MEBIBYTE = 1024 * 1024
MAX_BODY_BYTES = 8 * MEBIBYTE
_MAX_TEXT = 10_000
_MAX_IMAGE_BYTES = 5 * MEBIBYTE
_IMAGE_SCHEMA = {"contentEncoding": "base64", "maxLength": -(-_MAX_IMAGE_BYTES // 3) * 4}
_MAX_INTENTIONS = 20
_MAX_INTENTION = 1_000
_MAX_KEYS = 16  # of an object; to list a million unknown ones would take seconds
_VALIDATION_MESSAGES = {
    "extra_forbidden": "is not a key that is read",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_type": "must be an object",
    "string_too_long": "is longer than {max_length:,} characters",
    "string_too_short": "is empty",
    "string_type": "must be a string",
    "too_long": "holds more than {max_length} entries",
}


@dataclass(eq=False)
class RequestError(Exception):
    """Why a request is not answered: an HTTP status, a word for programs, a line for people."""

    status: int
    code: str
    message: str
    retry_after: int | None = None


class WireModel(BaseModel):
    """Frozen, closed to keys that it does not know, and no type is taken for another."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class IntentionPayload(WireModel):
    """One reason for posting."""

    relation: Relation
    """Relation of ATOMIC, or Open."""
    text: str = Field(min_length=1, max_length=_MAX_INTENTION)


class PostPayload(WireModel):
    """A post: a text, an image, or both."""

    id: str | None = Field(default=None, min_length=1, max_length=256)
    """Comes back with the score; by default the place in the request, from 0."""
    text: str | None = Field(default=None, max_length=_MAX_TEXT)
    image: Annotated[str, Field(json_schema_extra=_IMAGE_SCHEMA)] | None = None
    """An encoded JPEG, PNG, WebP, GIF or AVIF, or HEIC if the server has it, in base64: 5 MiB."""
    description: str | None = Field(default=None, max_length=_MAX_TEXT)
    """What the image shows, for systems that read it."""
    intentions: list[IntentionPayload] | None = Field(default=None, max_length=_MAX_INTENTIONS)


class ScoreRequest(WireModel):
    """Posts to be scored."""

    posts: list[PostPayload] = Field(max_length=MAX_BATCH)
    arm: Literal["with", "student", "without"] | None = None
    """What stands for the author's intention; by default the best that each post allows."""


class ServedModel(WireModel):
    """Which bundle answered."""

    name: str
    digest: str
    """SHA-256 of the bundle's manifest, which holds that of every other file."""


class ScoreResponse(WireModel):
    """A score for each post, in order."""

    scores: list[Score]
    model: ServedModel


class HealthResponse(WireModel):
    """That the server is there."""

    status: Literal["live", "ready"]


class ErrorResponse(WireModel):
    """Body of every answer that is not a success."""

    error: str
    code: str
    request_id: str


def parse_request(body: bytes) -> ScoreRequest:
    """Return the request that a body holds; raises `RequestError` (400, 422) in our own words."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise RequestError(400, "malformed", "the body is not valid JSON in UTF-8") from None
    if any(isinstance(part, dict) and len(part) > _MAX_KEYS for part in _iterate_objects(value)):
        raise RequestError(422, "invalid", f"an object holds more than {_MAX_KEYS} keys")
    try:
        return ScoreRequest.model_validate(value)
    except ValidationError as error:
        finding = error.errors(include_url=False, include_input=False)[0]
    message = _VALIDATION_MESSAGES.get(finding["type"], "is not valid")
    reason = message.format(**finding.get("ctx", {}))
    parts = [f"[{part}]" if isinstance(part, int) else f".{part:.40}" for part in finding["loc"]]
    where = "".join(parts).removeprefix(".") or "the body"
    raise RequestError(422, "invalid", f"{where} {reason}")


def decode_post(payload: PostPayload, place: int) -> Post:
    """Return the post at a place of a request; raises `RequestError` (415, 422)."""
    where = f"posts[{place}]"
    fields: dict[str, Any] = payload.model_dump(exclude={"image"}, exclude_none=True)
    if payload.image is not None:
        fields["image"] = _decode_image(payload.image, where)
    try:
        return Post(**{"id": str(place), **fields})
    except ValidationError:
        raise RequestError(422, "invalid", f"{where} has neither a text nor an image") from None


def _iterate_objects(value: Any) -> Iterator[Any]:
    """Yield what stands where a request has objects."""
    yield value
    for post in _list_entries(value, "posts", MAX_BATCH):
        yield post
        yield from _list_entries(post, "intentions", _MAX_INTENTIONS)


def _list_entries(value: Any, key: str, most: int) -> list[Any]:
    entries = value.get(key) if isinstance(value, dict) else None
    return entries[:most] if isinstance(entries, list) else []


def _decode_image(text: str, where: str) -> bytes:
    try:
        small = len(text) * 3 // 4 <= _MAX_IMAGE_BYTES + 2  # before anything is decoded
        data = base64.b64decode(text, validate=True) if small else None
    except ValueError:
        hint = "; send what follows the comma of a data URI" if text[:5] == "data:" else ""
        raise RequestError(422, "invalid", f"{where}.image is not base64{hint}") from None
    if data is None or len(data) > _MAX_IMAGE_BYTES:
        limit = f"{_MAX_IMAGE_BYTES // MEBIBYTE} MiB"
        raise RequestError(422, "invalid", f"{where}.image is larger than {limit}")
    kind = name_image_format(data[:HEAD_BYTES])
    if not is_readable_format(kind):
        message = f"{where}.image is not a JPEG, PNG, WebP or GIF"
        seen = f" but {kind}" if kind else ""
        raise RequestError(415, "unsupported_image", message + seen)
    return data
