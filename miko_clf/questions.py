"""What a system answers: one question or several, each with labels of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field


class Question(BaseModel, frozen=True, extra="forbid"):
    """One thing that is asked of every post.

    `name` is empty where nothing else is asked. Of kind `one` exactly one of the labels holds, of
    two the second being the positive class; of kind `many` any number of them hold, or none.
    """

    name: str = ""
    kind: Literal["one", "many"] = "one"
    labels: tuple[str, ...] = Field(min_length=1)

    @property
    def positive(self) -> int | None:
        """Index of the positive class, none where there are more than two or any may hold."""
        return 1 if self.kind == "one" and len(self.labels) == 2 else None

    def line(self) -> str:
        """Say in a few words what is asked."""
        choice = "one of" if self.kind == "one" else "any of"
        return f"{self.name}: {choice} {', '.join(self.labels)}".removeprefix(": ")


@dataclass(frozen=True)
class Questions:
    """All that a system answers, in order. Logits lie end to end, one a label."""

    each: tuple[Question, ...]

    def __iter__(self) -> Iterator[Question]:
        return iter(self.each)

    def __len__(self) -> int:
        return len(self.each)

    @property
    def plain(self) -> bool:
        """Whether there is one question alone, and one of its labels holds."""
        return len(self.each) == 1 and self.each[0].kind == "one"

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each logit: its label, behind that of the question where there are several."""
        return tuple(
            f"{question.name}: {label}" if len(self.each) > 1 else label
            for question in self.each
            for label in question.labels
        )

    def spans(self) -> list[tuple[Question, slice]]:
        """Return each question with the place of its logits among all."""
        spans, start = [], 0
        for question in self.each:
            spans.append((question, slice(start, start + len(question.labels))))
            start += len(question.labels)
        return spans

    def to_json(self) -> Any:
        """Return what `from_json` reads: of one nameless choice the list of its labels."""
        if self.plain and not self.each[0].name:
            return list(self.each[0].labels)
        return {"questions": [question.model_dump(mode="json") for question in self.each]}

    @classmethod
    def from_json(cls, value: Any) -> "Questions":
        """Return the questions that `to_json` wrote; raises `TypeError` or a validation error."""
        if isinstance(value, list):
            return make_single_choice(value)
        if not isinstance(value, Mapping) or not isinstance(value.get("questions"), list):
            raise TypeError("labels are a list, or an object with a list of questions")
        return cls(tuple(Question.model_validate(row) for row in value["questions"]))


def make_single_choice(labels: Sequence[str]) -> Questions:
    """Return the one question of which of these labels holds."""
    return Questions((Question(labels=tuple(labels)),))
