"""Asking a running server about the posts of a file."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.command_line import assert_one_line_error, run_command, write_posts_file


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that is ready at the third question and gives back what it was asked."""
    state = SimpleNamespace(health=[503, 503, 200], asked=[], answer=(200, {"scores": ["fine"]}))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = state.health.pop(0) if len(state.health) > 1 else state.health[0]
            self.reply(code, {"error": "warming up"})

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            state.asked.append((self.path, json.loads(self.rfile.read(length))))
            self.reply(*state.answer)

        def reply(self, code: int, body: dict) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        state.url = f"http://127.0.0.1:{found.server_address[1]}"
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield state
        found.shutdown()
        thread.join()


def test_ask_sends_the_first_post_without_what_is_known_of_its_label(
    server: SimpleNamespace, world: Path
):
    ended = run_command("ask", server.url + "/", world / "sarcasm" / "test.jsonl", "--wait", 20)
    assert ended.code == 0
    assert json.loads(ended.out) == {"scores": ["fine"]}
    [(path, body)] = server.asked
    assert path == "/v1/score"
    [post] = body["posts"]
    assert set(post) == {"id", "text", "image", "description", "intentions"}
    assert set(post["intentions"][0]) == {"relation", "text"}


def test_ask_sends_as_many_posts_as_it_is_told(server: SimpleNamespace, world: Path):
    server.health = [200]
    run_command("ask", server.url, world / "sarcasm" / "test.jsonl", "--count", 3)
    assert len(server.asked[0][1]["posts"]) == 3


def test_a_server_that_is_not_ready_in_time_is_one_line(server: SimpleNamespace, world: Path):
    ended = run_command("ask", server.url, world / "sarcasm" / "test.jsonl")
    assert_one_line_error(ended, "/health/ready: 503 warming up")
    assert server.asked == []


def test_a_refusal_is_one_line_in_the_servers_words(server: SimpleNamespace, world: Path):
    server.health, server.answer = [200], (422, {"error": "posts[0].text is empty"})
    ended = run_command("ask", server.url, world / "sarcasm" / "test.jsonl")
    assert_one_line_error(ended, "/v1/score: 422 posts[0].text is empty")


def test_asking_where_no_server_is_or_without_posts_is_one_line(
    server: SimpleNamespace, world: Path, tmp_path: Path
):
    source = world / "sarcasm" / "test.jsonl"
    assert_one_line_error(run_command("ask", "http://127.0.0.1:1", source), "no answer")
    assert_one_line_error(
        run_command("ask", "file:///etc", source), "is not the address of a server"
    )
    empty = write_posts_file(tmp_path / "empty.jsonl")
    assert_one_line_error(run_command("ask", server.url, empty), str(empty))
