"""One question to one model, and the key under which its answer is kept."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from miko_clf.distil.answer import Answer, wire_schema
from miko_clf.distil.picture import Picture
from miko_clf.distil.prompt import Prompt

Status = Literal["ok", "refused", "invalid", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "refused", "invalid", "failed")
_CORRECTION = (
    "That answer cannot be used ({fault}). Answer again: the one JSON object that was asked for, "
    "complete, and nothing else."
)


class Sampling(NamedTuple):
    """How a model draws its answer; `max_tokens` bounds its length."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class Turn(NamedTuple):
    """One turn of a conversation; a picture stands before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Call:
    """A question in full. Two calls with one key are one question, whoever asks."""

    stage: str
    model: str
    prompt: Prompt
    turns: tuple[Turn, ...]
    answer: type[Answer]
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
            "schema": wire_schema(self.answer),
            "index": self.index,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return sha256(text.encode()).digest()

    def of(self, model: str) -> "Call":
        """Return the same question to another model."""
        return replace(self, model=model)

    def wider(self) -> "Call":
        """Return the same question with room for an answer three times as long."""
        tokens = self.sampling.max_tokens * 3
        return replace(self, sampling=self.sampling._replace(max_tokens=tokens))

    def again(self, raw: str, fault: str) -> "Call":
        """Return the question that follows an answer which could not be used."""
        said = Turn("assistant", raw)
        return replace(
            self, turns=(*self.turns, said, Turn("user", _CORRECTION.format(fault=fault)))
        )


class Usage(NamedTuple):
    """Tokens as the server counted them; `cached` are among `prompt`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Reply(NamedTuple):
    """What came of sending a call.

    `refused` and `failed` are set where the server says so itself, with the reason; otherwise
    `raw` is still to be read. `tries` are requests sent, `lost` those of them whose answer may
    have been made, and billed, without reaching us.
    """

    raw: str = ""
    finish: str = ""
    status: Status | None = None
    reason: str = ""
    usage: Usage = Usage()
    model: str = ""
    request: str = ""
    host: str = ""
    tries: int = 1
    lost: int = 0
    seconds: float = 0.0


def messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return turns as OpenAI's chat messages; pictures become data URLs. Raises `PostError`."""
    return [{"role": turn.role, "content": _content(turn)} for turn in turns]


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if turn.picture is None:
        return turn.text
    shown = {"type": "image_url", "image_url": {"url": turn.picture.url()}}
    return [shown, {"type": "text", "text": turn.text}] if turn.text else [shown]
