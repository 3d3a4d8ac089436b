"""Commands: recipes and their overrides, and what each command does with its words."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from miko_clf import pipeline
from miko_clf.cli import parser, train
from miko_clf.data.splits import PostSplits
from miko_clf.recipe import schema as recipes
from miko_clf.recipe import sections
from miko_clf.recipe.schema import Recipe
from tests.support.command_line import (
    assert_fits_80_columns,
    assert_one_line_error,
    run_command,
    run_python,
    write_posts_file,
)
from tests.support.repository import ROOT

POST = {"id": "a", "text": "what a lovely queue", "label": "sarcastic"}


def test_every_leaf_of_the_recipe_is_an_option_with_help():
    made = parser.Parser(prog="x")
    train.add_recipe_options(made)
    text = " ".join(made.format_help().split())

    def leaves(values: dict, prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    keys = list(leaves(recipes.load_recipe("tiny").model_dump()))
    assert len(keys) > 40
    assert [key for key in keys if f"--recipe.{key} " not in text] == []
    assert "Validation metric that picks the kept epoch. (default: auroc)" in text
    assert "Read intentions by cross-attention. (default: true)" in text
    assert "None" not in text
    assert "Undefined" not in text


def test_what_print_config_prints_is_the_same_recipe(tmp_path: Path):
    words = ["--recipe.task.optimiser.rate", "1e-4", "--recipe.fusion.layers", 3, "--seed", 7]
    first = run_command("fit", "tiny", "--print_config", *words)
    path = tmp_path / "printed.yaml"
    path.write_text(first.out)
    assert first.code == 0
    assert run_command("fit", path, "--print_config").out == first.out
    changes = {"task.optimiser.rate": 1e-4, "fusion.layers": 3, "seed": 7}
    assert (
        recipes.load_recipe(path)
        == recipes.load_recipe("tiny", changes)
        != recipes.load_recipe("tiny")
    )


def test_an_override_may_be_a_list_a_section_a_flag_or_null(tmp_path: Path):
    path = tmp_path / "printed.yaml"
    words = ["--recipe.inputs", "[text, intention]", "--recipe.image", "null"]
    words += ["--recipe.fusion.slots", "false", "--recipe.reasoning.epochs", "0"]
    path.write_text(run_command("fit", "tiny", "--print_config", *words).out)
    found = recipes.load_recipe(path)
    assert found.inputs == ("text", "intention")
    assert found.image is None
    assert found.fusion.slots is False
    words = ["--recipe.image", "{source: tiny, frozen: false}", "--recipe.image.size", "32"]
    path.write_text(run_command("fit", "tiny", "--print_config", *words).out)
    assert recipes.load_recipe(path).image == sections.ImageTowerSection(
        source="tiny", frozen=False, size=32
    )


def test_a_name_that_looks_like_a_number_stays_a_name():
    ended = run_command("fit", "tiny", "--print_config", "--recipe.name", "1")
    assert "name: '1'\n" in ended.out


def test_recipes_lists_every_shipped_one_and_prints_one():
    listed = run_command("recipes")
    assert_fits_80_columns(listed)
    names = [line for line in listed.out.splitlines() if not line.startswith(" ")]
    assert names == recipes.list_recipes()
    tiny = recipes.load_recipe("tiny")
    assert run_command("recipes", "tiny").out == recipes.dump_recipe(tiny)
    assert json.loads(run_command("recipes", "tiny", "--json").out) == tiny.model_dump(mode="json")
    assert [row["name"] for row in json.loads(run_command("recipes", "--json").out)] == names


def test_a_folder_of_a_recipes_name_does_not_stand_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_command("recipes", "tiny").code == 0


def test_the_front_doors_are_fit_and_compare():
    train = run_python("train.py", "models/tiny.yaml", "--print_config", cwd=ROOT)
    assert train == (0, recipes.dump_recipe(recipes.load_recipe("tiny")), "")
    evaluate = run_python("evaluate.py", "--help", cwd=ROOT)
    assert evaluate.out.startswith("usage: python evaluate.py BUNDLE... --data D")


def test_fit_passes_its_words_on_and_lists_what_it_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [POST, {"id": "b"}, {"id": "c", "text": "so kind", "label": "mocking"}]
    write_posts_file(tmp_path / "train.jsonl", *rows)
    options, labels = [], []

    def fit(recipe: Recipe, data: PostSplits, out: Path, **rest: object) -> Path:
        options.append(rest)
        labels.extend(post.label for post in data.read("train"))
        return out

    monkeypatch.setattr(pipeline, "fit", fit)
    out = tmp_path / "out"
    words = ["--skip-bad", "--no-cache", "--label-map", "mocking=sarcastic", "--minutes", "2.5"]
    ended = run_command("fit", "tiny", "--data", tmp_path, "--out", out, *words, "--positive", "1")
    assert ended.code == 0
    assert options == [
        {"cache": None, "positive": "1", "overwrite": False, "minutes": 2.5, "trackers": [],
         "leaks": False}
    ]  # fmt: skip
    assert labels == ["sarcastic", "sarcastic"]
    assert f"miko-clf export {out}" in ended.out
    skipped = json.loads((tmp_path / "out.skipped.json").read_text())
    assert [entry["where"] for entry in skipped] == [f"{tmp_path / 'train.jsonl'}:2"]


def test_the_next_command_that_fit_names_reads_the_same_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [{**POST, "id": f"p{month}", "date": f"2021-{month:02}-01"} for month in range(1, 10)]
    write_posts_file(tmp_path / "posts.jsonl", *rows)
    monkeypatch.setattr(pipeline, "fit", lambda recipe, data, out, **rest: data.read("train"))
    dated = ["--split-by", "date", "--test-from", "2021-08-01"]
    words = ["fit", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = run_command(*words, *dated)
    assert ended.code == 0, ended.err
    assert f"--data {tmp_path} {' '.join(dated)} --split test" in ended.out
    assert " --split-seed 3 --split test" in run_command(*words, "--split-seed", 3).out


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    monkeypatch.delenv("MIKO_CACHE", raising=False)
    assert parser.find_cache_folder() == Path("/there/miko_clf/features")
    monkeypatch.setenv("MIKO_CACHE", "/here")
    assert parser.find_cache_folder() == Path("/here")


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path: Path):
    ended = run_command(
        "fit", "tiny", "--data", tmp_path, "--out", tmp_path / "x", "--tracker", "dvclive"
    )
    assert_one_line_error(ended, "pip install dvclive")


def test_evaluate_prints_its_table_and_writes_the_report(bundle: Path, world: Path, tmp_path: Path):
    words = [bundle, "--data", world / "sarcasm", "--out", tmp_path / "report", "--no-cache"]
    ended = run_command("evaluate", *words, "--resamples", 20, "--quick")
    assert ended.code == 0
    assert "Rows: split test" in ended.out
    assert_fits_80_columns(ended._replace(out=ended.out.partition("\nreport: ")[0]))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["num_resamples"] == 20
    assert report["command"].startswith(f"miko-clf evaluate {bundle} --data ")
    again = run_command("evaluate", *words, "--resamples", 20, "--quick", "--json")
    assert json.loads(again.out)["rows"] == report["rows"]
    assert "report.html" in again.err


def test_score_writes_a_line_for_every_post(bundle: Path, world: Path, tmp_path: Path):
    source, out = world / "sarcasm" / "test.jsonl", tmp_path / "scores.jsonl"
    ended = run_command("score", bundle, source, "-o", out)
    count = len(source.read_text().splitlines())
    assert ended.code == 0
    assert f"{count} posts scored: {out}" in ended.out
    assert len(out.read_text().splitlines()) == count


def test_score_counts_what_it_passed_over(bundle: Path, tmp_path: Path):
    source = write_posts_file(tmp_path / "posts.jsonl", POST, {"id": "b"})
    ended = run_command("score", bundle, source, "-o", tmp_path / "scores.jsonl", "--skip-bad")
    assert ended.code == 0
    assert f"1 bad posts were passed over, see {tmp_path}/scores.jsonl.skipped.json" in ended.out
