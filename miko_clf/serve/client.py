"""A client of the server: the first posts of a file, sent over HTTP."""

import base64
import json
import time
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from miko_clf.data.post import Post
from miko_clf.data.readers import read_posts
from miko_clf.errors import MikoError, PostError

_ANSWER_TIMEOUT = 30  # seconds for one answer


def request_scores(url: str, path: Path, count: int = 1, wait: float = 0.0) -> dict[str, Any]:
    """Return the server's answer on the first posts of a file.

    `wait` is the time in seconds that the server has to become ready. Raises `PostError` for a
    file without posts, `MikoError` with the server's own words where it refuses or is not there.
    """
    if not url.startswith(("http://", "https://")):
        raise MikoError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8000")
    posts = list(islice(read_posts(path), count))
    if not posts:
        raise PostError(f"{path}: holds no post")
    url, deadline = url.rstrip("/"), time.monotonic() + wait
    while True:
        try:
            _send(Request(f"{url}/health/ready"))
            break
        except MikoError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
    body = json.dumps({"posts": [_encode_post(post) for post in posts]}).encode()
    return _send(Request(f"{url}/v1/score", body, {"Content-Type": "application/json"}))


def _encode_post(post: Post) -> dict[str, Any]:
    """Return what of a post a server reads; labels and rationales stay here."""
    image = post.image.read_bytes() if isinstance(post.image, Path) else post.image
    payload = {
        "id": post.id,
        "text": post.text,
        "image": base64.b64encode(image).decode() if image is not None else None,
        "description": post.description,
        "intentions": [i.model_dump(include={"relation", "text"}) for i in post.intentions],
    }
    return {name: value for name, value in payload.items() if value}


def _send(request: Request) -> dict[str, Any]:
    """Return the JSON that answers a request; no proxy stands between."""
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=_ANSWER_TIMEOUT) as answer:
            return dict(json.load(answer))
    except HTTPError as error:
        raise MikoError(f"{request.full_url}: {error.code} {_read_error(error)}") from None
    except (HTTPException, OSError, ValueError, TypeError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise MikoError(f"{request.full_url}: no answer from a server: {reason}") from None


def _read_error(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)
