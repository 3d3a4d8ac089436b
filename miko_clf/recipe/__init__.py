"""A recipe: every choice that makes one system differ from another, and nothing else."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from miko_clf.errors import RecipeError, nearest
from miko_clf.recipe.decision import Decision
from miko_clf.recipe.fusions import FUSIONS, Conditioned, Fusion, Generator, Pooled, Product, Reader
from miko_clf.recipe.stages import Early, Optimiser, Reasoning, Retrieval, Task
from miko_clf.recipe.system import CONTENT_TEXTS, Input, Intentions, Recipe
from miko_clf.recipe.towers import ImageTower, Lora, TextTower, Tower

__all__ = [
    "CONTENT_TEXTS",
    "FUSIONS",
    "Conditioned",
    "Decision",
    "Early",
    "Fusion",
    "Generator",
    "ImageTower",
    "Input",
    "Intentions",
    "Lora",
    "Optimiser",
    "Pooled",
    "Product",
    "Reader",
    "Reasoning",
    "Recipe",
    "Retrieval",
    "Task",
    "TextTower",
    "Tower",
    "dump",
    "load",
    "names",
    "parse",
]


def names() -> list[str]:
    """Return the names of the recipes that the project ships, sorted."""
    files = [path.name for path in _shipped()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def load(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by path, or by the name of one that the project ships.

    `overrides` maps dotted keys (`fusion.layers`) to values. Raises `RecipeError`.
    """
    where, text = _text(recipe)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not readable YAML") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: a recipe is a mapping of keys to values")
    for key, value in (overrides or {}).items():
        _assign(values, key, value, where)
    return parse(values, where)


def parse(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe that `values` describe; errors name `where`, key and what is allowed."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_first_line(error, where)) from None


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _shipped() -> list[Any]:
    beside = Path(__file__).parents[2] / "models"
    inside = resources.files("miko_clf").joinpath("models")
    return list(inside.iterdir() if inside.is_dir() else beside.iterdir())


def _text(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.exists():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RecipeError(f"{path}: cannot read this recipe: {reason}") from None
    for shipped in _shipped():
        if shipped.name == f"{recipe}.yaml":
            return str(recipe), shipped.read_text(encoding="utf-8")
    among = ", ".join(names()) + nearest(str(recipe), names())
    raise RecipeError(f"no recipe called {str(recipe)!r}; choose from {among}")


def _assign(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{where}: {part!r} in {key!r} holds a value, not a section")
    values[last] = value


def _first_line(error: ValidationError, where: str) -> str:
    first = error.errors(include_url=False)[0]
    kind, loc = _without_kind(first["loc"])
    key = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        section = _section(loc[:-1], kind)
        word = str(loc[-1])
        allowed = ", ".join(section.model_fields) + nearest(word, section.model_fields)
        return f"{where}: unknown key {key!r}; allowed are {allowed}"
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    told = first["type"] in ("missing", "value_error", "fusion_kind")
    given = "" if told else f" (given {first['input']!r})"
    return f"{where}: {key or 'recipe'}: {message}{given}"


def _without_kind(loc: tuple[int | str, ...]) -> tuple[str, tuple[int | str, ...]]:
    """Return the kind of fusion that pydantic puts into a place, and the place without it."""
    if len(loc) > 1 and loc[0] == "fusion" and loc[1] in FUSIONS:
        return str(loc[1]), (loc[0], *loc[2:])
    return "reader", loc


def _section(location: tuple[int | str, ...], kind: str) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for part in location:
        if section is Recipe and part == "fusion":
            section = FUSIONS[kind]
            continue
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return section
