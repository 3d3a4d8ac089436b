"""Scoring over HTTP: what is answered and refused; the served process and its end."""

import base64
import io
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from miko_clf.data.ocr import open_picture_reader
from miko_clf.errors import MikoError
from miko_clf.serve import batching
from miko_clf.serve.app import make_app, serve_bundle
from miko_clf.serve.batching import MAX_WAITING_POSTS, Batcher
from miko_clf.serve.engine import Engine, PreparedPost
from miko_clf.serve.postprocess import Score
from miko_clf.serve.schemas import MAX_BODY_BYTES
from tests.support.drawn_words import draw_meme, encode_png, normalise_words

JSON = {"Content-Type": "application/json"}
INTENTION = {"relation": "xIntent", "text": "to mock the host"}


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(make_app(Engine.open(bundle, threads=1))) as client:
        _await(lambda: client.get("/health/ready").status_code == 200)
        yield client


def _await(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def _image(colour: str = "red", kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def _png_header(side: int) -> str:
    """Return a PNG that claims `side` x `side` pixels in a few dozen bytes."""
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    return base64.b64encode(data).decode()


def _score(client: TestClient, *posts: dict[str, Any], **request: Any) -> httpx.Response:
    return client.post("/v1/score", json={"posts": posts, **request})


def _check_refused(answer: httpx.Response, status: int, code: str) -> str:
    """Check that an answer is an error in the one form, and return its words."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body.keys() == {"error", "code", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert "\n" not in body["error"]
    for leak in ("pydantic", "/tmp", "/miko_clf", "Traceback", "onnx", "0x"):
        assert leak not in body["error"]
    return str(body["error"])


@pytest.mark.parametrize("with_intention", [True, False])
@pytest.mark.parametrize(
    "content", [{"text": "x"}, {"image": _image()}, {"text": "x", "image": _image("blue", "JPEG")}]
)
def test_any_subset_of_inputs_is_scored(
    client: TestClient, content: dict[str, Any], with_intention: bool
) -> None:
    post = {"id": "mine", **content, "intentions": [INTENTION] if with_intention else None}
    (found,) = _score(client, post).json()["scores"]
    assert found["id"] == "mine"
    assert found["arm"] == ("with" if with_intention else "student")
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_many_posts_in_a_request_score_as_each_alone_in_every_arm(client: TestClient) -> None:
    posts = [{"text": f"a party of {n}", "intentions": [INTENTION] * (n % 3)} for n in range(32)]
    for arm in ("with", "student", "without"):
        answer = _score(client, *posts, arm=arm).json()
        alone = [_score(client, post, arm=arm).json()["scores"][0] for post in posts]
        assert [one["id"] for one in answer["scores"]] == [str(n) for n in range(32)]
        for one, other in zip(answer["scores"], alone, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
            assert one["arm"] == arm
    assert answer["model"].keys() == {"name", "digest"}


def test_the_answer_says_what_was_read_off_a_picture(bundle: Path) -> None:
    picture = base64.b64encode(encode_png(draw_meme("WHAT A LOVELY", "QUEUE AGAIN"))).decode()
    engine = Engine.open(bundle, threads=1, reader=open_picture_reader(1))
    with TestClient(make_app(engine)) as client:
        _await(lambda: client.get("/health/ready").status_code == 200)
        read, given = _score(client, {"image": picture}, {"image": picture, "text": "x"}).json()[
            "scores"
        ]
    assert read["text_source"] == "ocr"
    assert normalise_words(read["text"]) == "WHATALOVELYQUEUEAGAIN"
    assert 0.8 <= read["text_confidence"] <= 1
    assert not {"text_source", "text", "text_confidence"} & given.keys()


def test_no_posts_have_no_scores(client: TestClient) -> None:
    assert _score(client).json()["scores"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"posts": []}',
        b'{"posts": [{"text": "\\ud800"}]}',
        b'{"posts": NaN}',
        b'{"posts": ' + b"9" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"posts":' * 100_000,
    ],
    ids=repr,
)
def test_a_malformed_body_is_400(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/score", content=body[:1_000_000], headers=JSON)
    _check_refused(answer, 400, "malformed")


@pytest.mark.parametrize(
    ("post", "words"),
    [
        ({}, "posts[0] has neither a text nor an image"),
        ({"text": " "}, "posts[0] has neither a text nor an image"),
        ({"text": 5}, "posts[0].text must be a string"),
        ({"text": "x", "id": ""}, "posts[0].id is empty"),
        ({"text": "x" * 10_001}, "posts[0].text is longer than 10,000 characters"),
        ({"text": "x", "rationale": "y"}, "posts[0].rationale is not a key that is read"),
        ({"text": "x", "image_url": "http://x"}, "posts[0].image_url is not a key that is read"),
        ({"text": "x", "intentions": "y"}, "posts[0].intentions must be a list"),
        ({"text": "x", "intentions": [{"relation": "Open"}]}, "[0].text is required"),
        ({"text": "x", "intentions": [INTENTION] * 21}, "holds more than 20 entries"),
        ({"text": "x", "intentions": [{**INTENTION, "relation": "y"}]}, "must be 'xNeed', 'xInt"),
        ({str(n): n for n in range(100_000)}, "an object holds more than 16 keys"),
        ({"image": "/etc/passwd!"}, "posts[0].image is not base64"),
        ({"image": "é"}, "posts[0].image is not base64"),
        ({"image": "A" * 7_000_000}, "posts[0].image is larger than 5 MiB"),
        ({"image": _image()[:80]}, "posts[0]: the image is not a readable"),
        ({"image": _png_header(20_000)}, "posts[0]: the image has 20000 x 20000 pixels"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_post_that_cannot_be_read_is_422(
    client: TestClient, post: dict[str, Any], words: str
) -> None:
    seconds = []
    while len(seconds) < 5 and min(seconds, default=2) >= 1:  # others may be using the cores
        started = time.monotonic()
        assert words in _check_refused(_score(client, post), 422, "invalid")
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1


def test_a_request_of_another_form_is_422(client: TestClient) -> None:
    for body, words in [
        ([], "the body must be an object"),
        ({}, "posts is required"),
        ({"posts": [{"text": "x"}] * 33}, "posts holds more than 32 entries"),
        ({"posts": [], "arm": "shuffled"}, "arm must be 'with', 'student' or 'without'"),
    ]:
        answer = client.post("/v1/score", json=body)
        assert words in _check_refused(answer, 422, "invalid")


def test_a_body_over_the_limit_is_413_whatever_its_headers_say(client: TestClient) -> None:
    chunks = (b" " * 65_536 for _ in range(144))  # 9 MiB
    answer = client.post("/v1/score", content=chunks, headers=JSON)
    _check_refused(answer, 413, "too_large")
    short = {**JSON, "Content-Length": "5"}
    answer = client.post("/v1/score", content=b" " * (MAX_BODY_BYTES + 1), headers=short)
    _check_refused(answer, 413, "too_large")


def test_other_types_of_body_and_of_image_are_415(client: TestClient) -> None:
    for headers in [{}, {"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "gzip"}]:
        answer = client.post("/v1/score", content=b"{}", headers=headers)
        _check_refused(answer, 415, "unsupported_type")
    for kind in ("BMP", "TIFF", "ICO"):
        _check_refused(_score(client, {"image": _image(kind=kind)}), 415, "unsupported_image")


def test_an_address_or_a_method_that_there_is_not_has_the_form_of_every_error(
    client: TestClient,
) -> None:
    _check_refused(client.get("/nowhere"), 404, "not_found")
    _check_refused(client.get("/docs"), 404, "not_found")
    _check_refused(client.get("/v1/score"), 405, "method_not_allowed")


def test_a_full_queue_is_429_and_says_when_to_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.app.state.service.posts, "taken", MAX_WAITING_POSTS - 1)
    answer = _score(client, {"text": "x"}, {"text": "y"})
    _check_refused(answer, 429, "busy")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert client.app.state.service.posts.taken == MAX_WAITING_POSTS - 1
    assert _score(client, {"text": "x"}).status_code == 200


def test_before_it_is_warm_and_while_it_drains_the_server_is_503(bundle: Path) -> None:
    cold = TestClient(make_app(Engine.open(bundle, threads=1)))  # never started
    draining = TestClient(make_app(Engine.open(bundle, threads=1), stopping=lambda: True))
    for client, code in ((cold, "not_ready"), (draining, "draining")):
        assert client.get("/health/live").json() == {"status": "live"}
        _check_refused(client.get("/health/ready"), 503, code)
        _check_refused(_score(client, {"text": "x"}), 503, code)


def test_work_that_takes_too_long_is_504(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = threading.Event()
    monkeypatch.setattr(batching, "REQUEST_DEADLINE", 0.1)
    monkeypatch.setattr(client.app.state.service.batcher, "_run", lambda posts: wake.wait(5))
    _check_refused(_score(client, {"text": "x"}), 504, "deadline")
    wake.set()


def test_a_fault_of_ours_is_500_and_says_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(posts: Sequence[PreparedPost]) -> list[Score]:
        raise RuntimeError("secret of /root")

    monkeypatch.setattr(client.app.state.service.batcher, "_run", fail)
    assert "secret" not in _check_refused(_score(client, {"text": "x"}), 500, "internal")
    monkeypatch.undo()
    assert _score(client, {"text": "x"}).status_code == 200


def test_a_request_id_of_plain_characters_comes_back_and_any_other_is_replaced(
    client: TestClient,
) -> None:
    answer = client.get("/health/live", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    for bad in ("a b", "x" * 65, "<script>"):
        answer = client.get("/health/live", headers={"X-Request-ID": bad})
        assert answer.headers["X-Request-ID"] not in ("", bad)


def test_concurrent_requests_do_not_mix(client: TestClient) -> None:
    posts = [{"id": str(n), "text": f"word {n} " * (n % 7 + 1)} for n in range(60)]
    alone = [_score(client, post).json()["scores"] for post in posts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda post: _score(client, post).json()["scores"], posts))
    for (one,), (other,) in zip(together, alone, strict=True):
        assert one["id"] == other["id"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_work_is_gathered_and_what_expired_or_was_given_up_is_never_done() -> None:
    seen: list[int] = []
    batcher = Batcher(lambda posts: seen.append(len(posts)) or list(posts))
    later = time.monotonic() + 60
    posts = [PreparedPost(str(n), "without", {}, False) for n in range(20)]
    first, second = batcher.submit(posts[:5], later), batcher.submit(posts[5:8], later)
    expired, dropped = batcher.submit(posts, 0.0), batcher.submit(posts[:4], later)
    dropped.cancel()
    third = batcher.submit(posts, later)
    batcher.start()
    batcher.close()
    assert (first.result(), second.result(), third.result()) == (posts[:5], posts[5:8], posts)
    assert isinstance(expired.exception(), TimeoutError)
    assert seen == [8, 20]


CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


@contextmanager
def run_server(bundle: Path) -> Iterator[tuple[Popen[str], str]]:
    """Give a server's process and address."""
    code = (
        "from pathlib import Path\n"
        "from miko_clf.serve.app import serve_bundle\n"
        "from miko_clf.serve.engine import Engine\n"
        f"serve_bundle(Engine.open(Path({str(bundle)!r}), threads=1), port=0)"
    )
    with Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith(f"serving {bundle} at http://127.0.0.1:")
            assert line.endswith(" on cpu\n")
            yield process, line.split()[3]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """Where a process serves that is only asked."""
    with run_server(bundle) as (_, address):
        yield address


def test_a_taken_port_is_said_in_one_line(bundle: Path, address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(MikoError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
        serve_bundle(Engine.open(bundle, threads=1), port=port)
    with pytest.raises(MikoError, match="port 99999"):
        serve_bundle(Engine.open(bundle, threads=1), port=99_999)


def test_on_sigterm_requests_under_way_are_answered_and_the_process_exits_0(bundle: Path) -> None:
    many = {"posts": [{"text": f"post {n}"} for n in range(32)]}
    with run_server(bundle) as (process, address):
        with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=address, timeout=30) as client:
            assert client.get("/health/ready").status_code == 200
            asked = [pool.submit(client.post, "/v1/score", json=many) for _ in range(8)]
            time.sleep(0.3)  # the requests are under way
            process.send_signal(signal.SIGTERM)
            assert [len(each.result().json()["scores"]) for each in asked] == [32] * 8
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("mode", "expected"), [(GenerationMode.POSITIVE, 200), (GenerationMode.NEGATIVE, 422)]
)
def test_the_server_holds_to_its_own_description_on_requests_made_from_it(
    address: str, mode: GenerationMode, expected: int
) -> None:
    statuses = set()
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema["/v1/score"]["POST"].as_strategy(generation_mode=mode))
    def hold(case: schemathesis.Case) -> None:
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    hold()
    assert expected in statuses
