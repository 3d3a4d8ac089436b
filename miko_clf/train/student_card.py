"""A student's folder: merged weights, tokenizer, what is known of it, and a page for people."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf import manifest
from miko_clf.data.post import RELATIONS
from miko_clf.distil.prompt import prompt
from miko_clf.distil.student import PAGE, PROMPT, Student
from miko_clf.train.lessons import Lesson

_CARD = """\
# A student of intentions

Writes why an author posted what they posted: given the words of a post and a description of its
picture, it completes one sentence for each of {relations}. Fine-tuned from `{base}` ({how}) on
{examples[train]:,} completions of {posts[train]:,} posts that a larger model wrote.

| | |
| --- | --- |
| loss on {examples[val]:,} completions of {posts[val]:,} posts held back | {loss:.4f} |
| kept epoch | {epoch} |
| seed | {seed} |
| fingerprint of the data | `{data:.16}` |
| sha256 of the weights | `{weights:.16}` |

Use it in the place of a server: `miko-clf distil POSTS --server local:DIR --kb FILE`. The licence
is that of the base model. It repeats its teacher's errors and adds its own, about people it knows
nothing of: what it writes is a guess.
"""


class Taught(NamedTuple):
    """What is known of a student whose training is over; `metrics` is the log of it."""

    base: str
    rank: int | None
    prompt_tokens: int
    answer_tokens: int
    seed: int
    data: str
    train: Sequence[Lesson]
    val: Sequence[Lesson]
    epoch: int
    loss: float
    metrics: Path


def write_student(out: Path, model: Any, words: Any, taught: Taught) -> Student:
    """Write a student whole or not at all, LoRA merged into the weights, and return its page."""
    if taught.rank is not None:
        model = model.merge_and_unload()
    with manifest.aside(out) as folder:
        model.save_pretrained(folder)
        words.save_pretrained(folder)
        if taught.metrics.exists():
            shutil.copy(taught.metrics, folder)
        page = _page(taught, bool(model.config.is_encoder_decoder), _digest(folder))
        (folder / PAGE).write_text(page.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_card(page), encoding="utf-8")
    return page


def _page(taught: Taught, encoder_decoder: bool, weights: str) -> Student:
    parts = {"train": taught.train, "val": taught.val}
    learned = {lesson.relation for lesson in taught.train}
    base = Path(taught.base)
    return Student(
        base=base.resolve().name if base.is_dir() else taught.base,
        encoder_decoder=encoder_decoder,
        rank=taught.rank,
        relations=tuple(name for name in RELATIONS if name in learned),
        prompt=prompt(PROMPT).sha256,
        prompt_tokens=taught.prompt_tokens,
        answer_tokens=taught.answer_tokens,
        data=taught.data,
        posts={name: len({each.told.post for each in part}) for name, part in parts.items()},
        examples={name: len(part) for name, part in parts.items()},
        seed=taught.seed,
        epoch=taught.epoch,
        loss=taught.loss,
        weights=weights,
        versions=manifest.versions(),
    )


def _card(page: Student) -> str:
    how = "all weights" if page.rank is None else f"LoRA of rank {page.rank}, merged"
    values = page.model_dump() | {"relations": ", ".join(page.relations), "how": how}
    return _CARD.format(**values)


def _digest(folder: Path) -> str:
    """Return one sha256 of all files of weights."""
    digests = [manifest.digest(path) for path in sorted(folder.glob("*.safetensors"))]
    assert digests
    return hashlib.sha256("".join(digests).encode()).hexdigest()
