"""The Files and Batches routes of the pretended provider: what the Batch API needs."""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Ask = Callable[[bytes], tuple[int, dict[str, Any]]]
_ENDED = ("completed", "expired", "failed", "cancelled")
_NEEDED = {"custom_id", "method", "url", "body"}


class Pace(NamedTuple):
    """How long a batch takes in seconds, and the share of it that is answered before it expires."""

    seconds: float = 1.0
    share: float = 1.0


class Batches:
    """Batches by their names, moved on by the clock whenever somebody looks.

    `ask` answers one request; what it answers within a batch is billed as it says.
    """

    def __init__(self, ask: Ask, pace: Pace) -> None:
        self.ask = ask
        self.pace = pace
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.begun: dict[str, float] = {}
        self.routes = [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.list_files),
            Route("/v1/files/{name}", self.file),
            Route("/v1/files/{name}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{name}/content", self.content),
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.list),
            Route("/v1/batches/{name}", self.retrieve),
            Route("/v1/batches/{name}/cancel", self.cancel, methods=["POST"]),
        ]

    async def upload(self, request: Request) -> Response:
        async with request.form(max_part_size=512 << 20) as form:
            file = form["file"]
            if isinstance(file, str):
                return _error(400, "'file' is not a file")
            return JSONResponse(
                self._store(await file.read(), str(file.filename), str(form["purpose"]))
            )

    async def list_files(self, request: Request) -> Response:
        return _page(request, [about for about, _ in reversed(self.files.values())])

    async def file(self, request: Request) -> Response:
        found = self.files.get(request.path_params["name"])
        return JSONResponse(found[0]) if found else _error(404, "No such File object")

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self.files.pop(name, None) is None:
            return _error(404, "No such File object")
        return JSONResponse({"id": name, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        found = self.files.get(request.path_params["name"])
        if not found:
            return _error(404, "No such File object")
        return Response(found[1], media_type="application/octet-stream")

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        if asked.get("input_file_id") not in self.files:
            return _error(400, f"Invalid input_file_id: {asked.get('input_file_id')}")
        name, now = f"batch_{uuid4().hex}", int(time.time())
        self.begun[name] = time.monotonic()
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "errors": None,
            "input_file_id": asked["input_file_id"],
            "completion_window": asked["completion_window"],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "in_progress_at": None,
            "expires_at": now + 86_400,
            "finalizing_at": None,
            "completed_at": None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": asked.get("metadata"),
        }
        return JSONResponse(self.batches[name])

    async def list(self, request: Request) -> Response:
        return _page(request, [self._moved(name) for name in reversed(self.batches)])

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = name in self.batches
        return JSONResponse(self._moved(name)) if known else _error(404, f"No batch {name!r}")

    async def cancel(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.batches:
            return _error(404, f"No batch {name!r}")
        batch = self._moved(name)
        if batch["status"] in _ENDED:
            return _error(409, f"Cannot cancel a batch with status '{batch['status']}'.")
        self._finish(batch, 0.0, "cancelled")
        return JSONResponse(batch)

    def _moved(self, name: str) -> dict[str, Any]:
        """Return a batch as it stands by now."""
        batch, age = self.batches[name], time.monotonic() - self.begun[name]
        if batch["status"] == "validating" and age >= self.pace.seconds / 4:
            self._validate(batch)
        if batch["status"] == "in_progress" and age >= self.pace.seconds:
            ended = "completed" if self.pace.share >= 1 else "expired"
            self._finish(batch, self.pace.share, ended)
        return batch

    def _validate(self, batch: dict[str, Any]) -> None:
        faults, seen = [], set()
        lines = self.files[batch["input_file_id"]][1].splitlines()
        for number, line in enumerate(lines, 1):
            try:
                asked = json.loads(line)
            except ValueError:
                faults.append(_fault("invalid_json_line", "This line is not valid JSON.", number))
                continue
            if missing := sorted(_NEEDED - asked.keys()):
                said = f"Missing required parameter: '{missing[0]}'."
                faults.append(_fault("missing_required_parameter", said, number))
            elif asked["url"] != batch["endpoint"]:
                said = "The URL provided for this request does not match the batch endpoint."
                faults.append(_fault("mismatched_url", said, number))
            elif asked["custom_id"] in seen:
                said = "The custom_id for this request is a duplicate of another request."
                faults.append(_fault("duplicate_custom_id", said, number))
            seen.add(asked.get("custom_id"))
        status = "failed" if faults else "in_progress"
        batch |= {"status": status, f"{status}_at": int(time.time())}
        batch["request_counts"]["total"] = 0 if faults else len(lines)
        batch["errors"] = {"object": "list", "data": faults} if faults else None

    def _finish(self, batch: dict[str, Any], share: float, ended: str) -> None:
        """Answer the first share of the requests, and end."""
        lines = self.files[batch["input_file_id"]][1].splitlines()
        if batch["status"] == "validating":  # cancelled before it was looked at
            lines = []
        answered, failed, so_many = [], [], math.ceil(len(lines) * share)
        for line in lines[:so_many]:
            asked = json.loads(line)
            status, whole = self.ask(json.dumps(asked["body"]).encode())
            response = {"status_code": status, "request_id": f"req_{uuid4().hex}", "body": whole}
            (answered if status == 200 else failed).append(_line(asked, response, None))
        said = {"code": f"batch_{ended}", "message": f"This request was not executed: {ended}."}
        failed += [_line(json.loads(line), None, said) for line in lines[so_many:]]
        for key, found in (("output_file_id", answered), ("error_file_id", failed)):
            if found:
                content = "".join(f"{each}\n" for each in found).encode()
                batch[key] = self._store(content, f"{key}.jsonl", "batch_output")["id"]
        batch |= {"status": ended, f"{ended}_at": int(time.time())}
        counts = {"total": len(lines), "completed": len(answered), "failed": len(failed)}
        batch["request_counts"] = counts

    def _store(self, content: bytes, filename: str, purpose: str) -> dict[str, Any]:
        name = f"file-{uuid4().hex}"
        about = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "expires_at": None,
        }
        self.files[name] = (about, content)
        return about


def _line(asked: Mapping[str, Any], response: Any, error: Any) -> str:
    row = {
        "id": f"batch_req_{uuid4().hex}",
        "custom_id": asked["custom_id"],
        "response": response,
        "error": error,
    }
    return json.dumps(row)


def _fault(code: str, message: str, line: int) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _error(status: int, message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)


def _page(request: Request, found: list[dict[str, Any]]) -> Response:
    """Return a page of a list, newest first, by the `after` and `limit` of the query."""
    after, limit = request.query_params.get("after"), int(request.query_params.get("limit", 20))
    names = [each["id"] for each in found]
    start = names.index(after) + 1 if after in names else 0
    page = found[start : start + limit]
    return JSONResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(found),
        }
    )
