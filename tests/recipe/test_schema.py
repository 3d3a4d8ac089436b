"""Recipes: typed, closed and shipped; what cannot be is one line that names the key."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.errors import RecipeError
from miko_clf.recipe import schema as recipes
from miko_clf.train.predict import list_arms
from tests.support.repository import ROOT


@pytest.mark.parametrize("towers", ["mobilenet-minilm", "clip-b32", "clip-l14-336", "siglip2-b16"])
def test_systems_of_a_comparison_differ_only_in_how_they_read_intentions(towers: str) -> None:
    one, two, three = (
        yaml.safe_load((ROOT / "models" / f"{towers}-{arm}.yaml").read_text())
        for arm in ("without", "with", "student")
    )
    for other in (two, three):
        differ = {key for key in {*one, *other} if one.get(key) != other.get(key)}
        assert differ <= {"name", "inputs", "fusion", "reasoning", "task"}
        assert {**other["task"], "align": 0} == {**one["task"], "align": 0}
        switches = {k for k in one["fusion"] if one["fusion"][k] != other["fusion"][k]}
        assert switches <= {"reader", "slots"}


def test_the_arms_follow_from_what_a_system_reads() -> None:
    assert list_arms(recipes.load_recipe("tiny")) == ("with", "student", "without")
    assert list_arms(recipes.load_recipe("mobilenet-minilm-with")) == ("with", "without")
    assert list_arms(recipes.load_recipe("mobilenet-minilm-student")) == ("student", "without")
    assert list_arms(recipes.load_recipe("mobilenet-minilm-without")) == ("without",)


def test_a_dumped_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    for name in recipes.list_recipes():
        recipe = recipes.load_recipe(name)
        (tmp_path / "again.yaml").write_text(recipes.dump_recipe(recipe))
        assert recipes.load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"fusion": {"widht": 3}}, "unknown key 'fusion.widht'.*did you mean 'width'"),
        ({"fusion": {"width": 10, "heads": 4}}, "width 10 is not a multiple of heads 4"),
        ({"fusion": {"reader": False}}, "slots are read by the reader"),
        ({"inputs": ["text"]}, "an image tower is given exactly where inputs name image"),
        ({"inputs": ["image", "txt"]}, "inputs.1: .*'text'.*given 'txt'"),
        ({"task": {"epochs": -1}}, "task.epochs: .*greater than or equal to 0.*given -1"),
        ({"task": {"epochs": 0}}, "task.epochs 0 trains no head, so the system must need none"),
        ({"text": {"source": "tiny"}}, "a tower made from scratch must learn"),
        (
            {"text": {"source": "tiny", "frozen": False, "pool": "last"}, "intention": {}},
            "text.pool says .* set text.pool: auto, or fusion.kind: pooled or product",
        ),
        ({"reasoning": {"epochs": 1, "align": 0.0}}, "needs align or generate above 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line_that_names_the_key(change: dict, line: str) -> None:
    values = yaml.safe_load((ROOT / "models" / "tiny.yaml").read_text())
    with pytest.raises(RecipeError, match=line) as caught:
        recipes.parse_recipe({**values, **change}, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"fusion.hidden": 8},
        {"task.retrieval.vote": 0.9},
        {"task.retrieval": None},
        {"fusion": {"kind": "product"}},
    ],
)
def test_a_vote_needs_no_training_where_nothing_else_has_a_say(change: dict) -> None:
    assert recipes.load_recipe("knn-mobilenet-minilm").task.epochs == 0
    with pytest.raises(RecipeError, match=r"task\.epochs 0 trains no head"):
        recipes.load_recipe("knn-mobilenet-minilm", change)


def test_a_recipe_by_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(
        RecipeError, match=r"no recipe called 'tinny'; choose from .*did you mean 'tiny'"
    ):
        recipes.load_recipe("tinny")


@pytest.mark.parametrize("text", ["a: [", "- one\n- two\n", "\tname: x"])
def test_yaml_that_is_no_recipe_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.yaml") as caught:
        recipes.load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


@given(st.floats(1e-7, 1e-2), st.integers(1, 500))
def test_overrides_reach_any_depth(rate: float, epochs: int) -> None:
    changed = recipes.load_recipe("tiny", {"task.optimiser.rate": rate, "task.epochs": epochs})
    assert changed.task.optimiser.rate == rate
    assert changed.task.epochs == epochs
    assert changed.reasoning == recipes.load_recipe("tiny").reasoning
