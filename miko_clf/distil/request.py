"""A request to a model: prompt, picture, sampling, and the key of its answer."""

import base64
import io
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from miko_clf.data.preprocess import decode_image, digest_image
from miko_clf.distil import is_local
from miko_clf.distil.relations import RELATION_MEANINGS, RELATION_STEMS
from miko_clf.distil.schemas import RELATION_ORDER, AnswerSchema, make_wire_schema
from miko_clf.errors import PostError

_PICTURE_SIDE = 512  # pixels of the longer side: vision models resize to that or less
_PICTURE_QUALITY = 85
_PROMPT_RULE = "\n----\n"
_CORRECTION = (
    "That answer cannot be used ({fault}). Answer again: the one JSON object that was asked for, "
    "complete, and nothing else."
)
_PLACEHOLDERS = (
    (re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE), "<url>"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<email>"),
    (re.compile(r"(?<![\w@])@\w{2,}"), "<user>"),
)
_PHONE = re.compile(r"(?<![\w.])\+?\d[\d ()./-]{7,}\d(?!\w)")
_PHONE_DIGITS = range(9, 16)  # of a telephone number; fewer are a date, more an identifier


class RequestPicture(NamedTuple):
    """A picture by its content: the sha256 of the file, and the file itself.

    What is sent follows from the bytes, the side and the quality, so they stand for it in keys.
    """

    sha256: str
    source: Path | bytes

    def identity(self) -> str:
        """Return what determines the bytes that are sent."""
        return f"{self.sha256}/{_PICTURE_SIDE}/{_PICTURE_QUALITY}"


class Prompt(NamedTuple):
    """A prompt of one version: the words of the system turn, and the template of the user's."""

    name: str
    version: int
    system: str
    user: str
    sha256: str

    def fill(self, **values: str | None) -> str:
        """Return the user's turn; a line that asks for an absent value is left out."""
        templates = map(Template, self.user.splitlines())
        return "\n".join(
            template.substitute(values)
            for template in templates
            if all(values.get(name) for name in template.get_identifiers())
        )


class Sampling(NamedTuple):
    """How a model draws its answer; `max_tokens` bounds its length."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class ChatTurn(NamedTuple):
    """One turn of a conversation; a picture stands before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: RequestPicture | None = None


@dataclass(frozen=True)
class Request:
    """A question in full. Two requests with one key are one question, whoever asks."""

    stage: str
    model: str
    prompt: Prompt
    turns: tuple[ChatTurn, ...]
    answer: type[AnswerSchema]
    sampling: Sampling
    index: int = 0
    saw_label: bool = False

    @cached_property
    def key(self) -> bytes:
        """Return the sha256 of what determines the answer, and of nothing else.

        Not in it: the server's address, the post's id, file names, and how the schema is sent.
        """
        turns = [
            [turn.role, turn.text, turn.picture.identity() if turn.picture else None]
            for turn in self.turns
        ]
        content = {
            "model": self.model,
            "turns": turns,
            "sampling": self.sampling._asdict(),
            "schema": make_wire_schema(self.answer),
            "index": self.index,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return sha256(text.encode()).digest()

    def address(self, model: str) -> "Request":
        """Return the same question to another model."""
        return replace(self, model=model)

    def widen(self) -> "Request":
        """Return the same question with room for an answer three times as long."""
        tokens = self.sampling.max_tokens * 3
        return replace(self, sampling=self.sampling._replace(max_tokens=tokens))

    def correct(self, raw: str, fault: str) -> "Request":
        """Return the question that follows an answer which could not be used."""
        correction = ChatTurn("user", _CORRECTION.format(fault=fault))
        return replace(self, turns=(*self.turns, ChatTurn("assistant", raw), correction))


@lru_cache
def load_prompt(name: str) -> Prompt:
    """Return a shipped prompt, such as `one-call`; the digest is that of the whole file."""
    text = resources.files("miko_clf.distil").joinpath("prompts", f"{name}.md").read_text("utf-8")
    first, body = text.split("\n", 1)
    system, user = body.split(_PROMPT_RULE)
    relations = "\n".join(
        f"- {relation}: {RELATION_STEMS[relation]} ... ({RELATION_MEANINGS[relation]})"
        for relation in RELATION_ORDER
    )
    system = Template(system).safe_substitute(relations=relations)
    digest = sha256(f"{text}{relations}".encode()).hexdigest()
    return Prompt(name, int(first.removeprefix("version: ")), system, user, digest)


def load_request_picture(source: Path | bytes) -> RequestPicture:
    """Return the picture of a post; raises `PostError` where the file cannot be read."""
    return RequestPicture(digest_image(source), source)


def make_chat_messages(turns: Sequence[ChatTurn]) -> list[dict[str, Any]]:
    """Return turns as OpenAI's chat messages; pictures become data URLs. Raises `PostError`."""
    return [{"role": turn.role, "content": _make_content(turn)} for turn in turns]


def mask_identities(text: str) -> str:
    """Return the text with addresses, @names and telephone numbers as placeholders."""
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return _PHONE.sub(_mask_phone, text)


def is_private_server(server: str) -> bool:
    """Say whether a server stands on this machine or in a private network."""
    host = urlsplit(server).hostname or ""
    if is_local(server) or host == "localhost" or host.endswith(".local"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host and bool(host)  # a bare name, as inside a cluster
    return address.is_private or address.is_loopback


@lru_cache(maxsize=64)
def _encode_picture(picture: RequestPicture) -> str:
    """Return the picture as a data URL of a small JPEG; raises `PostError`."""
    image = decode_image(picture.source, at_least=(_PICTURE_SIDE, _PICTURE_SIDE))
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    file = io.BytesIO()
    try:
        image.save(file, "JPEG", quality=_PICTURE_QUALITY)
    except OSError as error:
        raise PostError(f"picture {picture.sha256[:12]} cannot be made a JPEG: {error}") from error
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _make_content(turn: ChatTurn) -> str | list[dict[str, Any]]:
    if turn.picture is None:
        return turn.text
    picture = {"type": "image_url", "image_url": {"url": _encode_picture(turn.picture)}}
    return [picture, {"type": "text", "text": turn.text}] if turn.text else [picture]


def _mask_phone(number: re.Match[str]) -> str:
    digits = sum(char.isdigit() for char in number.group())
    return "<phone>" if digits in _PHONE_DIGITS else number.group()
