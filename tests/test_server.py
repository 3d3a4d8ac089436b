"""The served process: its address, its description of itself, and its end."""

import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from miko_clf.errors import MikoError
from miko_clf.serve.app import serve

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


@contextmanager
def serving(bundle: Path) -> Iterator[tuple[Popen[str], str]]:
    """Give a server's process and address."""
    call = f"serve(Path({str(bundle)!r}), port=0, threads=1)"
    code = f"from pathlib import Path\nfrom miko_clf.serve.app import serve\n{call}"
    with Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith(f"serving {bundle} at http://127.0.0.1:")
            assert line.endswith(" on cpu\n")
            yield process, line.split()[3]
        finally:
            process.kill()


def test_a_taken_port_is_said_in_one_line(bundle: Path) -> None:
    with serving(bundle) as (_, address):
        port = int(address.rpartition(":")[2])
        with pytest.raises(MikoError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            serve(bundle, port=port)
    with pytest.raises(MikoError, match="port 99999"):
        serve(bundle, port=99_999)


def test_on_sigterm_requests_under_way_are_answered_and_the_process_exits_0(bundle: Path) -> None:
    many = {"posts": [{"text": f"post {n}"} for n in range(32)]}
    with serving(bundle) as (process, address):
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
    bundle: Path, mode: GenerationMode, expected: int
) -> None:
    statuses = set()
    with serving(bundle) as (_, address):
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")

        @settings(
            max_examples=60,
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
