"""What is said over HTTP: requests, answers, and the one form of every error."""

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from miko_clf.data.post import Intention, Post, Relation
from miko_clf.serve.engine import MAX_BATCH, Score

MIB = 1024 * 1024
MAX_BODY = 8 * MIB
MAX_POSTS = MAX_BATCH
MAX_TEXT = 10_000
MAX_IMAGE = 5 * MIB
MAX_INTENTIONS = 20
MAX_INTENTION = 1_000
_MAX_KEYS = 16  # of an object; to list a million unknown ones would take seconds
_SAID = {
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
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


class WireError(Exception):
    """Why a request is not answered: an HTTP status, a word for programs, a line for people."""

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Closed(BaseModel):
    """Frozen, closed to keys that it does not know, and no type is taken for another."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class GivenIntention(Closed):
    """One reason for posting."""

    relation: Relation
    """Relation of ATOMIC, or Open."""
    text: str = Field(min_length=1, max_length=MAX_INTENTION)


Encoded = Annotated[
    str,
    Field(json_schema_extra={"contentEncoding": "base64", "maxLength": -(-MAX_IMAGE // 3) * 4}),
]


class GivenPost(Closed):
    """A post: a text, an image, or both."""

    id: str | None = Field(default=None, min_length=1, max_length=256)
    """Comes back with the score; by default the place in the request, from 0."""
    text: str | None = Field(default=None, max_length=MAX_TEXT)
    image: Encoded | None = None
    """An encoded JPEG, PNG, WebP or GIF of at most 5 MiB in base64."""
    description: str | None = Field(default=None, max_length=MAX_TEXT)
    """What the image shows, for systems that read it."""
    intentions: list[GivenIntention] | None = Field(default=None, max_length=MAX_INTENTIONS)


class ScoreRequest(Closed):
    """Posts to be scored."""

    posts: list[GivenPost] = Field(max_length=MAX_POSTS)
    arm: Literal["with", "student", "without"] | None = None
    """What stands for the author's intention; by default the best that each post allows."""


class Model(Closed):
    """Which bundle answered."""

    name: str
    digest: str
    """SHA-256 of the bundle's manifest, which holds that of every other file."""


class ScoreResponse(Closed):
    """A score for each post, in order."""

    scores: list[Score]
    model: Model


class Health(Closed):
    """That the server is there."""

    status: Literal["live", "ready"]


class ErrorBody(Closed):
    """Body of every answer that is not a success."""

    error: str
    code: str
    request_id: str


def parse(body: bytes) -> ScoreRequest:
    """Return the request that a body holds; raises `WireError` (400, 422) in our own words."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise WireError(400, "malformed", "the body is not valid JSON in UTF-8") from None
    if any(isinstance(one, dict) and len(one) > _MAX_KEYS for one in _objects(value)):
        raise WireError(422, "invalid", f"an object holds more than {_MAX_KEYS} keys")
    try:
        return ScoreRequest.model_validate(value)
    except ValidationError as error:
        finding = error.errors(include_url=False, include_input=False)[0]
    said = _SAID.get(finding["type"], "is not valid").format(**finding.get("ctx", {}))
    raise WireError(422, "invalid", f"{_place(finding['loc'])} {said}")


def post_of(given: GivenPost, place: int) -> Post:
    """Return the post at a place of a request; raises `WireError` (415, 422)."""
    where = f"posts[{place}]"
    fields: dict[str, Any] = given.model_dump(exclude={"image", "intentions"}, exclude_none=True)
    fields["intentions"] = tuple(
        Intention(relation=one.relation, text=one.text) for one in given.intentions or ()
    )
    if given.image is not None:
        fields["image"] = _decoded(given.image, where)
    try:
        return Post(**{"id": str(place), **fields})
    except ValidationError:
        raise WireError(422, "invalid", f"{where} has neither a text nor an image") from None


def _objects(value: Any) -> Iterator[Any]:
    """Yield what stands where a request has objects."""
    yield value
    for post in _entries(value, "posts", MAX_POSTS):
        yield post
        yield from _entries(post, "intentions", MAX_INTENTIONS)


def _entries(value: Any, key: str, most: int) -> list[Any]:
    held = value.get(key) if isinstance(value, dict) else None
    return held[:most] if isinstance(held, list) else []


def _decoded(text: str, where: str) -> bytes:
    if len(text) * 3 // 4 > MAX_IMAGE + 2:
        raise WireError(422, "invalid", f"{where}.image is larger than {MAX_IMAGE // MIB} MiB")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WireError(422, "invalid", f"{where}.image is not base64") from None
    if len(data) > MAX_IMAGE:
        raise WireError(422, "invalid", f"{where}.image is larger than {MAX_IMAGE // MIB} MiB")
    if not (data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")):
        message = f"{where}.image is not a JPEG, PNG, WebP or GIF"
        raise WireError(415, "unsupported_image", message)
    return data


def _place(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part:.40}" for part in location]
    return "".join(parts).removeprefix(".") or "the body"
