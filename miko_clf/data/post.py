"""A post and what is known of its author's intentions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Relation = Literal[
    "xNeed", "xIntent", "xAttr", "xReact", "xWant", "xEffect", "oReact", "oWant", "oEffect", "Open"
]
# Nine relations of ATOMIC (Sap et al., AAAI 2019) and the open one that MIKO adds.
RELATIONS: tuple[Relation, ...] = get_args(Relation)

ClassNames = str | tuple[str, ...]
# One class, any number of classes, or either for each of several tasks.
Label = ClassNames | Mapping[str, ClassNames]


class Record(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Intention(Record):
    """One reason for posting, as an LLM wrote it, under one relation."""

    relation: Relation
    text: str = Field(min_length=1)
    plausibility: float | None = Field(default=None, ge=0, le=1)
    typicality: float | None = Field(default=None, ge=0, le=1)
    provenance: Mapping[str, Any] | None = None


class KeyInformation(Record):
    """What MIKO's second stage extracts from the text and the description of the image."""

    concept: str | None = None
    action: str | None = None
    object: str | None = None
    emotion: str | None = None
    keywords: tuple[str, ...] = ()


class Rationale(Record):
    """Why a label holds. `saw_label` text is a training target and never an input."""

    text: str = Field(min_length=1)
    saw_label: bool
    provenance: Mapping[str, Any] | None = None


class Post(Record):
    """An image, a text, or both, with whatever is known of them.

    `image` is a path or the encoded bytes. `id` and `group` are never features. A `label` that is
    an object has an answer for each task; of a task that is not there nothing is known.
    """

    id: str = Field(min_length=1)
    text: str | None = None
    image: Path | bytes | None = None
    label: Label | None = None
    description: str | None = None
    key_information: KeyInformation | None = None
    intentions: tuple[Intention, ...] = ()
    rationale: Rationale | None = None
    group: str | None = None

    @field_validator("text", "description")
    @classmethod
    def _blank_is_absent(cls, value: str | None) -> str | None:
        return value if value and value.strip() else None

    @model_validator(mode="after")
    def _has_content(self) -> "Post":
        if self.text is None and self.image is None:
            raise ValueError("neither text nor image is given; a post needs at least one")
        return self
