"""The design of a comparison: its systems, controls, seeds and folds, and where they lie."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from miko_clf import manifest
from miko_clf.data.controls import CONTROLS, Control
from miko_clf.data.dataset import DataFolder
from miko_clf.data.sets.base import DatedSplit
from miko_clf.errors import BundleError, RecipeError, suggest_nearest
from miko_clf.recipe.schema import Recipe, load_recipe, parse_recipe
from miko_clf.recipe.sections import ReaderSection

COMPARISON_ARMS = ("with", "student", "without", *CONTROLS)
_LONGEST = 80  # letters of a folder's name
_EXPERIMENT_FILE = "experiment.json"


@dataclass(frozen=True)
class System:
    """One thing that is trained: a recipe on posts as they are, or as a control makes them.

    `reported` are the arms of the comparison that it answers for, each with the arm in which the
    model is asked. `twin` is the recipe whose initial weights it shares.
    """

    label: str
    recipe: Recipe
    reported: Mapping[str, str]
    control: Control | None = None
    twin: Recipe | None = None

    @property
    def slug(self) -> str:
        """A name for its folders."""
        kind: str = self.control or next(iter(self.reported))
        plain = self.label.replace(",", "-")
        word = re.sub(r"[^A-Za-z0-9.=]+", "-", plain).strip("-")
        if len(word) > _LONGEST or word != plain:  # what letters were lost may tell systems apart
            word = f"{word[:_LONGEST]}-{sha256(self.label.encode()).hexdigest()[:8]}"
        return f"{word}-{kind}"


def list_systems(sources: Sequence[str], wanted: Sequence[str] = ()) -> list[System]:
    """Return everything that is trained for these recipes, in order.

    A recipe that reads intentions is trained with them (`with`, and `student` where it guesses
    them), without them, and on each control. One that reads none is trained as it is. `wanted`
    keeps those arms alone. Raises `RecipeError` for an unknown arm or two recipes of one name.
    """
    for arm in wanted:
        if arm not in COMPARISON_ARMS:
            known = ", ".join(COMPARISON_ARMS) + suggest_nearest(arm, COMPARISON_ARMS)
            raise RecipeError(f"no arm called {arm!r}; choose from {known}")
    systems: list[System] = []
    recipes = [load_system_recipe(source) for source in sources]
    for source, recipe in zip(sources, recipes, strict=True):
        label = recipe.name
        if [other.name for other in recipes].count(label) > 1:  # what was changed tells them apart
            label = ",".join([label, *(pair.strip() for pair in _split_source(source)[1:])])
        if any(system.label == label for system in systems):
            raise RecipeError(f"{label} was given twice; name it once")
        systems += [
            system
            for system in _list_recipe_systems(label, recipe)
            if not wanted or any(arm in wanted for arm in system.reported)
        ]
    if len({system.slug for system in systems}) < len(systems):
        raise RecipeError(f"{', '.join(sources)}: two would share a folder; rename one")
    if not systems:
        raise RecipeError(f"none of the recipes has an arm among {', '.join(wanted)}")
    return systems


def _list_recipe_systems(label: str, recipe: Recipe) -> list[System]:
    if "intention" not in recipe.inputs:
        arm = "student" if recipe.slots else "without"
        return [System(label, recipe, {arm: arm})]
    arms = {"with": "with", "student": "student"} if recipe.slots else {"with": "with"}
    systems = [System(label, recipe, arms)]
    bare = remove_intentions(recipe)
    if bare is not None:
        systems.append(System(label, bare, {"without": "without"}, twin=recipe))
    return systems + [System(label, recipe, {each: "with"}, control=each) for each in CONTROLS]


def remove_intentions(recipe: Recipe) -> Recipe | None:
    """Return the recipe that reads no intention and learns from none, none if nothing is left."""
    inputs = [name for name in recipe.inputs if name != "intention"]
    if not inputs:
        return None
    values = recipe.model_dump(mode="json")
    values["inputs"] = inputs
    if isinstance(recipe.fusion, ReaderSection):
        values["fusion"] |= {"reader": False, "slots": False}
        values["reasoning"]["epochs"] = 0
        values["task"]["align"] = 0.0
    if set(inputs) <= {"image"}:
        values["text"], values["joined"] = None, "no"
    return parse_recipe(values, f"{recipe.name} without intentions")


def load_system_recipe(source: str) -> Recipe:
    """Return the recipe of a source, as `write_recipe_source` writes it; raises `RecipeError`."""
    if source.startswith("{"):
        return parse_recipe(json.loads(source), "recipe")
    return load_recipe(*parse_recipe_source(source))


def write_recipe_source(recipe: Recipe | str | Path) -> str:
    """Return a recipe as a comparison keeps it: name, path, with `,key=value,...`, or JSON."""
    return recipe.model_dump_json() if isinstance(recipe, Recipe) else str(recipe)


def parse_recipe_source(source: str) -> tuple[str, dict[str, Any]]:
    """Return name or path of `RECIPE,key=value,...` and its changes; raises `RecipeError`."""
    name, *pairs = _split_source(source)
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"{source}: {pair!r} changes nothing; key=value is needed")
        changes[key.strip()] = yaml.safe_load(value)
    return name, changes


def _split_source(source: str) -> list[str]:
    return [source] if source.startswith("{") else source.split(",")


class Trial(NamedTuple):
    """One system trained from one seed, on the rest of one fold where there are folds."""

    system: System
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """A name for its files."""
        fold = "" if self.fold is None else f"-{self.fold}"
        return f"{self.system.slug}-{self.seed}{fold}"

    def locate_bundle(self, out: Path) -> Path:
        """Return where its bundle lies."""
        return out / "trials" / self.name

    def locate_scores(self, out: Path, split: str) -> Path:
        """Return where its scores lie."""
        return out / "scores" / split / f"{self.name}.json"


@dataclass(frozen=True)
class PostSource:
    """Which posts, and how they are read."""

    path: str
    label_map: tuple[tuple[str, str], ...] = ()
    split_seed: int | None = None
    task: str | None = None
    skip_bad: bool = False
    test_from: str | None = None
    val_from: str | None = None

    @property
    def dated(self) -> DatedSplit | None:
        """The dates at which posts are split, none where they are not split by date."""
        return None if self.test_from is None else DatedSplit(self.test_from, self.val_from)

    @classmethod
    def of(cls, data: "DataFolder | PostSource | str | Path") -> "PostSource":
        """Return where a data folder has its posts from and how it reads them, or a bare path."""
        if isinstance(data, PostSource):
            return data
        if not isinstance(data, DataFolder):
            return cls(str(data))
        label_map, split_seed, task, dated = data.options
        names, dates = tuple(sorted(label_map.items())), dated or (None, None)
        return cls(str(data.path), names, split_seed, task, data.report is not None, *dates)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a comparison finds. Written once, then only read.

    `arms` are those that were asked for, none for all. `folds` is the number of folds of a
    grouped cross-validation, drawn anew for each seed; without it train, val and test are the
    data's own.
    """

    recipes: tuple[str, ...]
    source: PostSource
    seeds: int
    arms: tuple[str, ...] = ()
    folds: int | None = None
    positive: str | None = None
    leaks: bool = False

    def systems(self) -> list[System]:
        """Return what is trained."""
        return list_systems(self.recipes, self.arms)

    @property
    def one_order(self) -> bool:
        """Whether systems read different things, and posts must be batched by what all read."""
        systems = self.systems()
        inputs = {system.recipe.inputs for system in systems}
        return len(inputs) > 1 or any(system.control for system in systems)

    def trials(self) -> list[Trial]:
        """Return all that is trained, seed by seed, so that early seeds are complete first."""
        folds = [None] if self.folds is None else range(self.folds)
        places = product(range(self.seeds), folds, self.systems())
        return [Trial(system, seed, fold) for seed, fold, system in places]


