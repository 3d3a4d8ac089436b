"""Runs that are killed, against a provider that fails in every way: nothing lost or paid twice."""

import subprocess
from pathlib import Path

from tests.support.killed_runs import (
    FAULT_SHARES,
    assert_books_agree,
    draw_kill_moments,
    kill_at,
    make_distil_command,
    read_books,
    sum_billed_dollars,
    write_posts,
)
from tests.support.killed_runs import find_largest_reservation as reserved
from tests.support.llm_server import serve_pretended_llm

# Fewer of those that are waited for a second each, and a short wait for those that never come.
QUICK = {
    "fault": {**FAULT_SHARES, "limited": 0.003, "limited_wait": 0.003, "busy_wait": 0.003},
    "slow": 0.2,
    "late": 1.1,
    "latency": 0.02,
}


def test_over_two_kills_and_all_faults_every_post_ends_and_the_books_agree(tmp_path: Path):
    posts, kb = write_posts(tmp_path, 120), tmp_path / "kb.sqlite"
    with serve_pretended_llm(tmp_path / "bills.tsv", **QUICK) as server:
        words = make_distil_command(posts, kb, server.url, deadline=1.0)
        ends = [kill_at(words, server, at) for at in draw_kill_moments(2, 120, seed=1)]
        assert ends == [-9, -9]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        found = read_books(server, kb)
    assert_books_agree(found, posts=120)
    assert found["in_flight_at_kills"] > 0
    assert found["kept_from_us"] > 0
    assert found["outcomes"]["ok"] > 90


def test_over_a_kill_and_all_faults_the_budget_is_kept(tmp_path: Path):
    posts, kb = write_posts(tmp_path, 300), tmp_path / "kb.sqlite"
    budget = 0.07  # of about 0.09 that the posts take, and a kill may cost 0.05
    with serve_pretended_llm(tmp_path / "bills.tsv", **QUICK) as server:
        words = make_distil_command(posts, kb, server.url, budget, deadline=1.0)
        assert kill_at(words, server, 60) == -9
        ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 3, ended.stderr
        assert ended.stderr.count("the budget of $0.07 is reached") == 1
        assert 0 < sum_billed_dollars(server) <= budget + reserved(kb)
