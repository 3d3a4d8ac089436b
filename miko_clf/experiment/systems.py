"""What is trained to learn whether intentions help: a recipe, one without, and its controls."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import yaml

from miko_clf import recipe as recipes
from miko_clf.data.controls import CONTROLS, Control
from miko_clf.errors import RecipeError, nearest
from miko_clf.recipe import Reader, Recipe

ARMS = ("with", "student", "without", *CONTROLS)
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


def read(source: str) -> Recipe:
    """Return the recipe of `RECIPE` or `RECIPE,key=value,...`; raises `RecipeError`."""
    return recipes.load(*named(source))


def named(source: str) -> tuple[str, dict[str, Any]]:
    """Return name or path of `RECIPE,key=value,...` and its changes; raises `RecipeError`."""
    name, *pairs = source.split(",")
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key.strip():
            raise RecipeError(f"{source}: {pair!r} changes nothing; key=value is needed")
        changes[key.strip()] = yaml.safe_load(value)
    return name, changes


def systems(sources: Sequence[str], wanted: Sequence[str] = ()) -> list[System]:
    """Return everything that is trained for these recipes, in order.

    A recipe that reads intentions is trained with them (`with`, and `student` where it guesses
    them), without them, and on each control. One that reads none is trained as it is. `wanted`
    keeps those arms alone. Raises `RecipeError` for an unknown arm or two recipes of one name.
    """
    for arm in wanted:
        if arm not in ARMS:
            known = ", ".join(ARMS)
            raise RecipeError(f"no arm called {arm!r}; choose from {known}{nearest(arm, ARMS)}")
    found: list[System] = []
    given = [read(source) for source in sources]
    for source, recipe in zip(sources, given, strict=True):
        label = recipe.name
        if [one.name for one in given].count(label) > 1:  # what was changed tells them apart
            label = ",".join([label, *(pair.strip() for pair in source.split(",")[1:])])
        if any(system.label == label for system in found):
            raise RecipeError(f"{label} was given twice; name it once")
        found += [system for system in _of(label, recipe) if _is_wanted(system, wanted)]
    if len({system.slug for system in found}) < len(found):
        raise RecipeError(f"{', '.join(sources)}: two would share a folder; rename one")
    if not found:
        raise RecipeError(f"none of the recipes has an arm among {', '.join(wanted)}")
    return found


def without(recipe: Recipe) -> Recipe | None:
    """Return the recipe that reads no intention and learns from none, none if nothing is left."""
    inputs = [name for name in recipe.inputs if name != "intention"]
    if not inputs:
        return None
    values = recipe.model_dump(mode="json")
    values["inputs"] = inputs
    if isinstance(recipe.fusion, Reader):
        values["fusion"] |= {"reader": False, "slots": False}
        values["reasoning"]["epochs"] = 0
        values["task"]["align"] = 0.0
    if set(inputs) <= {"image"}:
        values["text"], values["joined"] = None, "no"
    return recipes.parse(values, f"{recipe.name} without intentions")


def _of(label: str, recipe: Recipe) -> list[System]:
    if "intention" not in recipe.inputs:
        arm = "student" if recipe.slots else "without"
        return [System(label, recipe, {arm: arm})]
    own = {"with": "with", "student": "student"} if recipe.slots else {"with": "with"}
    found = [System(label, recipe, own)]
    bare = without(recipe)
    if bare is not None:
        found.append(System(label, bare, {"without": "without"}, twin=recipe))
    return found + [System(label, recipe, {each: "with"}, control=each) for each in CONTROLS]


def _is_wanted(system: System, wanted: Sequence[str]) -> bool:
    return not wanted or any(arm in wanted for arm in system.reported)
