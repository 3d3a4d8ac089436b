"""2,000 posts, every fault, five kill -9: PYTHONPATH=. python benchmarks/distil_faults.py"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import surroundings, write

from tests.support.killed_runs import (
    FAULT_SHARES,
    assert_books_agree,
    draw_kill_moments,
    find_largest_reservation,
    kill_at,
    make_distil_command,
    read_books,
    sum_billed_dollars,
)
from tests.support.killed_runs import write_posts as written
from tests.support.llm_server import serve_pretended_llm

SERVER = {"fault": FAULT_SHARES, "slow": 0.5, "late": 4.0, "latency": 0.05}


def kills(num_posts: int, num_kills: int, seed: int) -> dict[str, Any]:
    """Kill a run so many times, let the last one end, and compare the books."""
    with tempfile.TemporaryDirectory() as folder:
        posts, kb = written(Path(folder), num_posts), Path(folder) / "kb.sqlite"
        with serve_pretended_llm(Path(folder) / "bills.tsv", seed=seed, **SERVER) as server:
            words, started = make_distil_command(posts, kb, server.url), time.monotonic()
            at = draw_kill_moments(num_kills, num_posts, seed)
            assert [kill_at(words, server, billed) for billed in at] == [-9] * num_kills
            ended = subprocess.run(words, capture_output=True, text=True, check=True)
            found = read_books(server, kb)
            by = server.stats()["by"]
        assert_books_agree(found, num_posts)
        return {
            "posts": num_posts,
            "killed_at_billed": at,
            "seconds": round(time.monotonic() - started, 1),
            **found,
            "requests_by_fault": by,
            "last_run_said": [row for row in ended.stdout.splitlines() if "next:" not in row],
        }


def budget(num_posts: int, usd: float, seed: int) -> dict[str, Any]:
    """Kill a run with a budget once, let it end at the budget, and read the provider's bill."""
    with tempfile.TemporaryDirectory() as folder:
        posts, kb = written(Path(folder), num_posts), Path(folder) / "kb.sqlite"
        with serve_pretended_llm(Path(folder) / "bills.tsv", seed=seed, **SERVER) as server:
            words = make_distil_command(posts, kb, server.url, usd)
            killed_at = draw_kill_moments(1, num_posts // 4, seed)[0]
            assert kill_at(words, server, killed_at) == -9
            ended = subprocess.run(words, capture_output=True, text=True)
            assert ended.returncode == 3, ended.stderr
            found, one = read_books(server, kb), find_largest_reservation(kb)
            assert sum_billed_dollars(server) <= usd + one, found
        return {
            "posts": num_posts,
            "budget": usd,
            "killed_at_billed": killed_at,
            "one_reservation_at_most": one,
            **found,
            "said": ended.stderr.splitlines()[-1],
        }


def main() -> None:
    """Run both and write benchmarks/results/distil/faults.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = surroundings()
    found["faults"] = FAULT_SHARES
    found["kills"] = kills(given.posts, given.kills, given.seed)
    found["budget"] = budget(given.posts, 0.00022 * given.posts, given.seed)
    write("faults.json", found)


if __name__ == "__main__":
    main()
