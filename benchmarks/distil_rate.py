"""Rate limits, calls in flight, CPU a call: PYTHONPATH=. python benchmarks/distil_rate.py"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from measuring import surroundings, write

from tests.support.killed_runs import count_billed
from tests.support.killed_runs import write_posts as written
from tests.support.llm_server import Server, serve_pretended_llm

RPM, POSTS = 60, 90
FLOOR = (POSTS - RPM) * 60 / RPM  # seconds: a minute's worth goes at once


@contextmanager
def llmock(rpm: int) -> Iterator[str]:
    """Run llmock, a server of other authors that judges its clients."""
    with serve_pretended_llm() as spare:  # a port that was free a moment ago
        port = spare.url.split(":")[2].split("/")[0]
    program = Path(sys.executable).with_name("llmock")
    words = [program, "serve", "--port", port, "--rpm", str(rpm), "--log-level", "error"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        root = f"http://127.0.0.1:{port}"
        try:
            while not _listens(f"{root}/_llmock/requests"):
                time.sleep(0.1)
            yield root
        finally:
            process.kill()


def run(words: list[str]) -> tuple[float, float]:
    """Return the seconds and the seconds of CPU that a command took, user and system."""
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return time.monotonic() - started, used.ru_utime + used.ru_stime


def command(folder: Path, posts: Path, url: str) -> list[str]:
    """Return the run as a command line."""
    words = [sys.executable, "-m", "miko_clf", "distil", posts, "--kb", folder / "kb.sqlite"]
    return [*map(str, words), "--server", url, "--model", "gpt-4o-mini", "--no-probe"]


def against_llmock() -> dict[str, Any]:
    """Return how 90 posts went at llmock's 60 requests a minute, and what it says of us."""
    with tempfile.TemporaryDirectory() as name, llmock(RPM) as root:
        run(command(Path(name), written(Path(name), POSTS, plain=True), f"{root}/v1"))
        with urlopen(f"{root}/_llmock/requests") as answer:
            rows = json.load(answer)
        with urlopen(f"{root}/_llmock/verdict?format=text") as answer:
            verdict = answer.read().decode()
    rows = rows if isinstance(rows, list) else rows["requests"]
    rows = [row for row in rows if row["path"].endswith("completions")]
    ended = max(row["ended_at"] for row in rows) - min(row["started_at"] for row in rows)
    most = Counter(row["fingerprint"] for row in rows)
    return {
        **_timed(ended, len(rows), max(most.values())),
        "answered": sum(row["status"] == 200 for row in rows),
        "verdict": verdict.strip().splitlines(),
    }


def against_ours(**given: Any) -> dict[str, Any]:
    """Return how 90 posts went at our server's 60 requests a minute."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serve_pretended_llm(folder / "bills.tsv", rpm=RPM, **given) as server:
            run(command(folder, written(folder, POSTS, plain=True), server.url))
            stats, billed = server.stats(), server.billed()
    return {
        **_timed(stats["span"], sum(stats["by"].values()), None),
        "answered": len(billed),
        "questions": len({row.request for row in billed}),
    }


def unlimited(calls: int, latency: float) -> dict[str, Any]:
    """Return how many calls were in flight at a slow server, and the CPU time of each.

    The CPU time of a run of 100 calls is taken off as that of starting up.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = folder / "few", folder / "many"
        few.mkdir()
        many.mkdir()
        with serve_pretended_llm(folder / "few.tsv", latency=latency) as server:
            _, start = run(command(few, written(few, 100, plain=True), server.url))
        with serve_pretended_llm(folder / "many.tsv", latency=latency) as server:
            words = command(many, written(many, calls + 100, plain=True), server.url)
            with ThreadPoolExecutor(1) as pool:
                watching = pool.submit(_levels, server, calls + 100)
                took, cpu = run(words)
                seconds = watching.result(60)
    whole = sum(seconds.values())
    return {
        "calls": calls + 100,
        "server_latency_seconds": latency,
        "seconds": round(took, 2),
        "calls_a_second": round((calls + 100) / took, 1),
        "in_flight_mean": round(sum(n * t for n, t in seconds.items()) / whole, 2),
        "in_flight_most": max(seconds),
        "share_of_time_with_60_or_more": round(_share(seconds, 60), 4),
        "share_of_time_with_64": round(_share(seconds, 64), 4),
        "cpu_ms_a_call": round((cpu - start) / calls * 1000, 3),
        "cpu_ms_a_call_with_start_up": round(cpu / (calls + 100) * 1000, 3),
        "cpu_seconds_of_a_run_of_100": round(start, 2),
    }


def _levels(server: Server, calls: int) -> dict[int, float]:
    """Return for how long how many calls were under way, between the first and last 300."""
    while count_billed(server) < 300:
        time.sleep(0.05)
    server.change()
    while count_billed(server) < calls - 300:
        time.sleep(0.05)
    return {int(level): seconds for level, seconds in server.stats()["seconds"].items()}


def _timed(ended: float, attempts: int, most: int | None) -> dict[str, Any]:
    return {
        "posts": POSTS,
        "requests_a_minute": RPM,
        "floor_seconds": FLOOR,
        "seconds": round(ended, 2),
        "over_the_floor_percent": round((ended / FLOOR - 1) * 100, 2),
        "attempts": attempts,
        **({"most_attempts_of_a_call": most} if most else {}),
    }


def _share(seconds: dict[int, float], least: int) -> float:
    return sum(t for n, t in seconds.items() if n >= least) / sum(seconds.values())


def _listens(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, ConnectionError, TimeoutError):
        return False


def main() -> None:
    """Run all and write benchmarks/results/distil/rate.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=6000)
    given = parser.parse_args()
    found = surroundings()
    found["llmock"] = against_llmock()
    found["ours_with_retry_after"] = against_ours()
    found["ours_without_retry_after"] = against_ours(no_retry_after=True)
    found["no_limit"] = [unlimited(given.calls, latency) for latency in (0.2, 1.0)]
    write("rate.json", found)


if __name__ == "__main__":
    main()
