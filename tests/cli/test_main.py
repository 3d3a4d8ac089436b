"""The command line: exit codes, one line for each error, help."""

import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from miko_clf import errors, pipeline
from miko_clf.cli.main import COMMANDS
from miko_clf.recipe import schema
from miko_clf.train.loop import StoppedError
from tests.support.command_line import (
    Ended,
    assert_fits_80_columns,
    assert_one_line_error,
    run_command,
    run_python,
    write_posts_file,
)
from tests.support.repository import ROOT

POST = {"id": "a", "text": "what a lovely queue", "label": "sarcastic"}


def is_wrong_usage(ended: Ended, part: str) -> None:
    assert ended.code == 2, ended
    assert "usage: " in ended.err
    assert part in ended.err


def test_an_unknown_recipe_is_one_line_that_names_the_known_ones():
    assert_one_line_error(
        run_command("recipes", "tinny"), "'tinny'", "choose from", "did you mean 'tiny'?"
    )


def test_an_unknown_key_in_a_recipe_file_is_one_line_with_the_nearest_key(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\ninputs: [text]\ntext: {source: tiny, frozen: false, widht: 3}\n")
    ended = run_command("fit", path, "--data", tmp_path, "--out", tmp_path / "out")
    assert_one_line_error(ended, str(path), "'text.widht'", "did you mean 'width'?")


def test_a_value_that_a_recipe_may_not_hold_is_one_line_with_the_key():
    ended = run_command("fit", "tiny", "--print_config", "--recipe.fusion.layers", "many")
    assert_one_line_error(ended, "fusion.layers", "'many'")


def test_a_data_folder_that_is_not_there_is_one_line(tmp_path: Path):
    ended = run_command("fit", "tiny", "--data", tmp_path / "no", "--out", tmp_path / "out")
    assert_one_line_error(ended, str(tmp_path / "no"))
    assert list(tmp_path.iterdir()) == []


def test_a_bad_post_is_one_line_with_file_and_line(tmp_path: Path):
    path = write_posts_file(tmp_path / "train.jsonl", POST, {"id": "b"})
    ended = run_command("fit", "tiny", "--data", tmp_path, "--out", tmp_path / "out")
    assert_one_line_error(ended, f"{path}:2")


@pytest.mark.parametrize("command", ["evaluate", "export", "serve", "score"])
def test_a_missing_bundle_is_one_line(tmp_path: Path, world: Path, command: str):
    gone, data = tmp_path / "gone", world / "sarcasm"
    more = {
        "evaluate": ["--data", data],
        "score": [data / "test.jsonl", "-o", tmp_path / "scores.jsonl"],
        "serve": ["--port", 0],
    }
    assert_one_line_error(
        run_command(command, gone, *more.get(command, [])), str(gone), "manifest.json"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_exists_is_left_alone(tmp_path: Path, world: Path):
    ended = run_command("fit", "tiny", "--data", world / "sarcasm", "--out", tmp_path)
    assert_one_line_error(ended, str(tmp_path), "--overwrite")


def test_an_out_path_below_a_file_is_one_line(tmp_path: Path, world: Path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    ended = run_command("fit", "tiny", "--data", world / "sarcasm", "--out", out)
    assert_one_line_error(ended, str(out))


def test_a_file_that_may_not_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "secret.yaml")

    monkeypatch.setattr(schema, "load_recipe", refused)
    assert_one_line_error(run_command("recipes", "secret.yaml"), "secret.yaml: Permission denied")


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(schema, "load_recipe", full)
    assert_one_line_error(run_command("recipes", "tiny"), "No space left on device")


def test_an_error_of_several_lines_is_printed_as_one(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise errors.RecipeError("first\nsecond")

    monkeypatch.setattr(schema, "load_recipe", broken)
    assert_one_line_error(run_command("recipes", "tiny"), "first second")


@pytest.mark.parametrize("error", [ValueError("ours"), OSError("no file named")])
def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(schema, "load_recipe", broken)
    with pytest.raises(type(error), match=str(error)):
        run_command("recipes", "tiny")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "miko-clf: stopped\n"),
        (StoppedError("stopped at step 3"), "miko-clf: stopped at step 3\n"),
    ],
)
def test_a_stopped_command_says_so_and_exits_with_130(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    line: str,
):
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "fit", stopped)
    ended = run_command("fit", "tiny", "--data", world / "sarcasm", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (130, line)


def test_a_missing_library_is_one_line_that_names_the_extra():
    ended = run_python(
        "-c",
        "import sys; sys.modules['torch'] = None; sys.argv = ['miko-clf', 'export', 'x'];"
        "from miko_clf.cli.main import main; main()",
    )
    assert_one_line_error(ended, "torch is not installed", "pip install 'miko-clf[train,cpu]'")


def test_a_reader_that_goes_away_leaves_no_traceback():
    command = subprocess.Popen(
        [sys.executable, "-m", "miko_clf", "recipes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None
    assert command.communicate()[1] == ""
    assert command.returncode == 1


def test_no_command_is_wrong_usage():
    is_wrong_usage(run_command(), "a command is needed")


def test_a_mistyped_command_is_answered_with_the_nearest():
    is_wrong_usage(run_command("exprot"), "did you mean 'export'?")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kb annotate", "kb export-annotation"),
        ("kb annotated", "kb import-annotation"),
        ("kb critic", "kb train-critic"),
        ("kb weigh", "kb apply-critic"),
        ("kb agree", "kb agreement"),
        ("distil student", "distil train-lm"),
        ("kb bench", "benchmarks/generators.py"),
    ],
)
def test_a_command_that_was_renamed_says_so_in_one_line(old: str, new: str):
    ended = run_command(*old.split(), "kb.sqlite", "--text", "x")
    assert ended.code == 2
    assert ended.err.startswith(f"miko-clf: {old} is now called: ")
    assert ended.err.endswith(f"{new}\n")
    assert ended.err.count("\n") == 1
    assert new in COMMANDS or (ROOT / new).is_file()


def test_a_mistyped_option_is_answered_with_the_nearest():
    ended = run_command("fit", "tiny", "--recipe.fusion.layer", "3")
    is_wrong_usage(ended, "did you mean '--recipe.fusion.layers'?")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fit", "tiny", "--out", "x"], "required: --data"),
        (["fit", "tiny", "--data", "x"], "required: --out"),
        (["evaluate", "x"], "required: --data"),
        (["compare", "x", "--data", "d"], "required: --out"),
        (["score", "x", "y"], "required: out"),
        (["fit", "tiny", "--data", "x", "--out", "y", "--seed", "soon"], '"seed"'),
        (["fit", "tiny", "--data", "x", "--out", "y", "--minutes", "-1"], '"minutes"'),
        (["fit", "tiny", "--data", "x", "--out", "y", "--label-map", "a"], "old=new"),
        (["fit", "tiny", "--data", "x", "--out", "y", "--tracker", "abacus"], "'abacus'"),
        (["fit", "tiny", "--data", "x", "--out", "y", "--over"], "unrecognized arguments: --over"),
        (["score", "x", "y", "-o", "z", "--arm", "both"], "'both'"),
    ],
)
def test_words_that_make_no_command_are_wrong_usage(words: list[str], part: str):
    is_wrong_usage(run_command(*words), part)


