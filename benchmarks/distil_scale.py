"""A long run against a fast server: PYTHONPATH=. python benchmarks/distil_scale.py

Memory is sampled each second from the tenth post in a hundred on; its slope is that of a least
squares line through megabytes over posts. The finished run is then given again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import surroundings, write

from tests.support.killed_runs import count_billed
from tests.support.killed_runs import write_posts as written
from tests.support.llm_server import Server, serve_pretended_llm

# The command line, and at its end how many commits were made.
_COUNTED = """
from miko_clf.cli.main import main
from miko_clf.distil.kb.store import CommitWriter
close = CommitWriter.close
def told(self):
    print("commits", self.num_commits)
    close(self)
CommitWriter.close = told
main()
"""
_WARM = 0.1  # of the posts, before memory is looked at
_MB = 1e6


def followed(words: list[str], server: Server) -> tuple[list[tuple[int, float]], dict[str, Any]]:
    """Return (answers billed, bytes of memory) each second, and how the run went."""
    seen, started = [], time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    page = os.sysconf("SC_PAGE_SIZE")
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        seen.append((count_billed(server), float(resident * page)))
        time.sleep(1)
    assert process.stdout
    said = process.stdout.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    assert process.returncode == 0, said
    commits = next(int(line.split()[1]) for line in said if line.startswith("commits "))
    return seen, {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / _MB, 1),
        "commits": commits,
        "said": [line for line in said if not line.startswith(("commits ", "next:"))],
    }


def memory(seen: list[tuple[int, float]], posts: int) -> dict[str, Any]:
    """Return how memory went over the posts, warm-up left out."""
    warm = np.array([each for each in seen if each[0] >= _WARM * posts])
    slope, _ = np.polyfit(warm[:, 0] / 10_000, warm[:, 1] / _MB, 1)
    quarter = max(1, len(warm) // 4)
    return {
        "samples": len(warm),
        "slope_mb_per_10000_posts": round(float(slope), 3),
        "first_quarter_mean_mb": round(float(warm[:quarter, 1].mean() / _MB), 2),
        "last_quarter_mean_mb": round(float(warm[-quarter:, 1].mean() / _MB), 2),
        "most_mb": round(float(warm[:, 1].max() / _MB), 2),
    }


def main() -> None:
    """Run it and write benchmarks/results/distil/scale.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=50_000)
    given = parser.parse_args()
    found = surroundings()
    with tempfile.TemporaryDirectory() as name:
        folder, kb = Path(name), Path(name) / "kb.sqlite"
        posts = written(folder, given.posts, plain=True)
        with serve_pretended_llm(folder / "bills.tsv") as server:
            words = [sys.executable, "-c", _COUNTED, "distil", posts, "--kb", kb]
            words = [*map(str, words), "--server", server.url, "--model", "m", "--no-probe"]
            seen, first = followed(words, server)
            size = kb.stat().st_size
            _, again = followed(words, server)
            billed = count_billed(server)
    assert billed == given.posts
    found |= {
        "posts": given.posts,
        "posts_a_second": round(given.posts / first["seconds"], 1),
        "commits_a_second": round(first["commits"] / first["seconds"], 1),
        "answers_a_commit": round(given.posts / first["commits"], 2),
        "cpu_ms_a_post": round(first["cpu_seconds"] / given.posts * 1000, 3),
        "memory": memory(seen, given.posts),
        "shelf_bytes": size,
        "shelf_bytes_a_post": round(size / given.posts),
        "first": first,
        "resumed": again,
        "resumed_posts_a_second": round(given.posts / again["seconds"], 1),
        "asked_again_when_resumed": billed - given.posts,
    }
    write("scale.json", found)


if __name__ == "__main__":
    main()
