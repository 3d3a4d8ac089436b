"""A post and what is known of its author's intentions."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
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

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
_DATE_FORMS = "write it as 2021-06-01 or 2021-06-01T12:30:00Z (ISO 8601)"


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


def _is_absent(value: object) -> bool:
    return value in (None, ())


def _read_date(value: object) -> str:
    """Return a date as ISO text; raises ValueError for a number, which has no unit, and the rest.

    Parquet and the datasets library hold dates as such.
    """
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | float):
        raise ValueError(f"date {value!r} is a number without a unit; {_DATE_FORMS}")
    text = value.strip() if isinstance(value, str) else ""
    try:
        if _DAY.match(text):
            datetime.fromisoformat(text)
            return text
    except ValueError:
        pass
    raise ValueError(f"date {value!r:.60} is not a date; {_DATE_FORMS}")


def parse_moment(text: str) -> datetime:
    """Return the moment that ISO text names, in UTC: where it starts if it names a day.

    A time without an offset is taken for UTC. Raises ValueError.
    """
    moment = datetime.fromisoformat(_read_date(text))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Post(Record):
    """An image, a text, or both, with whatever is known of them.

    `image` is a path or the encoded bytes. A `label` that is an object has an answer for each
    task; of a task that is not there nothing is known. `group` is what posts share that belong
    together, such as a thread; `targets` are the groups of people that a post speaks of. `date`
    is ISO 8601, a day or a time. `text_source` is ocr where the text was read off the picture, and
    `text_confidence` says how surely. `id`, and what is named here from `group` on, is no feature.
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
    # Left out of every dump where absent, so that posts without them are written as ever.
    targets: tuple[str, ...] = Field(default=(), exclude_if=_is_absent)
    date: str | None = Field(default=None, exclude_if=_is_absent)
    source: str | None = Field(default=None, exclude_if=_is_absent)
    text_source: Literal["ocr"] | None = Field(default=None, exclude_if=_is_absent)
    text_confidence: float | None = Field(default=None, ge=0, le=1, exclude_if=_is_absent)

    @field_validator("date", mode="before")
    @classmethod
    def _is_iso_date(cls, value: Any) -> Any:
        return None if value is None else _read_date(value)

    @field_validator("targets", mode="before")
    @classmethod
    def _lists_names(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("targets")
    @classmethod
    def _names_each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() for name in names):
            raise ValueError("targets holds a blank name; name the groups that the post speaks of")
        return tuple(dict.fromkeys(names))

    @field_validator("text", "description", "source")
    @classmethod
    def _blank_is_absent(cls, value: str | None) -> str | None:
        return value if value and value.strip() else None

    @model_validator(mode="after")
    def _has_content(self) -> "Post":
        if self.text is None and self.image is None:
            raise ValueError("neither text nor image is given; a post needs at least one")
        return self
