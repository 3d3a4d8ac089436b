"""Ranges of a sweep: read as written, and put to the recipe before anything is trained."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.errors import RecipeError
from miko_clf.experiment import search_space
from miko_clf.experiment.sweep import Sweep
from tests.support.command_line import assert_one_line_error
from tests.support.command_line import run_command as miko

RANGES = ("fusion.layers=1..4",)
ENDS = st.integers(-(2**40), 2**40) | st.floats(-1e12, 1e12)


def search(out: Path, *texts: str) -> Sweep:
    """A sweep of the tiny recipe."""
    return Sweep(out, "tiny", search_space.parse_ranges(texts), 6)


@given(ENDS, ENDS, st.booleans())
def test_a_span_is_read_as_it_was_written_or_refused(low, high, log: bool) -> None:
    text = f"a.b={'log:' if log else ''}{low!r}..{high!r}"
    if low >= high or (log and low <= 0):
        with pytest.raises(RecipeError, match="lower end"):
            search_space.parse_range(text)
        return
    found = search_space.parse_range(text)
    assert found == search_space.NumberRange("a.b", low, high, log)
    assert found.whole == all(isinstance(end, int) for end in (low, high))
    assert all(low <= probe <= high for probe in found.probes)


@given(st.lists(st.from_regex(r"[a-z]{2}[a-z/.-]{0,8}", fullmatch=True), min_size=2, unique=True))
def test_choices_are_read_as_they_were_written(words: list[str]) -> None:
    names = [word for word in words if word not in ("true", "false", "null")]
    found = search_space.parse_range(f"key={','.join(['2', 'true', *names])}")
    assert found == search_space.ValueChoice("key", (2, True, *names))


def test_numbers_and_the_words_of_yaml_are_told_from_names() -> None:
    found = search_space.parse_range("key=2,1e-4,false,null,no")
    assert found == search_space.ValueChoice("key", (2, 1e-4, False, None, "no"))
    assert [type(value) for value in found.values[:2]] == [int, float]


@pytest.mark.parametrize(
    "text", ["key", "key=", "=1..2", "key=7", "key=a..b", "key=log:a,b", "key=a,", "key=nan..1"]
)
def test_what_is_no_range_is_answered_with_the_shapes(text: str) -> None:
    with pytest.raises(RecipeError, match=r"KEY=log:1e-4\.\.1e-2"):
        search_space.parse_range(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fusion.layer=1..4", "unknown key 'fusion.layer'.* did you mean 'layers'"),
        ("fusion.dropout=0.0..1.5", "fusion.dropout: .*less than"),
        ("task.optimiser.decay=linear,cosin", "given 'cosin'"),
        ("fusion.layers=1.0..4.0", "fusion.layers: .*integer"),
        ("fusion.width=32..64", "33 is not a multiple of heads"),
        ("seed=0..9", "--seeds N"),
    ],
)
def test_a_key_or_value_that_the_recipe_refuses_is_one_line_before_anything_is_written(
    text: str, says: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = miko("sweep", "tiny", "--data", tmp_path, "--out", out, "--range", text)
    assert_one_line_error(ended)
    with pytest.raises(RecipeError, match=says):
        search(out, text).check_ranges()
    assert list(tmp_path.iterdir()) == []


def test_a_range_is_needed_and_given_once(tmp_path: Path) -> None:
    words = ["sweep", "tiny", "--data", tmp_path, "--out", tmp_path / "out"]
    ended = miko(*words)
    assert ended.code == 2
    assert "required: --range" in ended.err
    twice = ["--range", RANGES[0], "--range", RANGES[0]]
    assert_one_line_error(miko(*words, *twice), "fusion.layers was given twice")
