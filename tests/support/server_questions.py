"""Questions for real servers: one at a time as any client asks them, or a few posts."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import NamedTuple

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from PIL import Image

from miko_clf.distil.kb.store import open_for_reading
from tests.support.command_line import Ended, run_command, write_posts_file

COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
WISH = {"type": "json_schema", "json_schema": {"name": "a", "schema": COLOUR, "strict": True}}
BLUE, ORANGE = (30, 90, 200), (200, 120, 20)


class KeptCall(NamedTuple):
    """A call as a knowledge base holds it."""

    stage: str
    status: str
    raw: str
    prompt_tokens: int


def ask_question(url: str, model: str, content: object, **sampling: object) -> ChatCompletion:
    """Ask one question at temperature 0, without a second try."""

    async def answer() -> ChatCompletion:
        async with open_client(url) as asking:
            turns = [{"role": "user", "content": content}]
            return await asking.chat.completions.create(
                model=model, messages=turns, temperature=0, **sampling
            )

    return asyncio.run(answer())


def open_client(url: str) -> AsyncOpenAI:
    """Return a client that tries once."""
    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)


def show_picture(text: str) -> list[dict[str, object]]:
    """Return a picture and a question about it, as chat messages hold them."""
    url = "data:image/png;base64," + base64.b64encode(_square(BLUE)).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]


def write_three_posts(folder: Path) -> Path:
    """Write one post of each kind: words and picture, picture alone, words alone."""
    (folder / "blue.png").write_bytes(_square(BLUE))
    (folder / "orange.png").write_bytes(_square(ORANGE))
    return write_posts_file(
        folder / "posts.jsonl",
        {"id": "both", "text": "lovely weather", "image": "blue.png", "label": "sarcastic"},
        {"id": "seen", "text": None, "image": "orange.png", "label": "sincere"},
        {"id": "said", "text": "a warm meal", "image": None, "label": "sincere"},
    )


def distil_three_posts(url: str, model: str, task: str, folder: Path, *words: object) -> Ended:
    """Run `miko-clf distil` on three posts; the knowledge base is called by the task."""
    server = ["--server", url, "--model", model, "--task", task]
    return run_command(
        "distil", write_three_posts(folder), "--kb", folder / f"{task}.sqlite", *server, *words
    )


def read_kept_calls(folder: Path, task: str) -> list[KeptCall]:
    """Return the calls that a knowledge base holds."""
    db = open_for_reading(folder / f"{task}.sqlite")
    try:
        return [
            KeptCall(*row) for row in db.execute(f"SELECT {', '.join(KeptCall._fields)} FROM calls")
        ]
    finally:
        db.close()


def read_texts(calls: list[KeptCall]) -> list[object]:
    """Return what the answers hold, read as JSON."""
    return [json.loads(call.raw, strict=False) for call in calls]


def _square(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "PNG")
    return file.getvalue()
