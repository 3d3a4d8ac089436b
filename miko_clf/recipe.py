"""A recipe: every choice that makes one system differ from another, and nothing else."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from miko_clf.errors import RecipeError, nearest

Input = Literal["image", "text", "description", "rationale", "intention"]
# Texts that are read as content, in the order in which the model sees them.
CONTENT_TEXTS: tuple[Input, ...] = ("text", "description", "rationale")


class Section(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Tower(Section):
    """One encoder: where it comes from and whether it learns."""

    source: Literal["transformers", "open_clip", "timm", "tiny"]
    """Library that the encoder is built by; `tiny` is made from scratch."""
    name: str = "tiny"
    """A folder, a name in a folder on MIKO_ENCODERS, or a name on the hub."""
    frozen: bool = True
    """Weights stay as they are, and token features are cached."""
    width: int = Field(default=128, gt=0)
    """Channels of a token (source `tiny` only)."""
    layers: int = Field(default=2, gt=0)
    """Blocks (source `tiny` only)."""

    @model_validator(mode="after")
    def _scratch_learns(self) -> "Tower":
        if self.source == "tiny" and self.frozen:
            raise ValueError("a tower made from scratch must learn; set frozen: false")
        return self


class ImageTower(Tower):
    """The image encoder."""

    size: int = Field(default=64, gt=0)
    """Pixels a side (source `tiny` only; the others know their own)."""


class TextTower(Tower):
    """The text encoder; posts, descriptions and intentions all go through it."""

    max_length: int = Field(default=96, gt=2)
    """Tokens kept of a text; what is cut is counted."""
    vocabulary: int = Field(default=4000, gt=0)
    """Word pieces learned from the training texts (source `tiny` only)."""


class Fusion(Section):
    """Content attends to itself and reads intentions by gated cross-attention."""

    width: int = Field(default=128, gt=0)
    """Channels of a fused token."""
    layers: int = Field(default=2, gt=0)
    """Fusion layers."""
    latents: int = Field(default=0, ge=0)
    """Learned tokens that look at the content in its stead; 0 lets the content itself be fused."""
    heads: int = Field(default=4, gt=0)
    """Attention heads."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in every block."""
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of whole features of the towers, over all tokens of a post."""
    modality_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Chance that a training post loses its image, and likewise each of its texts."""
    reader: bool = True
    """Read intentions by cross-attention."""
    slots: bool = True
    """Learned queries that guess the intentions and the rationale where none are given."""
    slot_layers: int = Field(default=2, gt=0)
    """Blocks in which the slots read the content."""
    slot_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Chance that a training post without intentions goes without the slots too."""

    @model_validator(mode="after")
    def _consistent(self) -> "Fusion":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.slots and not self.reader:
            raise ValueError("slots are read by the reader; set reader: true or slots: false")
        return self


class Intentions(Section):
    """How given intentions are read."""

    max_length: int = Field(default=24, gt=2)
    """Tokens kept of one intention."""
    dropout: float = Field(default=0.5, ge=0, le=1)
    """Chance that a training post loses its intentions, so that absence is learned."""


class Optimiser(Section):
    """AdamW, with warm-up and decay."""

    rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of fusion, slots, decoder and head."""
    tower_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of towers that are not frozen."""
    gate_factor: float = Field(default=1.0, gt=0)
    """Gates learn at this multiple of the rate; they start at zero and have far to go."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of matrices; norms, biases, gates and embeddings have none."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    """Shape of the fall to zero."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which is what is kept; 0 keeps the weights."""


class Early(Section):
    """When a stage stops before its last epoch."""

    metric: Literal["loss", "accuracy", "macro_f1", "auroc", "average_precision"] = "loss"
    """Validation metric that picks the kept epoch."""
    patience: int = Field(default=3, gt=0)
    """Epochs without a better value after which the stage stops."""


class Reasoning(Section):
    """The first stage: learn what the teacher's text says."""

    epochs: int = Field(default=0, ge=0)
    """Passes over the training posts; 0 leaves the stage out."""
    align: float = Field(default=1.0, ge=0)
    """Weight of bringing each slot to the encoding of the teacher's text."""
    generate: float = Field(default=0.0, ge=0)
    """Weight of writing the rationale with a small decoder."""
    max_length: int = Field(default=128, gt=2)
    """Tokens kept of a rationale."""
    optimiser: Optimiser = Optimiser()
    early: Early = Early()

    @model_validator(mode="after")
    def _has_a_loss(self) -> "Reasoning":
        if self.epochs and not self.align and not self.generate:
            raise ValueError("a reasoning stage needs align or generate above 0")
        if self.early.metric != "loss":
            raise ValueError("the reasoning stage knows one validation metric, loss")
        return self


class Task(Section):
    """The second stage: learn the label."""

    epochs: int = Field(default=6, gt=0)
    """Passes over the training posts, at most."""
    align: float = Field(default=0.0, ge=0)
    """Weight at which the alignment of the reasoning stage goes on."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weigh each class by the inverse of its share of the training posts."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    optimiser: Optimiser = Optimiser()
    early: Early = Early(metric="auroc")


class Recipe(Section):
    """One system. `name` is the row of the results table."""

    name: str
    """Name of the system."""
    inputs: tuple[Input, ...]
    """What the classifier reads."""
    image: ImageTower | None = None
    """Image encoder; null where no input is an image."""
    text: TextTower
    """Text encoder."""
    fusion: Fusion = Fusion()
    intention: Intentions = Intentions()
    reasoning: Reasoning = Reasoning()
    task: Task = Task()
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
        if "intention" in self.inputs and not self.fusion.reader:
            raise ValueError("intentions are read by the reader; set fusion.reader: true")
        if self.reasoning.align and self.reasoning.epochs and not self.fusion.slots:
            raise ValueError("reasoning.align teaches the slots; set fusion.slots: true")
        if self.task.align and not self.fusion.slots:
            raise ValueError("task.align teaches the slots; set fusion.slots: true")
        return self

    @property
    def content_texts(self) -> tuple[Input, ...]:
        """Texts among the inputs that are read as content."""
        return tuple(name for name in CONTENT_TEXTS if name in self.inputs)


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
    beside = Path(__file__).parent.parent / "models"
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
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = _section(first["loc"][:-1])
        word = str(first["loc"][-1])
        allowed = ", ".join(section.model_fields) + nearest(word, section.model_fields)
        return f"{where}: unknown key {key!r}; allowed are {allowed}"
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    given = "" if first["type"] in ("missing", "value_error") else f" (given {first['input']!r})"
    return f"{where}: {key or 'recipe'}: {message}{given}"


def _section(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return section
