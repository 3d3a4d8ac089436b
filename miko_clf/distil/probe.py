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
    """What a model's server does and ignores; no `picture_tokens` where pictures were not tried."""

    model: str
    dialect: ServerDialect
    ignores: tuple[str, ...]
    counts: bool
    picture_tokens: int | None

    def lines(self) -> list[str]:
        """Return what a person should know, a line each."""
        lines = [f"{self.model}: {what}" for what in self.ignores]
        if self.dialect.schema == "prompt":
            lines.append(f"{self.model}: the schema stands in the prompt, answers are checked here")
        elif self.dialect.schema != "json_schema":
            lines.append(f"{self.model}: the schema is sent as {self.dialect.schema}")
        return lines


async def probe_model(
    client: TeacherClient, model: str, *, pictures: bool, usage: bool
) -> ProbeResult:
    """Ask a model a few tiny questions and return what its server does with them.

    The client takes up the dialect that was found. Raises `DistilError` where pictures are
    wanted and ignored, or where token counts are needed (`usage`) and absent.
    """
    dialect, response, obeyed = await _find_dialect(client, model)
    client.dialects[model] = dialect
    ignores = [] if obeyed else ["ignores response_format: no schema was obeyed"]
    counts = response.usage.prompt > 0
    if not counts:
        ignores.append("reports no token counts")
        if usage:
            raise DistilError(
                f"{client.server}: model {model} reports no token counts, so no budget can be kept"
            )
    short = await client.send(_make_probe(model, "Count from one to fifty.", Sampling(_SHORT)))
    if short.usage.completion > _SHORT + 1:
        ignores.append(f"ignores {dialect.limit}")
    if pictures and not counts:
        ignores.append("so whether it looks at pictures cannot be told")
    tokens = await _count_picture_tokens(client, model) if pictures and counts else None
    return ProbeResult(model, dialect, tuple(ignores), counts, tokens)


async def list_models(client: TeacherClient) -> list[str] | None:
    """Return the models that a server lists, None where it cannot say."""
    try:
        page = await asyncio.wait_for(client.client.models.list(), 10)
        return [model.id for model in page.data]
    except Exception:  # the route is optional, and fails in as many ways as there are servers
        return None


async def _find_dialect(client: TeacherClient, model: str) -> tuple[ServerDialect, Response, bool]:
    """Return the first dialect in which a schema is obeyed, else the one that needs no server."""
    dialect = ServerDialect()
    response = Response()
    for schema in SCHEMA_MODES:
        dialect = replace(dialect, schema=schema)
        question = "Which colour has the sky at noon, and is it warm?"
        for _ in range(3):
            client.dialects[model] = dialect
            response = await client.send(_make_probe(model, question, Sampling(60)))
            changed = _correct_dialect(dialect, response)
            if changed == dialect:
                break
            dialect = changed
        if response.status == "failed" and response.reason.startswith("connection"):
            raise DistilError(f"{client.server}: {response.reason}")  # no spelling mends that
        answer = parse_answer(response.raw, _ColourAnswer)
        if response.status is None and isinstance(answer, _ColourAnswer):
            return dialect, response, True
    if response.status == "failed":
        raise DistilError(f"{client.server}: model {model} answers no question: {response.reason}")
    return dialect, response, False


def _correct_dialect(dialect: ServerDialect, response: Response) -> ServerDialect:
    """Return the dialect without what the server said that it does not take."""
    if response.status != "failed":
        return dialect
    if "max_completion_tokens" in response.reason and dialect.limit == "max_tokens":
        return replace(dialect, limit="max_completion_tokens")
    if "temperature" in response.reason or "top_p" in response.reason:
        return replace(dialect, warm=False)
    return dialect


async def _count_picture_tokens(client: TeacherClient, model: str) -> int:
    """Return by how many tokens a picture lengthens a prompt; raises where it does not."""
    text = "What is shown?"
    without = await client.send(_make_probe(model, text, Sampling(8)))
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (30, 90, 200)).save(file, "PNG")
    shown = await client.send(_make_probe(model, text, Sampling(8), file.getvalue()))
    more = shown.usage.prompt - without.usage.prompt
    if shown.status == "failed":
        why = f"refuses pictures: {shown.reason}"
    elif more <= 0:
        why = "takes a picture and does not look at it (the prompt grew by no token)"
    else:
        return more
    raise DistilError(
        f"{client.server}: model {model} {why}; name a --vision-model that sees, or ask with "
        "--no-pictures"
    )


def _make_probe(model: str, text: str, sampling: Sampling, image: bytes | None = None) -> Request:
    picture = load_request_picture(image) if image else None
    turns = (ChatTurn("system", "Answer in JSON."), ChatTurn("user", text, picture))
    return Request("probe", model, _PROMPT, turns, _ColourAnswer, sampling)
