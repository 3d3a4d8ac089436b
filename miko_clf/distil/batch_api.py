"""Parts sent through the OpenAI Batch API: uploaded once, waited for, fetched."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import openai
from openai import AsyncOpenAI
from openai.types import Batch

from miko_clf.distil.batch_files import BATCH_URL, read_part_entries, read_part_model
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.response import classify_error
from miko_clf.errors import DistilError
from miko_clf.manifest import hash_file, lock_folder, write_atomically, write_json, write_text
from miko_clf.progress import ProgressBar, print_notice

_ABREAST = 16  # batches under way at a time: the tokens that wait at a server are limited
_EVERY = 30.0  # seconds between two looks at a batch
_ENDED = ("completed", "expired", "cancelled", "failed")
_UPLOAD = 900.0  # seconds for one file
_TRIES = 6
_FIRST_PAUSE = 0.5

_Got = TypeVar("_Got")


async def submit_parts(
    parts: Sequence[Path], client: AsyncOpenAI, ledger: BudgetLedger, *, every: float = _EVERY
) -> None:
    """Have the parts of one folder answered through the Batch API; their answers lie beside them.

    Each batch carries the folder's run, the part and its sha256 as metadata, so one that was
    begun by a process that died is taken up instead of paid twice. What a batch leaves
    unanswered gets a line with an error, and is asked in the next wave. To stop at any time loses
    nothing: batches go on at the server, and are waited for by the next call. Raises
    `BudgetError` before a part that the budget has no room for, and `DistilError`.
    """
    if not parts:
        return
    folder = parts[0].parent
    with lock_folder(folder):
        uploads = [_PartUpload(part, client, _read_run(folder), every) for part in parts]
        before = ledger.reserved
        try:
            _reserve_parts(ledger, uploads)
            await _send_all(uploads)
        finally:  # what the answers cost is counted when they are read
            ledger.reserved = before


class _PartUpload:
    """One part on its way: from the file to its answers."""

    def __init__(self, part: Path, client: AsyncOpenAI, run: dict[str, Any], every: float) -> None:
        self.part = part
        self.client = client
        self.run = run
        self.every = every
        self.state = part.with_suffix(".batch.json")
        self.total = 0
        self.done = 0

    def read_batch_name(self) -> str | None:
        """Return the name of the part's batch, None where none was begun."""
        with suppress(FileNotFoundError):
            return str(json.loads(self.state.read_text(encoding="utf-8"))["batch"])
        return None

    async def take_through(self) -> None:
        """Begin the batch unless there is one, wait for its end, fetch what it answered."""
        name = self.read_batch_name()
        if name is None:
            batch = await self._begin()
            write_json(self.state, {"batch": batch.id, "model": read_part_model(self.part)})
        else:
            batch = await self._retry(self.client.batches.retrieve, name)
        while batch.status not in _ENDED:
            self._count(batch)
            await asyncio.sleep(self.every)
            batch = await self._retry(self.client.batches.retrieve, batch.id)
        if batch.status == "failed":
            self.state.unlink()
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            why = "; ".join(str(error.message or error.code) for error in errors[:3])
            why = why or "it gave no reason"
            raise DistilError(f"{self.part}: the server refused the batch: {why}")
        self._count(batch)
        await self._fetch(batch)

    async def _begin(self) -> Batch:
        """Adopt a batch of this very part, or begin one; one that may exist is looked for again."""
        sha = await asyncio.to_thread(hash_file, self.part)
        mark = {"run": self.run["run"], "part": self.part.name, "sha256": sha}
        file = ""
        for attempt in range(_TRIES):
            batch = await self._retry(self._find_batch, mark)
            if batch is not None:
                name = self.part.name
                print_notice(f"{name}: taking up batch {batch.id}, which was begun before")
                return batch
            file = file or await self._retry(self._upload)
            try:
                return await self.client.with_options(max_retries=0).batches.create(
                    input_file_id=file, endpoint=BATCH_URL, completion_window="24h", metadata=mark
                )
            except openai.OpenAIError as error:
                await self._wait_after(error, attempt, f"{self.part}: no batch was begun: %s")
        raise AssertionError("the last attempt returns or raises")

    async def _find_batch(self, mark: dict[str, str]) -> Batch | None:
        """Return the batch with these very marks, looking back no further than the run began."""
        async for batch in self.client.batches.list(limit=100):
            if batch.created_at < self.run["at"] - 3600:
                return None
            if batch.metadata == mark and batch.status not in ("failed", "cancelling", "cancelled"):
                return batch
        return None

    async def _upload(self) -> str:
        client = self.client.with_options(timeout=_UPLOAD)
        return str((await client.files.create(file=self.part, purpose="batch")).id)

    async def _fetch(self, batch: Batch) -> None:
        """Write what was answered, what was an error, and what got neither."""
        for kind, file in (("", batch.output_file_id), (".errors", batch.error_file_id)):
            if file:
                path = self.part.with_suffix(f"{kind}.out.jsonl")
                await self._retry(self._download, file, path)
        num_open = await asyncio.to_thread(self._write_open, batch)
        more = f", {num_open:,} calls are not answered" if num_open else ""
        print_notice(f"{self.part.name}: {batch.status}{more}")

    async def _download(self, file: str, path: Path) -> None:
        with write_atomically(path) as beside:
            async with self.client.files.with_streaming_response.content(file) as content:
                await content.stream_to_file(beside)

    def _write_open(self, batch: Batch) -> int:
        """Write an error for each request that no line answers, and return how many there are."""
        answered: set[str] = set()
        for kind in ("", ".errors"):
            path = self.part.with_suffix(f"{kind}.out.jsonl")
            if path.is_file():
                with path.open(encoding="utf-8") as file:
                    answered.update(json.loads(line)["custom_id"] for line in file if line.strip())
        keys = [key.hex() for key, _ in read_part_entries(self.part) if key.hex() not in answered]
        if keys:
            error = {"code": f"batch_{batch.status}", "message": f"the batch {batch.status}"}
            lines = ({"id": f"{batch.id}-{key}", "custom_id": key, "error": error} for key in keys)
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            write_text(self.part.with_suffix(".rest.out.jsonl"), text)
        return len(keys)

    async def _retry(self, method: Callable[..., Awaitable[_Got]], *args: Any) -> _Got:
        """Return what a request that may be repeated gives; raises `DistilError`."""
        name, url = self.part.name, self.client.base_url
        for attempt in range(_TRIES):
            try:
                return await method(*args)
            except openai.OpenAIError as error:
                hint = f"batches go on at the server, and {name} where it was left"
                await self._wait_after(error, attempt, f"{url}: %s; {hint}")
        raise AssertionError("the last attempt returns or raises")

    async def _wait_after(self, error: openai.OpenAIError, attempt: int, message: str) -> None:
        """Wait for the next attempt; raise `DistilError` where none may help, or none is left."""
        fault = classify_error(error, self.client.api_key)
        if fault.kind not in ("transient", "limited") or attempt == _TRIES - 1:
            raise DistilError(message.replace("%s", fault.reason)) from None
        await asyncio.sleep(fault.wait or _FIRST_PAUSE * 2**attempt)

    def _count(self, batch: Batch) -> None:
        if batch.request_counts:
            self.total = batch.request_counts.total
            self.done = batch.request_counts.completed + batch.request_counts.failed


