"""What a student is: the one question it was taught, and the page that lies beside its weights."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from miko_clf.data.post import Relation
from miko_clf.distil.prompt import prompt
from miko_clf.distil.relations import STEMS
from miko_clf.errors import DistilError

PAGE = "student.json"
PROMPT = "student"


class Student(BaseModel):
    """How a student came about. `prompt`, `data` and `weights` are sha256 in hexadecimal.

    `rank` is that of LoRA, null where all weights were tuned. `loss` is the mean over the tokens
    of completions of posts that were held back. Lengths are in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    base: str
    encoder_decoder: bool
    rank: int | None
    relations: tuple[Relation, ...]
    prompt: str
    prompt_tokens: int
    answer_tokens: int
    data: str
    posts: dict[str, int]
    examples: dict[str, int]
    seed: int
    epoch: int
    loss: float
    weights: str
    versions: dict[str, str]

    @property
    def model(self) -> str:
        """The name under which its answers are kept: another training has another name."""
        return f"{Path(self.base).name}-student-{self.weights[:12]}"


def question(text: str | None, description: str | None, relation: Relation) -> str:
    """Return what a student is asked; its last line is the stem that the answer goes on from."""
    return prompt(PROMPT).ask(text=text, description=description, stem=STEMS[relation])


def read_page(folder: Path) -> Student:
    """Return what is known of a student; raises `DistilError` where the folder holds none."""
    try:
        page = Student.model_validate_json((folder / PAGE).read_text(encoding="utf-8"))
    except OSError:
        raise DistilError(
            f"{folder}: not a student, it holds no {PAGE}; `miko-clf distil student` writes one"
        ) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise DistilError(f"{folder / PAGE}: not readable: {error}") from None
    if page.prompt != prompt(PROMPT).sha256:
        raise DistilError(
            f"{folder}: was taught another question than this program asks; teach it again"
        )
    return page
