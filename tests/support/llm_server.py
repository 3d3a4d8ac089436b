"""An OpenAI-compatible server that misbehaves on purpose and writes down what it bills.

    python -m tests.support.llm_server --port 8000 --fault error=0.05 --log bills.tsv

Which fault a request meets follows from its body and from how often it came. What the faults are
called is told by `llm_provider.FAULTS`; a model has the quirks (`llm_answers.Quirks`) that it is
named for, such as `any?blind` or `any?obeys=json_object`.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import uvicorn

from tests.support.llm_answers import Bill
from tests.support.llm_provider import Dropping, Provider
from tests.support.repository import ROOT


class Billed(NamedTuple):
    """A line of the log: one request that was answered. `what` is its fault, or `ok`."""

    request: str
    attempt: int
    what: str
    model: str
    bill: Bill


class Server(NamedTuple):
    """A server under way: its address, its process and the log of what it billed."""

    url: str
    pid: int
    log: Path | None

    def billed(self) -> list[Billed]:
        """Return what the server has answered so far, in order."""
        assert self.log is not None
        found = [line.split("\t") for line in self.log.read_text().splitlines()]
        return [Billed(a, int(b), c, d, Bill(*map(int, bill))) for a, b, c, d, *bill in found]

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last change of faults."""
        with urlopen(f"{self.url.removesuffix('/v1')}/_stats") as answer:
            return dict(json.load(answer))

    def change(self, **faults: float) -> None:
        """Let other faults strike from now on."""
        to = f"{self.url.removesuffix('/v1')}/_faults"
        with urlopen(Request(to, json.dumps(faults).encode(), method="POST")):
            pass


@contextmanager
def serve_pretended_llm(log: Path | None = None, **given: Any) -> Iterator[Server]:
    """Run the server in a process of its own: `rpm=60` is `--rpm 60`, a dict is many flags."""
    flags: list[str] = ["--log", str(log.absolute())] if log else []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            flags += [part for key, each in value.items() for part in (flag, f"{key}={each}")]
        else:
            flags += [flag] if value is True else [flag, str(value)]
    command = [sys.executable, "-m", "tests.support.llm_server", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            port = process.stdout.readline().strip()
            yield Server(f"http://127.0.0.1:{port}/v1", process.pid, log)
        finally:
            process.send_signal(signal.SIGKILL)


def _parser() -> argparse.ArgumentParser:
    pair = lambda text: text.split("=", 1)  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--fault", action="append", type=pair, default=[], metavar="NAME=RATE")
    for name in ("latency", "slow", "late"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="seconds")
    parser.add_argument("--rpm", type=float)
    parser.add_argument("--no-retry-after", action="store_true")
    parser.add_argument("--key", help="the one key that is taken")
    parser.add_argument("--quota", action="store_true", help="the account is empty")
    parser.add_argument("--batch-seconds", type=float, default=1.0)
    parser.add_argument("--batch-share", type=float, default=1.0)
    return parser


def main() -> None:
    """Serve on the loopback until killed; the first line on stdout is the port."""
    given = _parser().parse_args()
    provider = Provider(given)  # opens the log, which who knows the port may read at once
    listening = socket.create_server(("127.0.0.1", given.port), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        provider, http=Dropping, lifespan="off", log_level="error", access_log=False
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