def _reserve_parts(ledger: BudgetLedger, uploads: Sequence[_PartUpload]) -> None:
    """Set aside what the parts cost at most: those under way already, then the new ones."""
    for upload in sorted(uploads, key=lambda upload: upload.read_batch_name() is None):
        part, model = upload.part, read_part_model(upload.part)
        usd = sum(ledger.price(model, expected) for _, expected in read_part_entries(part))
        if upload.read_batch_name() is not None:
            ledger.reserved += usd
            continue
        try:
            ledger.hold(usd)
        except BudgetError:
            raise BudgetError(
                f"{part} may cost ${usd:,.4f}, and ${ledger.spent + ledger.reserved:,.4f} of "
                f"the budget of ${ledger.budget:,.2f} are spent or promised; nothing was sent"
            ) from None


async def _send_all(uploads: Sequence[_PartUpload]) -> None:
    """Take every part through; the first error ends the waiting for the others."""
    gate = asyncio.Semaphore(_ABREAST)

    async def send(upload: _PartUpload) -> None:
        async with gate:
            await upload.take_through()

    tasks = [asyncio.create_task(send(upload)) for upload in uploads]
    bar = asyncio.create_task(_show_bar(uploads))
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in (*tasks, bar):
            task.cancel()
        await asyncio.gather(*tasks, bar, return_exceptions=True)


async def _show_bar(uploads: Sequence[_PartUpload]) -> None:
    with ProgressBar("batches") as bar:
        while True:
            total = sum(upload.total for upload in uploads)
            bar.update(sum(upload.done for upload in uploads), total=total or None)
            await asyncio.sleep(0.5)


def _read_run(folder: Path) -> dict[str, Any]:
    """Return the name of a folder's run, by which its batches are known at the server."""
    path = folder / "run.json"
    if not path.is_file():
        write_json(path, {"run": uuid4().hex, "at": int(time.time())})
    return dict(json.loads(path.read_text(encoding="utf-8")))
