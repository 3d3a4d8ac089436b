"""The design of a comparison: its systems, controls, seeds and folds, and where they lie."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from miko_clf import manifest
from miko_clf.data.controls import CONTROLS, Control
from miko_clf.errors import BundleError, RecipeError, suggest_nearest
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import ReaderSection

COMPARISON_ARMS = ("with", "student", "without", *CONTROLS)
_LONGEST = 80  # letters of a folder's name


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


def load_system_recipe(source: str) -> Recipe:
    """Return the recipe of `RECIPE` or `RECIPE,key=value,...`; raises `RecipeError`."""
    return recipes.load_recipe(*parse_recipe_source(source))


def parse_recipe_source(source: str) -> tuple[str, dict[str, Any]]:
    """Return name or path of `RECIPE,key=value,...` and its changes; raises `RecipeError`."""
    name, *pairs = source.split(",")
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key.strip():
            raise RecipeError(f"{source}: {pair!r} changes nothing; key=value is needed")
        changes[key.strip()] = yaml.safe_load(value)
    return name, changes


def list_systems(sources: Sequence[str], wanted: Sequence[str] = ()) -> list[System]:
    """Return everything that is trained for these recipes, in order.

    A recipe that reads intentions is trained with them (`with`, and `student` where it guesses
    them), without them, and on each control. One that reads none is trained as it is. `wanted`
    keeps those arms alone. Raises `RecipeError` for an unknown arm or two recipes of one name.
    """
    for arm in wanted:
        if arm not in COMPARISON_ARMS:
            known = ", ".join(COMPARISON_ARMS)
            raise RecipeError(
                f"no arm called {arm!r}; choose from {known}{suggest_nearest(arm, COMPARISON_ARMS)}"
            )
    found: list[System] = []
    given = [load_system_recipe(source) for source in sources]
    for source, recipe in zip(sources, given, strict=True):
        label = recipe.name
        if [one.name for one in given].count(label) > 1:  # what was changed tells them apart
            label = ",".join([label, *(pair.strip() for pair in source.split(",")[1:])])
        if any(system.label == label for system in found):
            raise RecipeError(f"{label} was given twice; name it once")
        found += [
            system for system in _list_recipe_systems(label, recipe) if _is_wanted(system, wanted)
        ]
    if len({system.slug for system in found}) < len(found):
        raise RecipeError(f"{', '.join(sources)}: two would share a folder; rename one")
    if not found:
        raise RecipeError(f"none of the recipes has an arm among {', '.join(wanted)}")
    return found


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
    return recipes.parse_recipe(values, f"{recipe.name} without intentions")


def _list_recipe_systems(label: str, recipe: Recipe) -> list[System]:
    if "intention" not in recipe.inputs:
        arm = "student" if recipe.slots else "without"
        return [System(label, recipe, {arm: arm})]
    own = {"with": "with", "student": "student"} if recipe.slots else {"with": "with"}
    found = [System(label, recipe, own)]
    bare = remove_intentions(recipe)
    if bare is not None:
        found.append(System(label, bare, {"without": "without"}, twin=recipe))
    return found + [System(label, recipe, {each: "with"}, control=each) for each in CONTROLS]


def _is_wanted(system: System, wanted: Sequence[str]) -> bool:
    return not wanted or any(arm in wanted for arm in system.reported)


_EXPERIMENT_FILE = "experiment.json"


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


@dataclass(frozen=True)
class PostSource:
    """Which posts, and how they are read."""

    path: str
    label_map: tuple[tuple[str, str], ...] = ()
    split_seed: int | None = None
    task: str | None = None
    skip_bad: bool = False


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
        every = self.systems()
        return len({system.recipe.inputs for system in every}) > 1 or any(
            system.control for system in every
        )

    def trials(self) -> list[Trial]:
        """Return all that is trained, seed by seed, so that early seeds are complete first."""
        folds: list[int | None] = [None] if self.folds is None else list(range(self.folds))
        every = self.systems()
        return [
            Trial(system, seed, fold)
            for seed in range(self.seeds)
            for fold in folds
            for system in every
        ]


def claim_experiment(out: Path, experiment: Experiment, facts: Mapping[str, Any]) -> None:
    """Write the experiment into a new folder, or find that it is, or grew from, the one there.

    It may grow by recipes and by seeds. `facts` are digests of the posts and versions. Raises
    `BundleError` where another stands there.
    """
    path = out / _EXPERIMENT_FILE
    wanted = json.loads(json.dumps({**asdict(experiment), **facts}))
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise BundleError(f"{out} holds something else; name another --out")
        manifest.write_json(path, wanted)
        return
    before = _read_object(path)
    differ = [name for name in wanted if before.get(name) != wanted[name]]
    other = [name for name in differ if not _grew(name, before.get(name), wanted[name])]
    if other:
        raise BundleError(
            f"{out} holds a comparison with other {' and '.join(other)}; name another --out"
        )
    if differ:
        manifest.write_json(path, wanted)


def _grew(name: str, before: Any, after: Any) -> bool:
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
    found = _read_object(out / _EXPERIMENT_FILE)
    try:
        known = {name: found[name] for name in Experiment.__dataclass_fields__}
        known["source"] = PostSource(**_frozen(found["source"]))
        return Experiment(**_frozen(known))
    except (KeyError, TypeError):
        raise BundleError(f"{out / _EXPERIMENT_FILE}: not of this version") from None


def locate_bundle(out: Path, trial: Trial) -> Path:
    """Return where the bundle of a trial lies."""
    return out / "trials" / trial.name


def locate_scores(out: Path, trial: Trial, split: str) -> Path:
    """Return where the scores of a trial lie."""
    return out / "scores" / split / f"{trial.name}.json"


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lists as tuples, which JSON does not have."""
    return {key: _as_tuple(value) for key, value in values.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
    if not isinstance(found, dict):
        raise BundleError(f"{path}: an object is needed")
    return found
