"""What an intention LM is examples: which lessons there are, which are held back."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from miko_clf.data.post import Intention, Post
from miko_clf.distil.relations import make_sentence
from miko_clf.errors import DistilError
from miko_clf.train.intention_lm_data import (
    IGNORED_LABEL,
    CompletionDataset,
    build_completion_examples,
    fingerprint_completion_examples,
    split_completion_examples,
)
from tests.support.taught_posts import COMPLETIONS, make_taught_posts
from tests.support.tiny_llms import tiny_seq2seq


def test_posts_of_one_group_or_of_the_same_words_are_never_parted() -> None:
    posts = make_taught_posts(COMPLETIONS, times=5)
    posts += [post.model_copy(update={"id": f"{post.id}-again"}) for post in posts[::2]]
    tied = [
        post.model_copy(update={"group": f"thread {i % 7}"} if i % 3 == 0 else {})
        for i, post in enumerate(posts)
    ]
    for seed in range(5):
        train, val = split_completion_examples(build_completion_examples(tied), seed)
        assert train
        assert val
        for name in ("post", "text"):
            sides = [{getattr(each.masked, name) for each in side} for side in (train, val)]
            assert not sides[0] & sides[1]
        groups = {post.id: post.group for post in tied if post.group}
        sides = [{groups.get(each.masked.post) for each in side} - {None} for side in (train, val)]
        assert not sides[0] & sides[1]


def test_one_post_is_too_little_to_teach_a_student() -> None:
    with pytest.raises(DistilError, match="of 1 separate posts are too few"):
        split_completion_examples(build_completion_examples(make_taught_posts(COMPLETIONS)[:1]), 0)


def test_lessons_do_not_depend_on_the_order_of_rows_and_leave_out_what_is_not_a_completion() -> (
    None
):
    posts = make_taught_posts(COMPLETIONS)
    odd = Post(
        id="odd",
        text="ask @someone or me@example.org",
        intentions=(
            Intention(relation="xReact", text="After posting this, the author wants to leave."),
            Intention(relation="xReact", text="After posting this Tweet, the user feels proud."),
            Intention(relation="xWant", text=make_sentence("xWant", "go home"), plausibility=0.2),
        ),
    )
    wordless = Post(id="wordless", image=b"", intentions=posts[0].intentions)
    examples = build_completion_examples([odd, wordless, *posts], plausible=0.5)
    assert fingerprint_completion_examples(examples) == fingerprint_completion_examples(
        build_completion_examples([*posts[::-1], odd], plausible=0.5)
    )
    mine = [example for example in examples if example.masked.post == "odd"]
    assert [(example.relation, example.completion) for example in mine] == [("xReact", "proud")]
    assert mine[0].question.endswith(
        "Post: ask <user> or <email>\nAfter posting this, the author feels"
    )


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_only_completions_are_labels_and_a_long_question_keeps_its_end(
    family: str, tmp_path: Path
) -> None:
    words = AutoTokenizer.from_pretrained(tiny_seq2seq(tmp_path), truncation_side="left")
    long = Post(
        id="x",
        text="a very long post " * 50,
        intentions=(Intention(relation="xReact", text=make_sentence("xReact", "relieved")),),
    )
    pages = CompletionDataset(
        build_completion_examples([long]),
        words,
        prompt_tokens=40,
        answer_tokens=20,
        encoder_decoder=family == "seq2seq",
    )
    batch = pages.batch([0])
    labels = [each for each in batch["labels"][0].tolist() if each != IGNORED_LABEL]
    assert words.decode(labels).strip() == "relieved</s>"
    asked = batch["input_ids"][0][:40].tolist()
    assert words.decode(asked).endswith("After posting this, the author feels")
    if family == "causal":
        assert torch.equal(batch["labels"][0][40:], batch["input_ids"][0][40:])
        assert set(batch["labels"][0][:40].tolist()) == {IGNORED_LABEL}
