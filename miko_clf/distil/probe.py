"""What a server does of what it is asked: found out before the first post is sent."""

import asyncio
import io
from dataclasses import replace
from typing import Literal, NamedTuple

from PIL import Image
from pydantic import Field

from miko_clf.distil.answer import Answer, read
from miko_clf.distil.call import Call, Reply, Sampling, Turn
from miko_clf.distil.dialect import SCHEMAS, Dialect
from miko_clf.distil.picture import picture
from miko_clf.distil.prompt import Prompt
from miko_clf.distil.teacher import Teacher
from miko_clf.errors import DistilError

_PROMPT = Prompt("probe", 1, "", "", "0" * 64)
_SHORT = 3  # tokens that the test of a limit allows


class Colour(Answer):
    """The smallest answer that shows whether a schema is obeyed."""

    colour: Literal["red", "green", "blue"] = Field(description="one of three")
    warm: bool


class Finding(NamedTuple):
    """What a model's server was found to do, and what it silently ignores.

    `picture_tokens` is None where pictures were not tried.
    """

    model: str
    dialect: Dialect
    ignores: tuple[str, ...]
    counts: bool
    picture_tokens: int | None

    def lines(self) -> list[str]:
        """Return what a person should know, a line each."""
        said = [f"{self.model}: {what}" for what in self.ignores]
        if self.dialect.schema == "prompt":
            said.append(f"{self.model}: the schema stands in the prompt, answers are checked here")
        elif self.dialect.schema != "json_schema":
            said.append(f"{self.model}: the schema is sent as {self.dialect.schema}")
        return said


async def probe(teacher: Teacher, model: str, *, pictures: bool, usage: bool) -> Finding:
    """Ask a model a few tiny questions and return what its server does with them.

    The teacher takes up the dialect that was found. Raises `DistilError` where pictures are
    wanted and ignored, or where token counts are needed (`usage`) and absent.
    """
    dialect, reply, obeyed = await _dialect(teacher, model)
    teacher.dialects[model] = dialect
    ignores = [] if obeyed else ["ignores response_format: no schema was obeyed"]
    counts = reply.usage.prompt > 0
    if not counts:
        ignores.append("reports no token counts")
        if usage:
            raise DistilError(
                f"{teacher.server}: model {model} reports no token counts, so no budget can be kept"
            )
    short = await teacher.send(_call(model, "Count from one to fifty.", Sampling(_SHORT)))
    if short.usage.completion > _SHORT + 1:
        ignores.append(f"ignores {dialect.limit}")
    if pictures and not counts:
        ignores.append("so whether it looks at pictures cannot be told")
    tokens = await _picture_tokens(teacher, model) if pictures and counts else None
    return Finding(model, dialect, tuple(ignores), counts, tokens)


async def models(teacher: Teacher) -> list[str] | None:
    """Return the models that a server lists, None where it cannot say."""
    try:
        page = await asyncio.wait_for(teacher.client.models.list(), 10)
        return [each.id for each in page.data]
    except Exception:  # the route is optional, and fails in as many ways as there are servers
        return None


async def _dialect(teacher: Teacher, model: str) -> tuple[Dialect, Reply, bool]:
    """Return the first dialect in which a schema is obeyed, else the one that needs no server."""
    spoken = Dialect()
    reply = Reply()
    for schema in SCHEMAS:
        spoken = replace(spoken, schema=schema)
        call = _call(model, "Which colour has the sky at noon, and is it warm?", Sampling(60))
        for _ in range(3):
            teacher.dialects[model] = spoken
            reply = await teacher.send(call)
            changed = _corrected(spoken, reply)
            if changed == spoken:
                break
            spoken = changed
        if reply.status == "failed" and reply.reason.startswith("connection"):
            raise DistilError(f"{teacher.server}: {reply.reason}")  # no spelling mends that
        if reply.status is None and isinstance(read(reply.raw, Colour), Colour):
            return spoken, reply, True
    if reply.status == "failed":
        raise DistilError(f"{teacher.server}: model {model} answers no question: {reply.reason}")
    return spoken, reply, False


def _corrected(spoken: Dialect, reply: Reply) -> Dialect:
    """Return the dialect without what the server said that it does not take."""
    if reply.status != "failed":
        return spoken
    if "max_completion_tokens" in reply.reason and spoken.limit == "max_tokens":
        return replace(spoken, limit="max_completion_tokens")
    if "temperature" in reply.reason or "top_p" in reply.reason:
        return replace(spoken, warm=False)
    return spoken


async def _picture_tokens(teacher: Teacher, model: str) -> int:
    """Return by how many tokens a picture lengthens a prompt; raises where it does not."""
    text = "What is shown?"
    without = await teacher.send(_call(model, text, Sampling(8)))
    shown = await teacher.send(_call(model, text, Sampling(8), _square()))
    more = shown.usage.prompt - without.usage.prompt
    if shown.status == "failed":
        why = f"refuses pictures: {shown.reason}"
    elif more <= 0:
        why = "takes a picture and does not look at it (the prompt grew by no token)"
    else:
        return more
    raise DistilError(
        f"{teacher.server}: model {model} {why}; name a --vision-model that sees, or ask with "
        "--no-pictures"
    )


def _square() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (30, 90, 200)).save(file, "PNG")
    return file.getvalue()


def _call(model: str, text: str, sampling: Sampling, image: bytes | None = None) -> Call:
    shown = picture(image) if image else None
    turns = (Turn("system", "Answer in JSON."), Turn("user", text, shown))
    return Call("probe", model, _PROMPT, turns, Colour, sampling)
