"""Several texts as one: separated by the tokenizer's own mark, or laid together bare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from miko_clf.data.collate import Preparation, collate, text_rows
from miko_clf.data.joined import bare, separated
from miko_clf.data.post import Intention, Post, Rationale
from miko_clf.data.words import Words
from miko_clf.errors import EncoderError, PostError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


def words(*, marks: bool = True) -> Words:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return Words(tokenizer, 0)


def spelt(rows: list[list[int]]) -> list[str]:
    return [" ".join(WORDS[word] for word in row) for row in rows]


def test_texts_are_parted_by_the_mark_that_ends_one() -> None:
    rows = separated([["a b", "c"], ["d"], []], words(), 16)
    assert spelt(rows) == ["[CLS] a b [SEP] c [SEP]", "[CLS] d [SEP]", ""]


def test_a_single_text_is_what_the_tokenizer_makes_of_it() -> None:
    assert separated([["a b c"]], words(), 16) == words().encode(["a b c"], 16)


def test_what_does_not_fit_is_taken_from_the_longest() -> None:
    reader = words()
    rows = separated([["a", "b c d e f", "g h"], ["a", "b", "c"]], reader, 9)
    assert spelt(rows) == ["[CLS] a [SEP] b c [SEP] g h [SEP]", "[CLS] a [SEP] b [SEP] c [SEP]"]
    assert (reader.num_texts, reader.num_cut) == (2, 1)


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), max_size=4),
    st.integers(12, 40),
)
def test_joined_texts_fit_and_lose_nothing_where_there_is_room(
    texts: list[list[str]], longest: int
) -> None:
    parts = [" ".join(letters) for letters in texts]
    (row,) = separated([parts], words(), longest)
    assert len(row) <= longest
    whole = 1 + sum(len(letters) + 1 for letters in texts)
    if texts and whole <= longest:
        assert len(row) == whole
    assert len([word for word in row if word == 3]) == len(texts)


def test_too_many_texts_for_the_length_is_one_line() -> None:
    with pytest.raises(EncoderError, match="max_length 6 leaves no room for 4 texts"):
        separated([["a", "b", "c", "d"]], words(), 6)


def test_a_tokenizer_without_marks_is_refused_and_bare_is_named() -> None:
    with pytest.raises(EncoderError, match="joined: bare"):
        separated([["a"]], words(marks=False), 8)


def test_bare_texts_stand_against_each_other_as_written() -> None:
    assert bare([["a b", "c"]], words(), 16) == words().encode(["a bc"], 16)


POST = Post(
    id="1",
    text="a",
    description="b",
    intentions=(Intention(relation="xWant", text="c"), Intention(relation="Open", text="d")),
)


def preparation(*inputs: str) -> Preparation:
    return Preparation(
        inputs=inputs, joined="separated", image=None, pad_id=0, max_length=16, intention_length=8
    )


def test_a_post_is_joined_from_its_inputs_in_a_fixed_order() -> None:
    rows = text_rows([POST], preparation("intention", "description", "text"), words())
    assert spelt(rows["text"]) == ["[CLS] a [SEP] b [SEP] c [SEP] d [SEP]"]
    arrays = collate([POST], preparation("text", "intention"), words())
    assert set(arrays) == {"text_ids", "text_mask"}


def test_a_rationale_that_saw_the_label_is_not_joined_either() -> None:
    post = POST.model_copy(update={"rationale": Rationale(text="e", saw_label=True)})
    with pytest.raises(PostError, match="knowing the label"):
        text_rows([post], preparation("text", "rationale"), words())
