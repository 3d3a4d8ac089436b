"""What an intention LM learns from: questions about posts, and how their sentences go on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from miko_clf.data.post import Post, Relation
from miko_clf.distil.local_model import make_intention_question
from miko_clf.distil.relations import has_stem, make_sentence, strip_relation_stem
from miko_clf.distil.request import mask_identities
from miko_clf.errors import DistilError

_VAL_SHARE = 0.1  # share of the lessons that validate
_MAX_VAL_EXAMPLES = 10_000  # lessons; more would tell little and take long
IGNORED_LABEL = -100  # label of a token that no loss is taken of


class MaskedPost(NamedTuple):
    """The words of a post, and what it may share with posts that must stay on its side."""

    post: str
    text: str | None
    description: str | None
    shares: tuple[str, ...]


class CompletionExample(NamedTuple):
    """One question, and the completion that answers it."""

    told: MaskedPost
    relation: Relation
    completion: str

    @property
    def question(self) -> str:
        """What the student is asked."""
        return make_intention_question(self.told.text, self.told.description, self.relation)


def build_completion_examples(
    posts: Iterable[Post], plausible: float = 0.0
) -> list[CompletionExample]:
    """Return what the posts' intentions teach, each once, in an order that is theirs alone.

    Left out: posts without words, texts that do not go on from their relation's stem, and
    intentions whose plausibility is known and below `plausible`. About 1 kB a post is held.
    """
    found: set[CompletionExample] = set()
    for post in posts:
        told = _mask_post(post)
        if told.text is None and told.description is None:
            continue
        for one in post.intentions:
            if one.plausibility is not None and one.plausibility < plausible:
                continue
            whole = make_sentence(one.relation, one.text)
            if has_stem(one.relation, whole):
                end = strip_relation_stem(one.relation, whole).removesuffix(".")
                found.add(CompletionExample(told, one.relation, end))
    return sorted(found, key=lambda lesson: (lesson.told.post, lesson.relation, lesson.completion))


def split_completion_examples(
    taught: Sequence[CompletionExample], seed: int
) -> tuple[list[CompletionExample], list[CompletionExample]]:
    """Return lessons to learn from and lessons to validate with.

    Posts of one id, of one group, or of the same words are never parted. Raises `DistilError`
    where all belong together.
    """
    every = list(dict.fromkeys(lesson.told for lesson in taught))
    groups = dict(zip(every, _group_posts(every), strict=True))
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    for lesson in taught:
        group = groups[lesson.told]
        names[group] = min(names.get(group, lesson.told.post), lesson.told.post)
        sizes[group] = sizes.get(group, 0) + 1
    if len(names) < 2:
        raise DistilError(
            f"{len(taught)} intentions of {len(names)} separate posts are too few to teach a "
            "student and to hold some back; two posts of different words are needed"
        )
    wanted = min(_VAL_SHARE * len(taught), _MAX_VAL_EXAMPLES)
    held: set[int] = set()
    for group in sorted(names, key=lambda group: _hash_name(seed, names[group]))[:-1]:
        if sum(sizes[each] for each in held) >= wanted:
            break
        held.add(group)
    learned = [lesson for lesson in taught if groups[lesson.told] not in held]
    return learned, [lesson for lesson in taught if groups[lesson.told] in held]


def fingerprint_completion_examples(taught: Sequence[CompletionExample]) -> str:
    """Return the sha256 of lessons, which does not depend on the order of the rows."""
    whole = hashlib.sha256()
    for lesson in taught:
        whole.update(json.dumps(lesson).encode())
    return whole.hexdigest()


class CompletionDataset:
    """Lessons as the tensors that a language model learns from; only completions are labels.

    A question is cut at its beginning. A completion that is too long has no end-of-text, so that
    nothing is learned of where it stops.
    """

    def __init__(
        self,
        taught: Sequence[CompletionExample],
        words: Any,
        *,
        prompt_tokens: int,
        answer_tokens: int,
        encoder_decoder: bool,
    ) -> None:
        self.taught = taught
        self.words = words
        self.prompt_tokens, self.answer_tokens = prompt_tokens, answer_tokens
        self.encoder_decoder = encoder_decoder

    def __len__(self) -> int:
        return len(self.taught)

    def length(self, index: int) -> int:
        """Return about how long a lesson is, in characters."""
        told = self.taught[index].told
        return len(told.text or "") + len(told.description or "")

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (lesson, token), padded on the right."""
        chosen = [self.taught[index] for index in indices]
        asked = self.words(
            [lesson.question for lesson in chosen],
            truncation=True,
            max_length=self.prompt_tokens,
        )["input_ids"]
        answers = [self._answer(lesson.completion) for lesson in chosen]
        labels = answers
        if not self.encoder_decoder:
            labels = [[IGNORED_LABEL] * len(a) + b for a, b in zip(asked, answers, strict=True)]
            asked = [a + b for a, b in zip(asked, answers, strict=True)]
        return {
            "input_ids": _pad_rows(asked, self.words.pad_token_id),
            "attention_mask": _pad_rows([[1] * len(ids) for ids in asked], 0),
            "labels": _pad_rows(labels, IGNORED_LABEL),
        }

    def _answer(self, text: str) -> list[int]:
        end = self.words.eos_token_id
        if self.encoder_decoder:  # with whatever its tokenizer begins a text with
            ids = list(self.words(text_target=text)["input_ids"])
        else:
            ids = list(self.words(f" {text}", add_special_tokens=False)["input_ids"])
        return [*(ids[:-1] if ids[-1:] == [end] else ids), end][: self.answer_tokens]


def _mask_post(post: Post) -> MaskedPost:
    text = mask_identities(post.text) if post.text else None
    words = " ".join(f"{text or ''} {post.description or ''}".casefold().split())
    shares = [f"id {post.id}", f"words {hashlib.sha256(words.encode()).hexdigest()}"]
    if post.group is not None:
        shares.append(f"group {post.group}")
    return MaskedPost(post.id, text, post.description, tuple(shares))


def _group_posts(every: Sequence[MaskedPost]) -> list[int]:
    """Return for each the number of those that it is tied to, over any chain of what they share."""
    first: dict[str, int] = {}
    pairs = [(i, first.setdefault(name, i)) for i, told in enumerate(every) for name in told.shares]
    ties = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(ties), dtype=np.int8)
    graph = coo_array((ones, (ties[:, 0], ties[:, 1])), shape=(len(every), len(every)))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers


def _hash_name(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
