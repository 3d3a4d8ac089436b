"""Runs that are killed, and the provider's books beside ours afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from miko_clf.distil.kb.store import open_for_reading
from tests.support.llm_provider import UNHEARD
from tests.support.llm_server import Server

# Each fault with its share of the requests: 30 % of all of them meet one.
FAULT_SHARES = {
    "limited": 0.01,
    "limited_wait": 0.01,
    "error": 0.03,
    "busy": 0.02,
    "busy_wait": 0.01,
    "filtered": 0.01,
    "drop": 0.03,
    "drop_answered": 0.03,
    "late": 0.01,
    "garbage": 0.02,
    "page": 0.02,
    "slow": 0.03,
    "invalid": 0.03,
    "truncated": 0.02,
    "refusal": 0.01,
    "filter": 0.005,
    "apology": 0.01,
}
TWO_MODEL_PRICES = {
    "first": {"input": 0.1, "cached": 0.01, "output": 0.5},
    "second": {"input": 0.2, "cached": 0.02, "output": 1.0},
}


def write_posts(folder: Path, number: int, *, plain: bool = False) -> Path:
    """Write posts of which one in 20 says what another says, and one in ten has a tiny picture.

    With `plain` they are words alone, and no two the same.
    """
    for n in range(8):
        Image.new("RGB", (16, 16), (n * 30, 90, 200)).save(folder / f"{n}.png")
    path = folder / "posts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            said = n - 7 if n % 20 == 19 and not plain else n
            row = {"id": f"p{n}", "text": f"Post {said}: what a lovely {said % 31} hour queue"}
            if n % 10 == 3 and not plain:
                row["image"] = f"{n % 8}.png"
            file.write(json.dumps(row) + "\n")
    return path


def make_distil_command(
    posts: Path, kb: Path, url: str, budget: float | None = None, *, deadline: float = 2.0
) -> list[str]:
    """Return the run as a command line, two models and their prices included."""
    prices = kb.with_name("prices.yaml")
    prices.write_text(json.dumps(TWO_MODEL_PRICES))  # JSON is YAML
    words = [sys.executable, "-m", "miko_clf", "distil", posts, "--kb", kb, "--server", url]
    words += ["--model", "first", "--fallback", "second", "--prices", prices, "--no-probe"]
    words += ["--deadline", deadline]
    words += ["--budget-usd", budget] if budget is not None else []
    return [str(word) for word in words]


def kill_at(words: list[str], server: Server, billed: int) -> int:
    """Start a run, kill it once the provider has billed so many answers; return how it ended."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if count_billed(server) >= billed:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        return process.wait()


def draw_kill_moments(number: int, calls: int, seed: int) -> list[int]:
    """Return at how many billed answers to kill: at random, in order."""
    return sorted(random.Random(seed).sample(range(calls // 20, calls * 9 // 10), number))


def count_billed(server: Server) -> int:
    """Return how many answers the provider has billed."""
    assert server.log is not None
    return server.log.read_bytes().count(b"\n") if server.log.exists() else 0


def sum_billed_dollars(server: Server) -> float:
    """Return what the provider asks for all that it has answered."""
    return sum(_price(TWO_MODEL_PRICES[row.model], *row.bill) for row in server.billed())


def find_largest_reservation(kb: Path) -> float:
    """Return the most that was set aside for one call, by the longest prompt and answer."""
    db = open_for_reading(kb)
    try:
        rows = db.execute("SELECT model, prompt_tokens, sampling FROM calls").fetchall()
    finally:
        db.close()
    costs = (
        _price(TWO_MODEL_PRICES[model], 2 * prompt, 0, json.loads(sampling)["max_tokens"])
        for model, prompt, sampling in rows
    )
    return max(costs, default=0.0)


def read_books(server: Server, kb: Path) -> dict[str, Any]:
    """Return both sides' books: what was billed, to whom it was of use, and what we hold.

    `kept_from_us` are answers that the provider billed and did not deliver; `cut_off` what else was
    billed beyond the answers kept: no more than the calls in flight at kills.
    """
    billed = server.billed()
    heard = Counter(row.request for row in billed if row.what not in UNHEARD)
    db = open_for_reading(kb)
    try:
        one = lambda say: db.execute(say).fetchone()[0]  # noqa: E731
        lost = json.loads(one("SELECT COALESCE(MAX(value), 'null') FROM facts WHERE name = 'lost'"))
        found = {
            "outcomes": dict(db.execute("SELECT status, COUNT(*) FROM outcomes GROUP BY status")),
            "calls": dict(db.execute("SELECT status, COUNT(*) FROM calls GROUP BY status")),
            "calls_unread": one("SELECT COUNT(*) FROM calls WHERE status IS NULL"),
            "not_billed": one(
                "SELECT COUNT(*) FROM calls WHERE status = 'failed' OR reason LIKE 'filtered%'"
            ),
            "in_flight_at_kills": (lost or {"calls": 0})["calls"],
            "our_dollars": one("SELECT TOTAL(usd) FROM calls") + (lost or {"usd": 0.0})["usd"],
            "integrity": one("PRAGMA integrity_check"),
        }
    finally:
        db.close()
    return {
        **found,
        "billed": len(billed),
        "questions_billed": len({row.request for row in billed}),
        "answers_kept": (answers := sum(found["calls"].values()) - found["not_billed"]),
        "kept_from_us": len(billed) - heard.total(),
        "cut_off": heard.total() - answers,
        "their_dollars": sum_billed_dollars(server),
    }


def assert_books_agree(found: Mapping[str, Any], posts: int) -> None:
    """Assert that every post has ended and that the two books say the same."""
    assert sum(found["outcomes"].values()) == posts, found
    assert found["calls_unread"] == 0, found
    assert found["integrity"] == "ok", found
    assert found["billed"] == found["answers_kept"] + found["kept_from_us"] + found["cut_off"]
    assert 0 <= found["cut_off"] <= found["in_flight_at_kills"], found
    assert found["our_dollars"] >= found["their_dollars"], found


def _price(price: Mapping[str, float], prompt: int, cached: int, completion: int) -> float:
    fresh = (prompt - cached) * price["input"] + cached * price["cached"]
    return (fresh + completion * price["output"]) / 1e6
