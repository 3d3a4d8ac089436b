"""A whole recipe, and what its parts must agree on."""

from typing import Literal

from pydantic import Field, model_validator

from miko_clf.recipe.decision import Decision
from miko_clf.recipe.fusions import Fusion, Generator, Reader
from miko_clf.recipe.section import Section
from miko_clf.recipe.stages import Reasoning, Task
from miko_clf.recipe.towers import ImageTower, TextTower

Input = Literal["image", "text", "description", "rationale", "intention"]
# Texts that are read as content, in the order in which the model sees them.
CONTENT_TEXTS: tuple[Input, ...] = ("text", "description", "rationale")


class Intentions(Section):
    """How given intentions are read."""

    max_length: int = Field(default=24, gt=2)
    """Tokens kept of one intention."""
    dropout: float = Field(default=0.5, ge=0, le=1)
    """Chance that a training post loses its intentions, so that absence is learned."""


class Recipe(Section):
    """One system. `name` is the row of the results table."""

    name: str
    """Name of the system."""
    inputs: tuple[Input, ...]
    """What the classifier reads."""
    joined: Literal["no", "separated", "bare"] = "no"
    """Texts stay apart, or become one text, with the tokenizer's separator between or with none."""
    image: ImageTower | None = None
    """Image encoder; null where no input is an image."""
    text: TextTower | None = None
    """Text encoder; null where the image alone is read."""
    fusion: Fusion = Reader()
    intention: Intentions = Intentions()
    reasoning: Reasoning = Reasoning()
    task: Task = Task()
    decision: Decision = Decision()
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
        if (self.inputs != ("image",)) != (self.text is not None):
            raise ValueError("a text tower is given exactly where inputs name a text")
        if self.joined != "no" and self.text is None:
            raise ValueError("joined says how texts become one; name a text among inputs")
        if self.joined != "no" and self.text is not None and self.text.long != "cut":
            raise ValueError("joined texts are shortened evenly; set text.long: cut")
        apart = "intention" in self.inputs and self.joined == "no"
        if apart and not self.fusion.reader:
            raise ValueError(
                "intentions are read by the reader, pooled, or joined with the other texts; "
                "set fusion.reader: true, fusion.kind: pooled or joined: separated"
            )
        self._check_stages()
        return self

    def _check_stages(self) -> None:
        writes = isinstance(self.fusion, Generator)
        if self.task.likelihood and not writes:
            raise ValueError("task.likelihood needs fusion.kind generator, which spells labels")
        teaches = self.reasoning.epochs and self.reasoning.align
        if (teaches or self.task.align) and not self.fusion.slots:
            key = "reasoning.align" if teaches else "task.align"
            raise ValueError(f"{key} teaches the slots; set fusion.slots: true")
        reads = isinstance(self.fusion, Reader) and self.text is not None
        if self.reasoning.epochs and not (writes or reads):
            raise ValueError(
                "a reasoning stage needs fusion.kind reader or generator, and a text tower"
            )
        if isinstance(self.fusion, Reader) and self.fusion.slots and self.text is None:
            raise ValueError("slots guess what the text tower would say; set fusion.slots: false")
        if writes and self.task.retrieval:
            raise ValueError(
                "a generator has no embedding to retrieve by; leave out task.retrieval"
            )

    @property
    def content_texts(self) -> tuple[Input, ...]:
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
