"""The pages against the code: commands, options, links, paths, the tree, and every figure."""

import ast
import inspect
import json
import pydoc
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

import miko_clf
from miko_clf.cli.main import COMMANDS
from miko_clf.cli.parser import Parser
from miko_clf.recipe.schema import list_recipes, load_recipe
from tests.support.repository import ROOT

DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    ROOT / "export" / "README.md",
    ROOT / "models" / "README.md",
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS_PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
SYSTEMS_PAGE = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
ROOMS = "data -> distil -> encode -> fuse -> train -> evaluate -> export -> serve"
SETTINGS = yaml.safe_load((DOCS / "theme" / "mkdocs.yml").read_text(encoding="utf-8"))

_of_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
_LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def test_the_one_sentence_stands_on_both_doors_in_folders_and_import_contract() -> None:
    assert ROOMS in README
    assert ROOMS in (DOCS / "index.md").read_text(encoding="utf-8")
    built = ROOMS.split(" -> ")
    order = [room for room in re.findall(r"\w+", _read_layers()) if room in built]
    assert order[::-1] == built
    assert all((ROOT / "miko_clf" / room / "__init__.py").exists() for room in built)


def test_contributing_shows_the_import_contract_as_it_is() -> None:
    block = re.search(r"```\n(__main__.*?)```", CONTRIBUTING, flags=re.S)
    assert block
    assert block[1].split() == _read_layers().split()


