"""Real servers of language models, each in a process group that ends with the block."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB
PLAIN = ["--dtype", "float32", "--max-model-len", "8192", "--enforce-eager"]
# Without this a random model writes line breaks between two fields until its tokens are spent.
GRAMMAR = '{"backend": "xgrammar", "disable_any_whitespace": true}'


class Server(NamedTuple):
    """Where a server listens, and the first process of its group."""

    url: str
    pid: int


@contextmanager
def run_transformers_server(log: Path, deadline: float = 120) -> Iterator[Server]:
    """Run `transformers serve`; a model is loaded when it is first asked, by its folder's path.

    The deadline is in seconds. There is no cache of downloaded models, which this server minds.
    """
    port = _free_port()
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", "--device", "cpu", "--host", "127.0.0.1", "--port", port]
    with _started(command, log, {"HF_HUB_CACHE": str(log.with_name("none"))}) as process:
        _await_health(process, port, log, deadline)
        yield Server(f"http://127.0.0.1:{port}/v1", process.pid)


@contextmanager
def run_vllm_server(venv: Path, folder: Path, log: Path, deadline: float = 600) -> Iterator[Server]:
    """Serve a model, called by its folder's name, with an environment's vLLM.

    The deadline is in seconds.
    """
    port = _free_port()
    command = [*_vllm(venv, "serve"), folder, *_named(folder), "--enable-prompt-tokens-details"]
    command += ["--host", "127.0.0.1", "--port", port]
    with _started(command, log, _cached(venv)) as process:
        _await_health(process, port, log, deadline)
        yield Server(f"http://127.0.0.1:{port}/v1", process.pid)


def run_vllm_batch(
    venv: Path, folder: Path, asked: Path, answered: Path, log: Path, deadline: float = 600
) -> None:
    """Answer a file of requests with a model, called by its folder's name; deadline in seconds."""
    command = [*_vllm(venv, "run-batch"), "-i", asked, "-o", answered]
    with _started([*command, "--model", folder, *_named(folder)], log, _cached(venv)) as process:
        if process.wait(deadline):
            raise RuntimeError(f"vllm run-batch ended with {process.returncode}{_end_of(log)}")


def _vllm(venv: Path, command: str) -> list[object]:
    return [venv / "bin" / "vllm", command]


def _named(folder: Path) -> list[object]:
    named = ["--served-model-name", folder.name]
    return [*named, *PLAIN, "--structured-outputs-config", GRAMMAR]


def _cached(venv: Path) -> dict[str, str]:
    """Keep what vLLM caches in its environment instead of the home folder."""
    return {**SMALL, "VLLM_CACHE_ROOT": str(venv / "cache")}


@contextmanager
def _started(
    command: list[object], log: Path, surroundings: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=out,
            stderr=out,
            env={**os.environ, **QUIET, **surroundings},
            start_new_session=True,  # what it starts ends with it
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, and see to it that all of it does."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path, deadline: float) -> None:
    until = time.monotonic() + deadline
    while not _healthy(port):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}{_end_of(log)}")
        if time.monotonic() > until:
            raise RuntimeError(f"the server was not ready in {deadline:.0f} s{_end_of(log)}")
        time.sleep(0.2)


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end_of(log: Path) -> str:
    return f"; its log ends:\n{log.read_text(errors='replace')[-3000:]}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
