"""A whole recipe: what its parts must agree on, and how it is read and written."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from miko_clf.errors import RecipeError, suggest_nearest
from miko_clf.recipe import sections
from miko_clf.recipe.sections import (
    FUSION_SECTIONS,
    ConditionedSection,
    GeneratorSection,
    PooledSection,
    ProductSection,
    ReaderSection,
    ZeroShotSection,
)

InputName = Literal["image", "text", "description", "rationale", "intention"]
# Texts that are read as content, in the order in which the model sees them.
CONTENT_TEXTS: tuple[InputName, ...] = ("text", "description", "rationale")
_SEED_STEP = 1000  # between members of an ensemble, so that those of two seeds do not meet


class Recipe(sections.RecipeSection):
    """One system. `name` is the row of the results table."""

    name: str
    """Name of the system."""
    inputs: tuple[InputName, ...]
    """What the classifier reads."""
    joined: Literal["no", "separated", "bare"] = "no"
    """Texts stay apart, or become one text, with the tokenizer's separator between or with none."""
    image: sections.ImageTowerSection | None = None
    """Image encoder; null where no input is an image."""
    text: sections.TextTowerSection | None = None
    """Text encoder; null where the image alone is read."""
    fusion: sections.FusionSection = ReaderSection()
    intention: sections.IntentionSection = sections.IntentionSection()
    reasoning: sections.ReasoningSection = sections.ReasoningSection()
    task: sections.TaskSection = sections.TaskSection()
    decision: sections.DecisionSection = sections.DecisionSection()
    ensemble: int = Field(default=1, gt=0)
    """Models that learn from seeds of their own; their mean answers. 1 for a single model."""
    distil: bool = False
    """One model more learns what the ensemble says of the training posts, and takes its place."""
    batch_size: int = Field(default=32, gt=0)
    """Posts in an optimisation step."""
    seed: int = 0
    """Seed of initial weights, order, dropout and baselines."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ValueError("inputs must name each input once, and at least one")
        if ("image" in self.inputs) != (self.image is not None):
            raise ValueError("an image tower is given exactly where inputs name image")
        prompted = isinstance(self.fusion, ZeroShotSection)
        if (prompted or self.inputs != ("image",)) != (self.text is not None):
            raise ValueError(
                "a text tower is given exactly where inputs name a text, or where fusion.kind "
                "zero_shot reads prompts"
            )
        if self.joined != "no" and self.inputs == ("image",):
            raise ValueError("joined says how texts become one; name a text among inputs")
        if self.joined != "no" and self.text is not None and self.text.long != "cut":
            raise ValueError("joined texts are shortened evenly; set text.long: cut")
        pools = isinstance(self.fusion, (PooledSection, ProductSection)) or self.based
        pools = pools or (self.reads_intentions and self.intention.read == "vectors")
        if self.text is not None and self.text.pool != "auto" and not pools:
            raise ValueError(
                "text.pool says how a text becomes one vector, which this fusion does not make; "
                "set text.pool: auto, or fusion.kind: pooled or product"
            )
        if self.reads_intentions and not self.fusion.reader:
            raise ValueError(
                "intentions are read by the reader, pooled, or joined with the other texts; "
                "set fusion.reader: true, fusion.kind: pooled or joined: separated"
            )
        self._check_stages()
        self._check_epochs()
        self._check_ensemble()
        if prompted:
            self._check_zero_shot()
        return self

    def _check_epochs(self) -> None:
        retrieval = self.task.retrieval
        votes = isinstance(self.fusion, PooledSection) and not self.fusion.hidden
        votes = votes and retrieval is not None and retrieval.vote == 1
        prompted = isinstance(self.fusion, ZeroShotSection)
        if not self.task.epochs and not (votes or prompted or self.fitted):
            raise ValueError(
                "task.epochs 0 trains no head, so the system must need none: fusion.kind "
                "zero_shot, or fusion.kind pooled without a hidden layer whose task.retrieval has "
                "vote: 1.0; set task.epochs above 0"
            )
        if self.task.epochs and prompted:
            raise ValueError("fusion.kind zero_shot has nothing to train; set task.epochs: 0")

    def _check_ensemble(self) -> None:
        if self.distil and self.ensemble == 1:
            raise ValueError("distil learns what an ensemble says; set ensemble to 2 or more")
        if self.ensemble == 1:
            return
        if self.fitted or not self.task.epochs:
            raise ValueError(
                "members of an ensemble differ by the seed they learn from, and here nothing "
                "learns in epochs; set ensemble: 1"
            )
        if self.distil:
            if self.task.likelihood:
                raise ValueError(
                    "distil teaches probabilities, and task.likelihood learns to spell; set one"
                )
            return
        learns = any(tower is not None and tower.learns for tower in (self.image, self.text))
        apart = isinstance(self.fusion, (GeneratorSection, ConditionedSection))
        if learns or apart or self.task.retrieval:
            raise ValueError(
                "members of an ensemble share towers that do not learn, have no vote of posts and "
                "are of fusion.kind reader, pooled or product; set distil: true, which keeps one "
                "model, or ensemble: 1"
            )

    def _check_zero_shot(self) -> None:
        image, text = self.image, self.text
        if image is None or text is None:
            raise ValueError("fusion.kind zero_shot compares images with prompts; name image")
        if (image.source, image.name) != (text.source, text.name):
            raise ValueError(
                "fusion.kind zero_shot compares the two halves of one encoder; give image and "
                f"text one source and name, not {image.name!r} and {text.name!r}"
            )
        if image.output != "embedding" or text.output != "embedding":
            raise ValueError(
                "fusion.kind zero_shot compares embeddings; set image.output and text.output: "
                "embedding"
            )
        if image.learns or text.learns:
            raise ValueError(
                "fusion.kind zero_shot trains no tower; set frozen: true without unfreeze and lora"
            )
        if self.task.retrieval:
            raise ValueError("fusion.kind zero_shot learns from no post; leave out task.retrieval")

    def _check_fitted(self) -> None:
        for key, tower in (("image", self.image), ("text", self.text)):
            if tower is not None and tower.learns:
                raise ValueError(
                    f"a linear probe reads vectors that do not change; set {key}.frozen: true "
                    "without unfreeze and lora"
                )
        if self.fitted and (self.task.retrieval or self.task.label_smoothing):
            raise ValueError(
                "fusion.solver lbfgs knows the log loss alone; leave out task.retrieval and "
                "task.label_smoothing"
            )

    def _check_stages(self) -> None:
        if self.fitted or self.based:
            self._check_fitted()
        if self.task.refit and not self.fitted:
            raise ValueError("task.refit fits once more to the optimum; set fusion.solver: lbfgs")
        writes = isinstance(self.fusion, GeneratorSection)
        if self.task.likelihood and not writes:
            raise ValueError("task.likelihood needs fusion.kind generator, which spells labels")
        teaches = self.reasoning.epochs and self.reasoning.align
        if (teaches or self.task.align) and not self.fusion.slots:
            key = "reasoning.align" if teaches else "task.align"
            raise ValueError(f"{key} teaches the slots; set fusion.slots: true")
        reads = isinstance(self.fusion, ReaderSection) and self.text is not None
        if self.reasoning.epochs and not (writes or reads):
            raise ValueError(
                "a reasoning stage needs fusion.kind reader or generator, and a text tower"
            )
        if isinstance(self.fusion, ReaderSection) and self.fusion.slots and self.text is None:
            raise ValueError("slots guess what the text tower would say; set fusion.slots: false")
        if writes and self.task.retrieval:
            raise ValueError(
                "a generator has no embedding to retrieve by; leave out task.retrieval"
            )

    @property
    def fitted(self) -> bool:
        """Whether the classifier is fitted to its optimum, and not trained in epochs."""
        return isinstance(self.fusion, PooledSection) and self.fusion.solver == "lbfgs"

    @property
    def based(self) -> bool:
        """Whether the classifier is mixed with a linear probe that is fitted beside it."""
        return isinstance(self.fusion, ReaderSection) and self.fusion.base == "linear"

    @property
    def num_members(self) -> int:
        """Models that a trained system holds."""
        return 1 if self.distil else self.ensemble

    def list_members(self) -> list["Recipe"]:
        """Return the recipe of each member of the ensemble, a single model with its own seed."""
        first = int(self.distil)  # the model that learns of them has the seed of the recipe
        alone = {"ensemble": 1, "distil": False}
        return [
            self.model_copy(update={**alone, "seed": self.seed + _SEED_STEP * number})
            for number in range(first, first + self.ensemble)
        ]

    @property
    def content_texts(self) -> tuple[InputName, ...]:
        """Texts that the model reads as content; joined ones are one, called text."""
        if self.joined != "no":
            return ("text",)
        return tuple(name for name in CONTENT_TEXTS if name in self.inputs)

    @property
    def reads_intentions(self) -> bool:
        """Whether given intentions are read for themselves, not as part of a joined text."""
        return "intention" in self.inputs and self.joined == "no"

    @property
    def slots(self) -> bool:
        """Whether the model guesses intentions where none are given."""
        return self.fusion.slots


def list_recipes() -> list[str]:
    """Return the names of the recipes that the project ships, sorted."""
    names = [path.name for path in _list_shipped()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by path, or by the name of one that the project ships.

    `overrides` maps dotted keys (`fusion.layers`) to values. Raises `RecipeError`.
    """
    where, text = _read_source(recipe)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not readable YAML") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: a recipe is a mapping of keys to values")
    for key, value in (overrides or {}).items():
        _assign_key(values, key, value, where)
    return parse_recipe(values, where)


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe that `values` describe; errors name `where`, key and what is allowed."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain_error(error, where)) from None


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _list_shipped() -> list[Any]:
    beside = Path(__file__).parents[2] / "models"
    inside = resources.files("miko_clf").joinpath("models")
    return list(inside.iterdir() if inside.is_dir() else beside.iterdir())


