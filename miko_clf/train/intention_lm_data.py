"""What an intention LM learns from: questions about posts, and how their sentences go on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from miko_clf.data.post import Post, Relation
from miko_clf.data.splits import DisjointSets
from miko_clf.distil.local_model import make_intention_question
from miko_clf.distil.relations import has_stem, make_sentence, strip_relation_stem
from miko_clf.distil.request import mask_identities
from miko_clf.errors import DistilError

_VAL_SHARE = 0.1  # share of the examples that validate
_MAX_VAL_EXAMPLES = 10_000  # more would tell little and take long
IGNORED_LABEL = -100  # label of a token that no loss is taken of


class MaskedPost(NamedTuple):
    """The words of a post, and what it may share with posts that must stay on its side."""

    post: str
    text: str | None
    description: str | None
    shares: tuple[str, ...]


class CompletionExample(NamedTuple):
    """One question, and the completion that answers it."""

    masked: MaskedPost
    relation: Relation
    completion: str

    @property
    def question(self) -> str:
        """What the student is asked."""
        return make_intention_question(self.masked.text, self.masked.description, self.relation)


def build_completion_examples(
    posts: Iterable[Post], plausible: float = 0.0
) -> list[CompletionExample]:
    """Return what the posts' intentions teach, each once, in an order that is theirs alone.

    Left out: posts without words, texts that do not go on from their relation's stem, and
    intentions whose plausibility is known and below `plausible`. About 1 kB a post is held.
    """
    examples: set[CompletionExample] = set()
    for post in posts:
        masked = _mask_post(post)
        if masked.text is None and masked.description is None:
            continue
        for relation, text, plausibility in (
            (known.relation, known.text, known.plausibility) for known in post.intentions
        ):
            sentence = make_sentence(relation, text)
            is_plausible = plausibility is None or plausibility >= plausible
            if is_plausible and has_stem(relation, sentence):
                end = strip_relation_stem(relation, sentence).removesuffix(".")
                examples.add(CompletionExample(masked, relation, end))
    return sorted(examples, key=lambda row: (row.masked.post, row.relation, row.completion))


def split_completion_examples(
    examples: Sequence[CompletionExample], seed: int
) -> tuple[list[CompletionExample], list[CompletionExample]]:
    """Return examples to learn from and examples to validate with.

    Posts of one id, of one group, or of the same words are never parted. Raises `DistilError`
    where all belong together.
    """
    posts = list(dict.fromkeys(example.masked for example in examples))
    groups = dict(zip(posts, _group_posts(posts), strict=True))
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    for example in examples:
        group, post = groups[example.masked], example.masked.post
        names[group] = min(names.get(group, post), post)
        sizes[group] = sizes.get(group, 0) + 1
    if len(names) < 2:
        raise DistilError(
            f"{len(examples)} intentions of {len(names)} separate posts are too few to teach a "
            "student and to hold some back; two posts of different words are needed"
        )
    wanted = min(_VAL_SHARE * len(examples), _MAX_VAL_EXAMPLES)
    held: set[int] = set()
    for group in sorted(names, key=lambda group: _hash_name(seed, names[group]))[:-1]:
        if sum(sizes[group] for group in held) >= wanted:
            break
        held.add(group)
    train = [example for example in examples if groups[example.masked] not in held]
    return train, [example for example in examples if groups[example.masked] in held]


def fingerprint_completion_examples(examples: Sequence[CompletionExample]) -> str:
    """Return the sha256 of examples, which does not depend on the order of the posts."""
    hasher = hashlib.sha256()
    for example in examples:
        hasher.update(json.dumps(example).encode())
    return hasher.hexdigest()


class CompletionDataset:
    """Examples as the tensors that a language model learns from; only completions are labels.

    A question is cut at its beginning. A completion that is too long has no end-of-text, so that
    nothing is learned of where it stops.
    """

    def __init__(
        self,
        examples: Sequence[CompletionExample],
        words: Any,
        *,
        prompt_tokens: int,
        answer_tokens: int,
        encoder_decoder: bool,
    ) -> None:
        self.examples = examples
        self.words = words
        self.prompt_tokens, self.answer_tokens = prompt_tokens, answer_tokens
        self.encoder_decoder = encoder_decoder

    def __len__(self) -> int:
        return len(self.examples)

    def length(self, index: int) -> int:
        """Return about how long an example is, in characters."""
        masked = self.examples[index].masked
        return len(masked.text or "") + len(masked.description or "")

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (example, token), padded on the right."""
        examples = [self.examples[index] for index in indices]
        questions = [example.question for example in examples]
        inputs = self.words(questions, truncation=True, max_length=self.prompt_tokens)["input_ids"]
        labels = answers = [self._encode_answer(example.completion) for example in examples]
        if not self.encoder_decoder:
            labels = [[IGNORED_LABEL] * len(a) + b for a, b in zip(inputs, answers, strict=True)]
            inputs = [a + b for a, b in zip(inputs, answers, strict=True)]
        return {
            "input_ids": _pad_rows(inputs, self.words.pad_token_id),
            "attention_mask": _pad_rows([[1] * len(ids) for ids in inputs], 0),
            "labels": _pad_rows(labels, IGNORED_LABEL),
        }

    def _encode_answer(self, text: str) -> list[int]:
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


def _group_posts(posts: Sequence[MaskedPost]) -> list[int]:
    """Return for each the first post that it is tied to, over any chain of what they share."""
    numbers: list[int] = DisjointSets([post.shares for post in posts]).find_all().tolist()
    return numbers


def _hash_name(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
