"""What a server does of what it is asked: found out before the first post is sent."""

import asyncio
import io
from dataclasses import replace
from typing import Literal, NamedTuple

from PIL import Image
from pydantic import Field

from miko_clf.distil.client import SCHEMA_MODES, ServerDialect, TeacherClient
from miko_clf.distil.request import ChatTurn, Prompt, Request, Sampling, load_request_picture
from miko_clf.distil.response import Response
from miko_clf.distil.schemas import AnswerSchema, parse_answer
from miko_clf.errors import DistilError

_PROMPT = Prompt("probe", 1, "", "", "0" * 64)
_SHORT = 3  # tokens that the test of a limit allows


class _ColourAnswer(AnswerSchema):
    """The smallest answer that shows whether a schema is obeyed."""

    colour: Literal["red", "green", "blue"] = Field(description="one of three")
    warm: bool


class ProbeResult(NamedTuple):
    """What a model's server was found to do, and what it silently ignores.

    `picture_tokens` is None where pictures were not tried.
    """

    model: str
    dialect: ServerDialect
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


async def probe_model(
    teacher: TeacherClient, model: str, *, pictures: bool, usage: bool
) -> ProbeResult:
    """Ask a model a few tiny questions and return what its server does with them.

    The teacher takes up the dialect that was found. Raises `DistilError` where pictures are
    wanted and ignored, or where token counts are needed (`usage`) and absent.
    """
    dialect, reply, obeyed = await _find_dialect(teacher, model)
    teacher.dialects[model] = dialect
    ignores = [] if obeyed else ["ignores response_format: no schema was obeyed"]
    counts = reply.usage.prompt > 0
    if not counts:
        ignores.append("reports no token counts")
        if usage:
            raise DistilError(
                f"{teacher.server}: model {model} reports no token counts, so no budget can be kept"
            )
    short = await teacher.send(_make_probe(model, "Count from one to fifty.", Sampling(_SHORT)))
    if short.usage.completion > _SHORT + 1:
        ignores.append(f"ignores {dialect.limit}")
    if pictures and not counts:
        ignores.append("so whether it looks at pictures cannot be told")
    tokens = await _count_picture_tokens(teacher, model) if pictures and counts else None
    return ProbeResult(model, dialect, tuple(ignores), counts, tokens)


async def list_models(teacher: TeacherClient) -> list[str] | None:
    """Return the models that a server lists, None where it cannot say."""
    try:
        page = await asyncio.wait_for(teacher.client.models.list(), 10)
        return [each.id for each in page.data]
    except Exception:  # the route is optional, and fails in as many ways as there are servers
        return None


async def _find_dialect(teacher: TeacherClient, model: str) -> tuple[ServerDialect, Response, bool]:
    """Return the first dialect in which a schema is obeyed, else the one that needs no server."""
    spoken = ServerDialect()
    reply = Response()
    for schema in SCHEMA_MODES:
        spoken = replace(spoken, schema=schema)
        call = _make_probe(model, "Which colour has the sky at noon, and is it warm?", Sampling(60))
        for _ in range(3):
            teacher.dialects[model] = spoken
            reply = await teacher.send(call)
            changed = _correct_dialect(spoken, reply)
            if changed == spoken:
                break
            spoken = changed
        if reply.status == "failed" and reply.reason.startswith("connection"):
            raise DistilError(f"{teacher.server}: {reply.reason}")  # no spelling mends that
        if reply.status is None and isinstance(
            parse_answer(reply.raw, _ColourAnswer), _ColourAnswer
        ):
            return spoken, reply, True
    if reply.status == "failed":
        raise DistilError(f"{teacher.server}: model {model} answers no question: {reply.reason}")
    return spoken, reply, False


def _correct_dialect(spoken: ServerDialect, reply: Response) -> ServerDialect:
    """Return the dialect without what the server said that it does not take."""
    if reply.status != "failed":
        return spoken
    if "max_completion_tokens" in reply.reason and spoken.limit == "max_tokens":
        return replace(spoken, limit="max_completion_tokens")
    if "temperature" in reply.reason or "top_p" in reply.reason:
        return replace(spoken, warm=False)
    return spoken


async def _count_picture_tokens(teacher: TeacherClient, model: str) -> int:
    """Return by how many tokens a picture lengthens a prompt; raises where it does not."""
    text = "What is shown?"
    without = await teacher.send(_make_probe(model, text, Sampling(8)))
    shown = await teacher.send(_make_probe(model, text, Sampling(8), _draw_square()))
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


def _draw_square() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (30, 90, 200)).save(file, "PNG")
    return file.getvalue()


def _make_probe(model: str, text: str, sampling: Sampling, image: bytes | None = None) -> Request:
    shown = load_request_picture(image) if image else None
    turns = (ChatTurn("system", "Answer in JSON."), ChatTurn("user", text, shown))
    return Request("probe", model, _PROMPT, turns, _ColourAnswer, sampling)