def _read_source(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RecipeError(f"{path}: cannot read this recipe: {reason}") from None
    for shipped in _list_shipped():
        if shipped.name == f"{recipe}.yaml":
            return str(recipe), shipped.read_text(encoding="utf-8")
    among = ", ".join(list_recipes()) + suggest_nearest(str(recipe), list_recipes())
    raise RecipeError(f"no recipe called {str(recipe)!r}; choose from {among}")


def _assign_key(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{where}: {part!r} in {key!r} holds a value, not a section")
    values[last] = value


def _explain_error(error: ValidationError, where: str) -> str:
    first = error.errors(include_url=False)[0]
    kind, loc = "reader", first["loc"]
    if len(loc) > 1 and loc[0] == "fusion" and loc[1] in FUSION_SECTIONS:
        kind, loc = str(loc[1]), (loc[0], *loc[2:])  # which pydantic puts into the place
    key = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        known = _find_section(loc[:-1], kind).model_fields
        allowed = ", ".join(known) + suggest_nearest(str(loc[-1]), known)
        return f"{where}: unknown key {key!r}; allowed are {allowed}"
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    shown = first["type"] not in ("missing", "value_error", "fusion_kind")
    value = f" (given {first['input']!r})" if shown else ""
    return f"{where}: {key or 'recipe'}: {message}{value}"


def _find_section(location: tuple[int | str, ...], kind: str) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for part in location:
        if section is Recipe and part == "fusion":
            section = FUSION_SECTIONS[kind]
            continue
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return section
