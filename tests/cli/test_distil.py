"""The knowledge half from the command line: ask, look, judge, export, on into training."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from miko_clf.data.dataset import open_folder
from miko_clf.data.demo.world import write_world
from miko_clf.pipeline import fit
from miko_clf.recipe import schema as recipes
from tests.support import checkpoints
from tests.support.command_line import assert_fits_80_columns, assert_one_line_error, run_command
from tests.support.llm_server import Server, serve_pretended_llm
from tests.support.small_recipes import SMALL_KEYS


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A provider without faults."""
    with serve_pretended_llm() as given:
        yield given


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of few posts."""
    return write_world(tmp_path_factory.mktemp("few") / "world", num_posts=80)


@pytest.fixture(scope="module")
def kb(world: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the provider said of it."""
    path = tmp_path_factory.mktemp("kb") / "kb.sqlite"
    ended = asked(world / "sarcasm", server, path)
    assert ended.code == 0, ended.err
    assert "80 posts: 80 ok" in ended.out
    return path


def asked(posts: Path, server: Server, kb: Path, *more: object):
    words = ["distil", posts, "--server", server.url, "--model", "any", "--kb", kb]
    return run_command(*words, *more)


def test_asking_again_asks_nothing(kb: Path, world: Path, server: Server):
    before = server.stats()["by"]
    ended = asked(world / "sarcasm", server, kb)
    assert "0 calls answered (" in ended.out
    assert server.stats()["by"] == before


def test_a_dry_run_estimates_and_asks_nothing(tmp_path: Path, world: Path, server: Server):
    prices = tmp_path / "prices.yaml"
    prices.write_text("any: {input: 1.0, output: 2.0}\n")
    more = ("--dry-run", "--no-probe", "--prices", prices)
    before = server.stats()["by"]
    ended = asked(world / "sarcasm", server, tmp_path / "kb.sqlite", *more)
    assert (ended.code, ended.out) == (0, "")
    assert "80 posts take 80 calls" in ended.err
    assert "$" in ended.err
    assert server.stats()["by"] == before


def test_what_was_said_goes_on_into_training(kb: Path, world: Path, tmp_path: Path):
    out = world / "asked.jsonl"  # beside the pictures, whose paths are relative to the file
    ended = run_command("kb", "export", kb, out, "--posts", world / "sarcasm", "--without", "xNeed")
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 80
    relations = {one["relation"] for row in rows for one in row["intentions"]}
    assert len(relations) == 9
    assert "xNeed" not in relations
    recipe = recipes.load_recipe(
        "tiny",
        {
            **SMALL_KEYS,
            "inputs": ["text", "intention"],
            "image": None,
            "reasoning.epochs": 0,
            "task.epochs": 1,
        },
    )
    leaks = run_command("kb", "leak", out)
    assert_fits_80_columns(leaks)
    for leak in json.loads(run_command("kb", "leak", out, "--json").out):
        assert f"{leak['name']}" in leaks.out
        assert f"{leak['text_f1']:.3f}" in leaks.out
    made = fit(recipe, open_folder(out), tmp_path / "bundle")
    assert "intention" in [leak["name"] for leak in json.loads(_text(made))["leaks"]]


def test_the_knowledge_base_is_shown_and_counted(kb: Path, world: Path):
    post = json.loads((world / "sarcasm" / "train.jsonl").read_text().splitlines()[0])
    shown = run_command("kb", "show", kb, post["id"], "--raw").out
    assert post["text"] in " ".join(shown.split())
    assert "The author posts this because" in " ".join(shown.split())
    counted = json.loads(run_command("kb", "stats", kb, "--json").out)
    assert counted["posts"] == 80
    tables = run_command("kb", "stats", kb)
    assert_fits_80_columns(tables)
    for row in counted["relations"]:
        assert re.search(
            rf"^{row['relation']} +{row['asked']:,} +{row['kept']:,} ", tables.out, re.M
        )
    assert_one_line_error(run_command("kb", "show", kb, "nobody"), "nobody")
    assert_one_line_error(
        run_command("kb", "stats", kb.with_name("none.sqlite")), "no such knowledge base"
    )


def test_judge_people_and_critic_mark_intentions(kb: Path, server: Server, tmp_path: Path):
    judged = run_command(
        "kb", "judge", kb, "--server", server.url, "--model", "other", "--repeat", 0.5
    )
    assert judged.code == 0, judged.err
    assert "again:llm:other" in judged.out
    tasks = tmp_path / "tasks.json"
    assert "40 tasks" in run_command("kb", "export-annotation", kb, tasks, "--count", 40).out
    assert tasks.with_suffix(".xml").is_file()
    export = tmp_path / "export.json"
    export.write_text(json.dumps(_annotated(json.loads(tasks.read_text()))))
    assert "400 answers kept" in run_command("kb", "import-annotation", kb, export).out
    checkpoints.bert(tmp_path / "tower")
    critic = tmp_path / "critic"
    ended = run_command("kb", "train-critic", kb, "--text", tmp_path / "tower", "--out", critic)
    assert "400 intentions that people judged" in ended.out, ended.err
    weighed = run_command("kb", "apply-critic", kb, "--critic", critic)
    assert "800 intentions weighed" in weighed.out
    table = run_command("kb", "agreement", kb)
    assert_fits_80_columns(table)
    matches = json.loads(run_command("kb", "agreement", kb, "--json").out)
    assert ("critic:critic", "human:1") in [(match["one"], match["other"]) for match in matches]
    for match in matches:
        lead = f"{match['one']} and {match['other']}"
        figures = match["plausibility"]
        assert re.search(
            f"^{lead} +plausibility +{figures['units']:,} +{figures['raw']:.3f} ", table.out, re.M
        )
    few = run_command("kb", "export", kb, tmp_path / "few.jsonl", "--min-plausibility", 0.6).out
    assert "not plausible enough" in few


def test_a_task_that_cannot_be_done_is_one_line(world: Path, server: Server, tmp_path: Path):
    kb = tmp_path / "kb.sqlite"
    assert_one_line_error(asked(tmp_path / "none.jsonl", server, kb), "there is no such file")
    blind = asked(world / "sarcasm", server, kb, "--fallback", "any?blind")
    assert_one_line_error(blind, "any?blind", "does not look at it")
    budget = asked(world / "sarcasm", server, kb, "--budget-usd", 1)
    assert_one_line_error(budget, "has no price")
    assert run_command("distil", "x", "--kb", kb).code == 2
    assert run_command("distil", "x", "--kb", kb, "--server", server.url, "--submit").code == 2


def _text(bundle: Path) -> str:
    return (bundle / "manifest.json").read_text()


def _annotated(tasks: list[dict]) -> list[dict]:
    """Return an export in which somebody called every second intention plausible."""
    for task in tasks:
        places = [key for key in task["data"] if key.startswith("intention_")]
        results = [
            {
                "from_name": f"plausible_{place}",
                "to_name": f"intention_{place}",
                "type": "choices",
                "value": {"choices": ["yes" if place % 2 else "no"]},
            }
            for place in range(len(places))
        ]
        task["annotations"] = [{"completed_by": 1, "result": results}]
    return tasks