def claim_experiment(out: Path, experiment: Experiment, facts: Mapping[str, Any]) -> None:
    """Write the experiment into a new folder, or find that it is, or grew from, the one there.

    It may grow by recipes and by seeds. `facts` are digests of the posts and versions. Raises
    `BundleError` where another stands there.
    """
    facts = {**asdict(experiment), **facts}
    facts["source"] = {  # comparisons from before there were dates go on
        name: value
        for name, value in facts["source"].items()
        if name not in ("test_from", "val_from") or value is not None
    }
    manifest.claim_folder(out / _EXPERIMENT_FILE, facts, what="comparison", may_grow=_has_grown)


def _has_grown(name: str, before: Any, after: Any) -> bool:
    if name == "seeds":
        return isinstance(before, int) and before <= after
    if name == "recipes":
        return isinstance(before, list) and set(before) <= set(after)
    if name == "systems":
        return isinstance(before, dict) and before.items() <= after.items()
    return False


def is_experiment(path: Path) -> bool:
    """Say whether a comparison of recipes lies in a folder."""
    return (path / _EXPERIMENT_FILE).is_file()


def read_experiment(out: Path) -> Experiment:
    """Return the experiment in a folder; raises `BundleError`."""
    path = out / _EXPERIMENT_FILE
    try:
        facts = _freeze_lists(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
    try:
        fields = {name: facts[name] for name in Experiment.__dataclass_fields__}
        return Experiment(**fields | {"source": PostSource(**fields["source"])})
    except (KeyError, TypeError):
        raise BundleError(f"{path}: not of this version") from None


def _freeze_lists(value: Any) -> Any:
    """Return JSON with lists as tuples."""
    if isinstance(value, dict):
        return {key: _freeze_lists(each) for key, each in value.items()}
    return tuple(map(_freeze_lists, value)) if isinstance(value, list) else value
