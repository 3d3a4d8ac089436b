"""Which systems a comparison trains, and what makes it another comparison."""

from pathlib import Path

import pytest

from miko_clf.data.dataset import open_folder
from miko_clf.data.readers import SkipReport
from miko_clf.data.sets.base import DatedSplit
from miko_clf.errors import BundleError, RecipeError
from miko_clf.experiment import design
from miko_clf.experiment.design import Experiment, PostSource, list_systems
from miko_clf.recipe import schema as recipes


def test_a_recipe_that_reads_intentions_has_every_arm_and_control() -> None:
    found = design.list_systems(["mobilenet-minilm-with"])
    arms = [arm for system in found for arm in system.reported]
    assert arms == ["with", "without", "shuffled", "other-post", "empty", "noise"]
    bare = found[1].recipe
    assert "intention" not in bare.inputs
    assert not bare.slots
    assert found[1].twin == found[0].recipe


def test_every_shipped_recipe_that_reads_intentions_has_a_form_without() -> None:
    for name in recipes.list_recipes():
        recipe = recipes.load_recipe(name)
        if "intention" in recipe.inputs and len(recipe.inputs) > 1:
            bare = design.remove_intentions(recipe)
            assert bare is not None
            assert "intention" not in bare.inputs
            assert bare.seed == recipe.seed


def test_a_recipe_without_intentions_is_trained_as_it_is_and_changes_tell_two_apart() -> None:
    name = "mobilenet-minilm-student"
    found = design.list_systems([name, f"{name},reasoning.epochs=0"])
    assert [system.label for system in found] == [name, f"{name},reasoning.epochs=0"]
    assert [list(system.reported) for system in found] == [["student"], ["student"]]
    assert len({system.slug for system in found}) == 2


@pytest.mark.parametrize(
    ("sources", "arms", "says"),
    [
        (["tiny", "tiny"], [], "twice"),
        (["tiny"], ["shufled"], "did you mean 'shuffled'"),
        (["tiny,seed"], [], "key=value"),
        (["text-only-minilm"], ["shuffled"], "none of the recipes"),
    ],
)
def test_what_cannot_be_compared_is_said(sources: list[str], arms: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        design.list_systems(sources, arms)


def test_an_experiment_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = PostSource(path="posts", label_map=(("a", "b"),))
    experiment = Experiment(("tiny",), source, seeds=3, arms=("with",), folds=5)
    design.claim_experiment(tmp_path / "new", experiment, {})
    assert design.read_experiment(tmp_path / "new") == experiment
    with pytest.raises(BundleError, match="other arms and folds"):
        design.claim_experiment(tmp_path / "new", Experiment(("tiny",), source, seeds=4), {})


def test_a_recipe_that_is_no_file_is_kept_whole(tmp_path: Path) -> None:
    recipe = recipes.load_recipe("tiny", {"name": "my, own", "fusion.layers": 3})
    source = design.write_recipe_source(recipe)
    experiment = Experiment((source, "tiny"), PostSource("posts"), seeds=1)
    design.claim_experiment(tmp_path / "run", experiment, {})
    systems = design.read_experiment(tmp_path / "run").systems()
    assert systems[0].recipe == recipe
    assert {system.label for system in systems} == {"my, own", "tiny"}
    with pytest.raises(RecipeError, match="given twice"):
        list_systems([source, source])


def test_a_folder_is_read_again_as_it_was_opened(world: Path) -> None:
    path = world / "sarcasm"
    assert PostSource.of(path) == PostSource.of(open_folder(path)) == PostSource(str(path))
    opened = open_folder(path, label_map={"b": "x", "a": "x"}, split_seed=3, report=SkipReport())
    source = PostSource(str(path), (("a", "x"), ("b", "x")), split_seed=3, skip_bad=True)
    assert PostSource.of(opened) == PostSource.of(source) == source
    dated = open_folder(path, dated=DatedSplit("2021-06-01", "2021-05-01"))
    source = PostSource(str(path), test_from="2021-06-01", val_from="2021-05-01")
    assert PostSource.of(dated) == source
    assert source.dated == DatedSplit("2021-06-01", "2021-05-01")
    assert PostSource("posts").dated is None


def test_systems_keep_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("mini_lm", "mini-lm"):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\ninputs: [text]\ntext: {{source: tiny, frozen: false}}\n",
            encoding="utf-8",
        )
    both = list_systems([str(tmp_path / f"{name}.yaml") for name in ("mini_lm", "mini-lm")])
    assert len({each.slug for each in both}) == 2


def test_a_recipe_that_was_changed_is_another_comparison(tmp_path: Path) -> None:
    experiment = Experiment(("text-only-minilm",), PostSource("posts"), seeds=1)
    facts = {"systems": {"one": {"batch_size": 32}}}
    design.claim_experiment(tmp_path / "run", experiment, facts)
    design.claim_experiment(tmp_path / "run", experiment, facts)
    with pytest.raises(BundleError, match="other systems"):
        design.claim_experiment(
            tmp_path / "run", experiment, {"systems": {"one": {"batch_size": 7}}}
        )


def test_a_comparison_grows_by_seeds_and_recipes_and_does_not_shrink(tmp_path: Path) -> None:
    small, large = (
        Experiment(recipes, PostSource("posts"), seeds=seeds)
        for recipes, seeds in ((("tiny",), 2), (("text-only-minilm", "tiny"), 3))
    )

    def facts(one: Experiment) -> dict:
        return {"systems": {s.slug: s.recipe.model_dump(mode="json") for s in one.systems()}}

    design.claim_experiment(tmp_path, small, facts(small))
    design.claim_experiment(tmp_path, large, facts(large))
    assert design.read_experiment(tmp_path) == large
    known = {trial.name for trial in large.trials()}
    assert {trial.name for trial in small.trials()} < known
    with pytest.raises(BundleError, match="other recipes and seeds and systems"):
        design.claim_experiment(tmp_path, small, facts(small))
    assert design.read_experiment(tmp_path) == large