def measure_seconds(code: str) -> tuple[Ended, float]:
    """Return how a Python process ended, and what of a processor it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = run_python("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


HELPS = """
import io, json, sys, time
from contextlib import redirect_stdout
import jsonargparse, pydantic, rich.console, yaml  # what a command brings beyond these counts
from miko_clf.cli.main import COMMANDS, main
for name in COMMANDS:
    before, sys.argv = time.process_time(), ["miko-clf", *name.split(), "--help"]
    with redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert "torch" not in sys.modules, name
    print(json.dumps([name, code, out.getvalue(), time.process_time() - before]))
"""


def test_help_on_each_command_has_its_usage_and_an_example_and_imports_little():
    ended = run_python("-c", HELPS)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [name for name, *_ in rows] == [*COMMANDS]
    for name, code, out, seconds in rows:
        assert not code, name
        assert seconds < 1, name
        assert out.startswith(f"usage: miko-clf {name} {COMMANDS[name].usage}\n")
        assert f"example:\n  miko-clf {name}" in out
        assert " ".join(COMMANDS[name].about.split()) in " ".join(out.split())


@pytest.mark.parametrize("name", ["fit", "kb import"])
def test_help_costs_less_than_a_second(name: str):
    """A second of a machine at rest: one that is busy takes longer for any import too."""
    code = (
        f"import sys; sys.argv = ['miko-clf', *{name.split()!r}, '--help']\n"
        "from miko_clf.cli.main import main; main()"
    )
    spent, limit = 2.0, 1.0
    for _ in range(5):
        ended, seconds = measure_seconds(code)
        spent = min(spent, seconds)
        if spent < limit:
            break
        limit = max(
            1.0, 4 * measure_seconds("import jsonargparse, pydantic, rich.console, yaml")[1]
        )
    assert ended.code == 0, ended.err
    assert spent < limit


def test_help_lists_every_command_and_version_is_the_packages():
    ended = run_command("--help")
    assert_fits_80_columns(ended)
    shown = " ".join(ended.out.split())
    assert [name for name, command in COMMANDS.items() if command.line not in shown] == []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run_command("--version").out == f"miko-clf {version}\n"


def test_the_public_names_come_without_torch_until_they_need_it():
    code = "import sys, miko_clf; miko_clf.load, miko_clf.push; assert 'torch' not in sys.modules"
    assert run_python("-c", code) == Ended(0, "", "")
