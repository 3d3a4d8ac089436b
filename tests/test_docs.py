"""The documents and the wheel against the code: the tree, the commands, the figures."""

import ast
import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from miko_clf.cli.main import COMMANDS
from miko_clf.recipe import schema as recipes
from tests.support.repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
ROOMS = "data -> distil -> encode -> fuse -> train -> evaluate -> export -> serve"


def test_the_one_sentence_stands_in_readme_folders_and_import_contract() -> None:
    assert ROOMS in README
    contract = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    layers = re.findall(r"^\s+\(?(?:miko_clf\.)?(\w+)\)?\s*$", contract, flags=re.M)
    built = ROOMS.split(" -> ")
    order = [layer for layer in layers if layer in built]
    assert list(reversed(order[: len(built)])) == built
    assert all((ROOT / "miko_clf" / room / "__init__.py").exists() for room in built)


def test_the_tree_is_what_is_on_disk() -> None:
    block = re.search(r"## The tree\n\n```\n(.*?)```", README, flags=re.S)
    assert block
    for line in block.group(1).splitlines():
        inside = line.startswith("  ")
        names = line.split() if inside and line.rstrip().endswith(".py") else line.split()[:1]
        for name in names:
            path = (ROOT / "miko_clf" / name) if inside else ROOT / name
            assert path.exists(), name
    rooms = {p.parent.name for p in (ROOT / "miko_clf").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^  (\w+)/ ", block.group(1), flags=re.M))


def test_every_command_in_the_readme_exists() -> None:
    for command, verb in set(re.findall(r"^miko-clf (\w+)(?: (\w+))?", README, flags=re.M)):
        assert command in COMMANDS or f"{command} {verb}" in COMMANDS, (command, verb)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"^make ([\w-]+)", README, flags=re.M)) <= targets


def test_every_recipe_has_its_row_and_every_row_its_recipe() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", TABLE, flags=re.M)
    assert sorted(rows) == recipes.list_recipes()


@pytest.mark.parametrize(
    "path", sorted((RESULTS / "systems").glob("*.json")), ids=lambda path: path.stem
)
def test_the_tables_of_systems_are_the_measured_ones(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    if "rows" not in found:
        pytest.skip(f"{path.name} is no table of systems")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    table = runpy.run_path(str(ROOT / "benchmarks" / "systems.py"))["table"]
    assert table(found["rows"]) in TABLE


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_figure_of_the_results_tables_is_the_measured_one(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    table = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["table"]
    assert table(path) in README or table(path, alone=False) in README
    assert report["command"] in README


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "reports").glob("*/report.json")), ids=lambda p: p.parent.name
)
def test_the_figures_of_kept_comparisons_are_the_measured_ones(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    for each in report["findings"]["comparison"]["differences"]:
        figures = f"{each['value']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"
        p = f"{each['p_holm']:.3f}" if each["p_holm"] >= 0.0005 else "< 0.001"
        assert f"{figures} | {p} | {each['smallest']:.3f}" in README
    assert not {"mistakes", "neighbours", "suspects"} & report["findings"].keys()


def test_the_mean_over_seeds_is_that_of_the_table() -> None:
    report = json.loads((RESULTS / "harm-c.json").read_text(encoding="utf-8"))
    seeds = [row["metrics"] for row in report["rows"] if row["arm"] == "student"]
    assert len(seeds) == 3
    for name, title in (("macro_f1", "macro-F1"), ("auroc", "AUROC")):
        mean = sum(row[name]["value"] for row in seeds) / 3
        assert f"{title} {mean:.3f}" in README


def test_documents_speak_of_the_project_alone() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("miko_clf/**/*.py")]:
        if ".venv" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(^|[\s\"'(])/(work|home|root|tmp)/", text), path
        assert "TODO" not in text, path


def test_files_and_functions_fit_in_the_eye() -> None:
    for path in sorted([*ROOT.glob("miko_clf/**/*.py"), *ROOT.glob("tests/*.py")]):
        text = path.read_text(encoding="utf-8")
        if "tests" not in path.parts:
            assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, (path, node.name)


def test_the_figures_of_the_critic_and_of_scale_are_the_measured_ones() -> None:
    report = json.loads((RESULTS / "distil" / "critic.json").read_text(encoding="utf-8"))
    assert report["command"] in README
    for row in report["rows"]:
        if f"| {row['system']} | " not in README:
            continue  # variants that the table leaves out
        for name in ("auroc", "average_precision", "kept_precision"):
            value, low, high = row["metrics"][name].values()
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in README, (row["system"], name)
    assert "| critic | " in README
    scale = json.loads((RESULTS / "distil" / "scale.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"{scale['posts_a_second']:.0f} posts a second" in page
    assert f"{scale['memory']['slope_mb_per_10000_posts']:.2f} MB for 10,000 posts" in page
    assert f"{scale['resumed_posts_a_second']:,.0f} posts a second" in page


def test_every_folder_of_the_package_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT) for path in ROOT.glob("miko_clf/**/__init__.py")]
    found = {".".join(folder.parts) for folder in folders} | {"miko_clf.models"}
    assert set(settings["packages"]) == found
    assert settings["package-dir"] == {"miko_clf.models": "models"}
