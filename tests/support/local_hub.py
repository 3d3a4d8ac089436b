"""A Hugging Face hub on the loopback: what the hub's own client asks of it, and files in memory."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class LocalHub:
    """Repositories as files by name; `token` is that of the one who may write."""

    token = "hf_local"

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.url = ""

    def commit(self, repository: str) -> str:
        """Return the name of a repository's state, which all its files decide."""
        files = self.files[repository]
        return hashlib.sha1(b"".join(n.encode() + files[n] for n in sorted(files))).hexdigest()

    def apply(self, repository: str, lines: bytes) -> None:
        """Commit operations, one JSON object a line."""
        for line in lines.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                content = base64.b64decode(value["content"])
                self.files[repository][value["path"]] = content
            elif operation["key"] == "deletedFile":
                del self.files[repository][value["path"]]

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """Return the JSON that answers a request, bytes of a file, or None where there is none."""
        match path.partition("?")[0].strip("/").split("/"):
            case ["api", "repos", "create"]:
                wish = json.loads(body)
                repository = f"{wish['organization']}/{wish['name']}"
                self.files.setdefault(repository, {})
                self.private[repository] = wish["visibility"] == "private"
                return {"url": f"{self.url}/{repository}"}
            case ["api", "validate-yaml"]:
                return {"errors": [], "warnings": []}
            case ["api", "models", user, name, what, *_] if f"{user}/{name}" in self.files:
                return self._answer_model(f"{user}/{name}", what, body)
            case [user, name, "resolve", _, *file]:
                return self.files.get(f"{user}/{name}", {}).get("/".join(file))
        return None

    def _answer_model(self, repository: str, what: str, body: bytes) -> Any:
        files = self.files[repository]
        if what == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            return {
                "files": [
                    {"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked
                ]
            }
        if what == "commit":
            self.apply(repository, body)
            address = f"{self.url}/{repository}/commit/{self.commit(repository)}"
            return {"success": True, "commitUrl": address, "commitOid": self.commit(repository)}
        if what == "tree":
            return [
                {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(),
                 "size": len(data)}
                for name, data in files.items()
            ]  # fmt: skip
        siblings = [{"rfilename": name} for name in files]
        return {"id": repository, "sha": self.commit(repository), "siblings": siblings}


@contextmanager
def serve_hub() -> Iterator[LocalHub]:
    """Serve an empty hub."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401, {"error": "Invalid username or password."})
                return
            self.do_GET(body)

        def do_GET(self, body: bytes = b"") -> None:
            found = hub.answer(self.command, self.path, body)
            if found is None:
                self._send(404, {"error": "Not found"}, {"X-Error-Code": "RepoNotFound"})
            elif isinstance(found, bytes):
                commit = self.path.split("/resolve/")[1].split("/")[0]
                etag = f'"{hashlib.sha1(found).hexdigest()}"'
                self._send(200, found, {"X-Repo-Commit": commit, "ETag": etag})
            else:
                self._send(200, found)

        do_HEAD = do_GET  # noqa: N815

        def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            sent = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(sent)), **(headers or {})}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Leave the screen alone."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