def test_the_tree_is_what_is_on_disk() -> None:
    block = re.search(r"## The tree\n\n```\n(.*?)```", README, flags=re.S)
    assert block
    for line in block[1].splitlines():
        name = line.split()[0]
        folder = ROOT / "miko_clf" if line.startswith("  ") else ROOT
        assert (folder / name).exists(), name
        assert name == "miko_clf/" or len(line.split()) > 2, name
    rooms = {path.parent.name for path in (ROOT / "miko_clf").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^  (\w+)/ ", block[1], flags=re.M))


@_of_pages
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for first, second in _LINK.findall(_drop_code(page.read_text(encoding="utf-8"))):
        path, _, anchor = (first or second).partition("#")
        if path.startswith("https:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in _list_anchors(target), f"{path}#{anchor}"


def test_the_site_shows_every_page_once() -> None:
    brought = runpy.run_path(str(DOCS / "theme" / "hooks.py"))["BROUGHT"] if _has_mkdocs() else {}
    shown = [
        next(iter(entry.values())) if isinstance(entry, dict) else entry
        for section in SETTINGS["nav"]
        for entries in section.values()
        for entry in entries
    ]
    pages = [path.name for path in DOCS.glob("*.md")]
    assert len(set(shown)) == len(shown)
    assert set(pages) <= set(shown)
    if brought:
        assert set(shown) - set(pages) == set(brought)
        assert all((ROOT / path).is_file() for path in brought.values())


def test_the_site_asks_nothing_of_other_hosts() -> None:
    assert SETTINGS["theme"]["font"] is False
    assert "offline" in SETTINGS["plugins"]
    assert all((DOCS / path).is_file() for path in SETTINGS["extra"]["polyfills"])


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if not _has_mkdocs():
        pytest.skip("the docs extra is not installed; make docs brings it")
    words = ["build", "--strict", "--quiet", "-f", "docs/theme/mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    for built in tmp_path.rglob("*.html"):
        hosts = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(https?:[^"\s>]+)',
            built.read_text(encoding="utf-8"),
        )
        assert hosts == [], built.name


def test_the_reference_names_what_is_there() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: ([\w.]+)", page, flags=re.M):
        assert inspect.getdoc(pydoc.locate(name)), name
    for name in set(miko_clf.__all__) - {"__version__"}:
        assert re.search(rf"^::: miko_clf\.{name}\b", page, flags=re.M), name


@_of_pages
def test_every_command_and_option_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        text = text.partition("### Removed")[0]
    named = re.findall(
        r"(?:^|`|: )miko-clf ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(.*)", text, flags=re.M
    )
    for first, second, rest in named:
        name = f"{first} {second}" if f"{first} {second}" in COMMANDS else first
        assert name in COMMANDS, (first, second)
        words = rest.partition("`")[0].partition(" # ")[0]
        for option in re.findall(r"(?<=\s)--[A-Za-z_][\w-]*", words):
            assert option in _list_options(name) or option == "--recipe", (name, option)
    for verb in re.findall(r"`kb ([a-z-]+)", text):
        assert page.name == "CHANGELOG.md" or f"kb {verb}" in COMMANDS, verb
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"(?:^\s*|`)make ([\w-]+)", text, flags=re.M)) <= targets


@_of_pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name in ("CHANGELOG.md", "lab-notes.md"):
        text = text.replace("`onnx", "")
    for path in re.findall(r"`([\w/.-]+/[\w.-]*\.(?:py|md|json|yaml|yml))`", text):
        places = (ROOT / path, ROOT / "miko_clf" / path)
        assert path.startswith("onnx/") or any(place.exists() for place in places), path


def test_readme_is_a_door() -> None:
    assert README.count("\n") <= 145


def test_the_example_of_readme_runs(
    world: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and export, minutes of it, are only called as they can be; the rest is done."""
    code = re.search(r"```python\n(.*?)```", README, flags=re.S)
    assert code
    assert code[0] in (DOCS / "quickstart.md").read_text(encoding="utf-8")
    shutil.copytree(world, tmp_path / "runs" / "world")
    for name in re.findall(r"runs/world/images/[\w.]+", code[1]):
        shutil.copy(next(world.glob("images/*.png")), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    train = inspect.signature(miko_clf.fit)
    write = inspect.signature(miko_clf.export)

    def fit(*args: object, **options: object) -> Path:
        given = train.bind(*args, **options).arguments
        assert load_recipe(given["recipe"]).name == "tiny"
        assert Path(given["data"]).is_dir()
        return shutil.copytree(bundle, given["out"])

    monkeypatch.setattr(miko_clf, "fit", fit)
    monkeypatch.setattr(miko_clf, "export", lambda *args: write.bind(*args))
    exec(code[1], {})
    scores = (tmp_path / "runs" / "scores.jsonl").read_text().splitlines()
    assert len(scores) == len((world / "sarcasm" / "test.jsonl").read_text().splitlines())


@_of_pages
def test_calls_in_the_text_fit_what_is_called(page: Path) -> None:
    for call in re.findall(r"`(miko_clf\.\w+\([^`]+\))`", page.read_text(encoding="utf-8")):
        node = ast.parse(call, mode="eval").body
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Attribute)
        options = {one.arg: None for one in node.keywords if one.arg}
        inspect.signature(getattr(miko_clf, node.func.attr)).bind(*node.args, **options)


def test_every_recipe_has_its_row_and_every_row_its_recipe() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", SYSTEMS_PAGE, flags=re.M)
    assert sorted(rows) == list_recipes()
    shown = re.search(r"```yaml\n(# .*?)```", (DOCS / "recipes.md").read_text(), flags=re.S)
    assert shown
    name = yaml.safe_load(shown[1])["name"]
    assert shown[1] == (ROOT / "models" / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_tables_of_systems_are_the_measured_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    table = runpy.run_path(str(ROOT / "benchmarks" / "systems.py"))["table"]
    for path in (RESULTS / "systems").glob("*.json"):
        measured = json.loads(path.read_text(encoding="utf-8"))
        if "rows" in measured:  # a table of systems
            assert table(measured["rows"]) in SYSTEMS_PAGE, path.name


def test_the_table_of_readme_is_made_of_measured_rows() -> None:
    rows = json.loads((RESULTS / "systems" / "harm-c.json").read_text(encoding="utf-8"))["rows"]
    harm_c = README.partition("\nHarm-C")[2]
    shown = re.findall(r"^\| `?([^`|]+?)`? \| (\d.*) \|$", harm_c, flags=re.M)
    assert len(shown) == 4
    for name, cells in shown:
        row = next(row for row in rows if row["system"] == name)
        figures = [
            f"{measured['mean']:.3f}"
            + (f" ± {measured['deviation']:.3f}" if row["seeds"] > 1 else "")
            + f" [{measured['low']:.3f}, {measured['high']:.3f}]"
            for measured in (row["metrics"][key] for key in ("accuracy", "macro_f1", "auroc"))
        ]
        assert cells.split(" | ") == figures, name


def test_five_seeds_of_the_demo_stand_in_readme_as_they_were_measured() -> None:
    measured = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    best = [f"{measured['best'][f'harm/{arm}']:.3f}".lstrip("0") for arm in ("with", "masked")]
    assert f"on harm is {best[0]} with, and {best[1]} without" in README
    arms = [f"{task}/{arm}" for task in ("sarcasm", "harm") for arm in ("with", "masked")]
    for seed in range(5):
        aurocs = [
            training["auroc"]
            for capability in ("default", "avx2")
            for training in measured["trainings"]
            if (training["seed"], training["capability"]) == (seed, capability)
        ]
        cells = [", ".join(f"{auroc[arm]:.3f}" for auroc in aurocs) for arm in arms]
        assert f"| {seed} | {' | '.join(cells)} |" in README
    assert not any(training["faults"] for training in measured["trainings"])


WAYS = re.split(r"^### ", (DOCS / "architecture.md").read_text(encoding="utf-8"), flags=re.M)[1:]


@pytest.mark.parametrize(("way", "most"), list(zip(WAYS, (14, 20, 7), strict=True)))
def test_the_way_of_a_post_is_short_and_each_step_leads_to_the_next(way: str, most: int) -> None:
    rows = re.findall(r"^(\d+)\. `([\w/.]+)` — (`[^:]+): (.+)$", way, flags=re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert 3 < len(rows) <= most
    assert len(rows) == len({path for _, path, *_ in rows}) == way.count("` — `")
    homes = {name: path for _, path, names, _ in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert all(_find_definition(path, name) for name, path in homes.items())
    reached = {rows[0][1]}
    for _, path, names, text in rows:
        own = re.findall(r"`([\w.]+)`", names)
        for verb, listed in re.findall(r"(calls|leads to|hands on to) ((?:`[\w.]+`,? ?)+)", text):
            for name in re.findall(r"`([\w.]+)`", listed):
                reached.add(homes[name])
                seen = {
                    "calls": set().union(*(_list_names_reached(path, one) for one in own)),
                    "leads to": _list_names(_parse(path)),
                    "hands on to": _list_names(_parse("fuse/build.py")),
                }[verb]
                assert seen & {name, *name.split(".")}, (path, verb, name)
    assert reached == set(homes.values())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_figure_of_the_results_tables_is_the_measured_one(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    table = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["table"]
    assert table(path) in RESULTS_PAGE or table(path, alone=False) in RESULTS_PAGE
    assert report["command"] in RESULTS_PAGE


@pytest.mark.parametrize(
    "path", sorted((DOCS / "reports").glob("*/report.json")), ids=lambda path: path.parent.name
)
def test_the_figures_of_kept_comparisons_are_the_measured_ones(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    for row in report["findings"]["comparison"]["differences"]:
        figures = f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        p = f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.0005 else "< 0.001"
        # Systems that answer alike could have shown nothing.
        smallest = "-" if row["smallest"] is None else f"{row['smallest']:.3f}"
        assert f"{figures} | {p} | {smallest}" in RESULTS_PAGE
    assert not {"mistakes", "neighbours", "suspects"} & report["findings"].keys()


def test_the_mean_over_seeds_is_that_of_the_table() -> None:
    report = json.loads((RESULTS / "harm-c.json").read_text(encoding="utf-8"))
    seeds = [row["metrics"] for row in report["rows"] if row["arm"] == "student"]
    assert len(seeds) == 3
    for name, title in (("macro_f1", "macro-F1"), ("auroc", "AUROC")):
        mean = sum(row[name]["value"] for row in seeds) / 3
        assert f"{title} {mean:.3f}" in RESULTS_PAGE


def test_the_figures_of_the_critic_are_the_measured_ones() -> None:
    report = json.loads((RESULTS / "distil" / "critic.json").read_text(encoding="utf-8"))
    page = (DOCS / "distil.md").read_text(encoding="utf-8")
    assert report["command"] in page
    for row in report["rows"]:
        if f"| {row['system']} | " not in page:
            continue  # variants that the table leaves out
        for name in ("auroc", "average_precision", "kept_precision"):
            value, low, high = row["metrics"][name].values()
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in page, (row["system"], name)
    assert "| critic | " in page


def test_the_figures_of_scale_are_the_measured_ones() -> None:
    measured = json.loads((RESULTS / "distil" / "scale.json").read_text(encoding="utf-8"))
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert f"{measured['posts_a_second']:.0f} posts a second" in page
    assert f"{measured['memory']['slope_mb_per_10000_posts']:.2f} MB for 10,000 posts" in page
    assert f"{measured['resumed_posts_a_second']:,.0f} posts a second" in page


def test_documents_speak_of_the_project_alone() -> None:
    for path in [*PAGES, *DOCS.glob("theme/*.*"), *ROOT.glob("miko_clf/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(^|[\s\"'(])/(work|home|root|tmp)/", text), path
        assert "TODO" not in text, path


def test_files_and_functions_fit_in_the_eye() -> None:
    for path in sorted([*ROOT.glob("miko_clf/**/*.py"), *ROOT.glob("tests/**/*.py")]):
        text = path.read_text(encoding="utf-8")
        if "tests" not in path.parts:
            assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, (path, node.name)


def test_every_short_file_has_its_reason() -> None:
    package = ROOT / "miko_clf"
    named = re.findall(r"^\| `([\w/]+\.py)` \|", CONTRIBUTING, flags=re.M)
    assert all((package / path).is_file() for path in named)
    for path in package.rglob("*.py"):
        if 2 <= path.read_text(encoding="utf-8").count("\n") < 80:
            assert path.relative_to(package).as_posix() in named


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT) for path in ROOT.glob("miko_clf/**/__init__.py")]
    assert set(settings["packages"]) == {".".join(one.parts) for one in folders} | {
        "miko_clf.models"
    }
    assert settings["package-dir"] == {"miko_clf.models": "models"}


@cache
def _parse(path: str) -> ast.Module:
    return ast.parse((ROOT / "miko_clf" / path).read_text(encoding="utf-8"))


def _find_definition(path: str, name: str) -> ast.stmt | None:
    """Return where a function, class, `Class.method` or constant of a file is defined."""
    body, found = _parse(path).body, None
    for part in name.split("."):
        found = next((node for node in body if part in _list_defined(node)), None)
        body = found.body if isinstance(found, ast.ClassDef) else []
    return found


def _list_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _list_names(tree: ast.AST) -> set[str]:
    """Return the names and attributes that code uses; imports use none."""
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _list_names_reached(path: str, name: str) -> set[str]:
    """Return the names that a function uses, and whatever of its file it uses; so of a class."""
    owner, _, method = name.partition(".")
    waiting, used, seen = [name, *([f"{owner}.__init__"] if method else [])], set(), set()
    while waiting:
        current = waiting.pop()
        definition = None if current in seen else _find_definition(path, current)
        seen.add(current)
        if definition is not None:
            names = _list_names(definition)
            used |= names
            scope = current.partition(".")[0]
            waiting += [*names, *(f"{scope}.{one}" for one in names)]
    return used


def _read_layers() -> str:
    contract = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    layers = re.search(r"^layers =\n((?:    .*\n)+)", contract, flags=re.M)
    assert layers
    return layers[1]


def _has_mkdocs() -> bool:
    return shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is not None


def _drop_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`(?!\])", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def _list_anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.*)$", _drop_code(page.read_text(encoding="utf-8")), flags=re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in headings}


@cache
def _list_options(name: str) -> set[str]:
    parser = Parser()
    COMMANDS[name].add(parser)
    return set(parser._option_string_actions)
