"""A server that says what it is told to, answer by answer; for the loop that it runs in."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.support.llm_answers import Quirks, completion, say


class Says(NamedTuple):
    """An answer. Its body is the one asked for where it is None; `drop` sends none at all, and
    `trickle` sends one space every so many seconds instead of it."""

    status: int = 200
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    drop: bool = False
    trickle: float = 0.0


class Scripted:
    """Requests as they came, and what is said to them; when the script is over, what was asked."""

    def __init__(self, script: list[Says]) -> None:
        self.script: Iterator[Says] = iter(script)
        self.heard: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(
                    line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:-2]
                )
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                self.keys.append(fields.get("authorization", ""))
                self.heard.append(json.loads(body))
                await _say(writer, next(self.script, Says()), self.heard[-1])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _say(writer: asyncio.StreamWriter, says: Says, heard: dict[str, Any]) -> None:
    if says.drop:
        raise ConnectionError
    whole = says.body
    if whole is None:
        whole = completion(say(heard, b"name", Quirks()), heard["model"], b"name", Quirks())
    sent = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    known = {"content-type": "application/json", "content-length": str(len(sent))}
    lines = [f"{name}: {value}" for name, value in {**known, **dict(says.headers)}.items()]
    writer.write("\r\n".join([f"HTTP/1.1 {says.status} So", *lines, "", ""]).encode())
    for _ in range(len(sent) if says.trickle else 0):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(says.trickle)
    writer.write(sent)
    await writer.drain()


@asynccontextmanager
async def serve_script(*script: Says) -> AsyncIterator[Scripted]:
    """Serve a script on the loopback."""
    found = Scripted(list(script))
    server = await asyncio.start_server(found.converse, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        server.close()
