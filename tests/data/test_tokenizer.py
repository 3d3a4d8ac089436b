"""Texts: cut, read in windows, joined by the tokenizer's own mark; and what is lost is counted."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from miko_clf.data.post import Intention, Post, Rationale
from miko_clf.data.preprocess import LongMode, Preparation
from miko_clf.data.tokenizer import (
    TextTokenizer,
    encode_texts,
    join_bare,
    join_separated,
    pad_ids,
    read_tokenizer,
)
from miko_clf.data.unicode_folding import DISGUISES
from miko_clf.encode import hf_towers
from miko_clf.encode.tower import TextTower, pool_states
from miko_clf.errors import EncoderError, PostError
from miko_clf.serve.engine import collate_posts
from tests.support import checkpoints

BEFORE, BEHIND = 0, 1
LONG = " ".join(f"w{i}" for i in range(2, 12))  # ids 2 to 11


@pytest.fixture
def words() -> TextTokenizer:
    """A tokenizer of one id a word, with one special token before a text and one behind."""
    names = {"[a]": BEFORE, "[z]": BEHIND, "[u]": 99} | {f"w{i}": i for i in range(2, 40)}
    tokenizer = Tokenizer(models.WordLevel(names, "[u]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[a] $A [z]", special_tokens=[("[a]", BEFORE), ("[z]", BEHIND)]
    )
    return TextTokenizer(tokenizer, 1)


@pytest.mark.parametrize(
    ("long", "max_length", "window", "wanted", "num_cut"),
    [
        ("cut", 7, None, [0, 2, 3, 4, 5, 6, 1], 1),
        ("ends", 7, None, [0, 2, 3, 4, 10, 11, 1], 1),
        ("ends", 3, None, [0, 2, 1], 1),
        ("ends", 12, None, [0, *range(2, 12), 1], 0),
        ("chunk", 18, 6, [0, 2, 3, 4, 5, 1, 0, 6, 7, 8, 9, 1, 0, 10, 11, 1], 0),
        ("chunk", 17, 6, [0, 2, 3, 4, 5, 1, 0, 6, 7, 8, 9, 1], 1),
        ("chunk", 12, 12, [0, *range(2, 12), 1], 0),
        ("chunk", 7, 40, [0, 2, 3, 4, 5, 6, 1], 1),
    ],
)
def test_a_long_text_is_kept_as_asked_and_what_is_lost_is_counted(
    long: LongMode,
    max_length: int,
    window: int | None,
    wanted: list[int],
    num_cut: int,
    words: TextTokenizer,
) -> None:
    assert words.encode([LONG], max_length, long=long, window=window) == [wanted]
    assert (words.num_texts, words.num_cut) == (1, num_cut)


@pytest.mark.parametrize("long", ["cut", "ends", "chunk"])
def test_short_and_absent_texts_are_the_same_under_every_policy(
    long: LongMode, words: TextTokenizer
) -> None:
    rows = words.encode(["w3  w4", None, " ", LONG], 6, long=long)
    assert rows[:3] == [[0, 3, 4, 1], [], []]
    assert len(rows[3]) <= 6
    assert (words.num_texts, words.num_cut) == (2, 1)


def test_the_windows_of_a_long_text_are_read_as_texts_of_their_own(tmp_path: Path) -> None:
    checkpoints.roberta(tmp_path / "roberta")
    tower = hf_towers.load_hf_text_tower(str(tmp_path / "roberta")).eval()
    long = "a burnt cake lovely " * 8
    rows = tower.words.encode([long, "a cake"], 48, long="chunk", window=tower.limit)
    states, mask = run(tower, rows)
    assert states.shape[:2] == (2, len(rows[0])) == (2, 38)
    for start in range(0, 38, tower.limit):
        piece = rows[0][start : start + tower.limit]
        alone, _ = run(tower, [piece])
        assert torch.allclose(states[0, start : start + len(piece)], alone[0], atol=1e-5)
    short, _ = run(tower, [rows[1]])
    assert torch.allclose(states[1, : len(rows[1])], short[0], atol=1e-5)
    assert torch.isfinite(states).all()
    assert torch.equal(pool_states(states, mask, "last")[0], states[0, 37])


def run(tower: TextTower, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, tower.words.pad_id))
    with torch.no_grad():
        return tower(ids, mask), mask


def test_states_are_pooled_by_first_mean_or_last_present_word() -> None:
    states = torch.arange(12.0).reshape(2, 3, 2)
    present = torch.tensor([[False, True, True], [False, False, False]])
    assert pool_states(states, present, "first").tolist() == [[2, 3], [0, 0]]
    assert pool_states(states, present, "mean").tolist() == [[3, 4], [0, 0]]
    assert pool_states(states, present, "last").tolist() == [[4, 5], [0, 0]]


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


def make_marked_words(*, marks: bool = True) -> TextTokenizer:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return TextTokenizer(tokenizer, 0)


def spelt(rows: list[list[int]]) -> list[str]:
    return [" ".join(VOCABULARY[word] for word in row) for row in rows]


def test_texts_are_parted_by_the_mark_that_ends_one() -> None:
    rows = join_separated([["a b", "c"], ["d"], []], make_marked_words(), 16)
    assert spelt(rows) == ["[CLS] a b [SEP] c [SEP]", "[CLS] d [SEP]", ""]


def test_a_single_text_is_what_the_tokenizer_makes_of_it() -> None:
    assert join_separated([["a b c"]], make_marked_words(), 16) == make_marked_words().encode(
        ["a b c"], 16
    )


def test_what_does_not_fit_is_taken_from_the_longest() -> None:
    reader = make_marked_words()
    rows = join_separated([["a", "b c d e f", "g h"], ["a", "b", "c"]], reader, 9)
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
    (row,) = join_separated([parts], make_marked_words(), longest)
    assert len(row) <= longest
    whole = 1 + sum(len(letters) + 1 for letters in texts)
    if texts and whole <= longest:
        assert len(row) == whole
    assert len([word for word in row if word == 3]) == len(texts)


def test_too_many_texts_for_the_length_is_one_line() -> None:
    with pytest.raises(EncoderError, match="max_length 6 leaves no room for 4 texts"):
        join_separated([["a", "b", "c", "d"]], make_marked_words(), 6)


def test_a_tokenizer_without_marks_is_refused_and_bare_is_named() -> None:
    with pytest.raises(EncoderError, match="joined: bare"):
        join_separated([["a"]], make_marked_words(marks=False), 8)


def test_a_mark_before_a_text_is_not_taken_for_the_mark_that_ends_one() -> None:
    words = make_marked_words(marks=False)
    words.tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    with pytest.raises(EncoderError, match="joined: bare"):
        join_separated([["a", "b"]], TextTokenizer(words.tokenizer, 0), 8)


def test_bare_texts_stand_against_each_other_as_written() -> None:
    assert join_bare([["a b", "c"]], make_marked_words(), 16) == make_marked_words().encode(
        ["a bc"], 16
    )


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
    rows = encode_texts(
        [POST], preparation("intention", "description", "text"), make_marked_words()
    )
    assert spelt(rows["text"]) == ["[CLS] a [SEP] b [SEP] c [SEP] d [SEP]"]
    arrays = collate_posts([POST], preparation("text", "intention"), make_marked_words())
    assert set(arrays) == {"text_ids", "text_mask"}


def test_a_rationale_that_saw_the_label_is_not_joined_either() -> None:
    post = POST.model_copy(update={"rationale": Rationale(text="e", saw_label=True)})
    with pytest.raises(PostError, match="knowing the label"):
        encode_texts([post], preparation("text", "rationale"), make_marked_words())


@pytest.mark.parametrize("kind", DISGUISES)
def test_a_tokenizer_that_folds_reads_a_disguised_word_as_the_plain_one(
    kind: str, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[u]": 0, "the": 1, "peace": 2}, "[u]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    TextTokenizer(tokenizer, 0).write(tmp_path / "tokenizer.json")
    post = Post(id="1", text=f"the {DISGUISES[kind]('peace')}")
    for fold, wanted in ((True, [1, 2]), (False, [1, 0])):
        reads = preparation("text").model_copy(update={"fold": fold, "joined": "no"})
        words = read_tokenizer(tmp_path / "tokenizer.json", reads)
        assert words is not None
        assert encode_texts([post], reads, words) == {"text": [wanted]}
        assert join_bare([[str(post.text)]], words, 9) == [wanted]


def test_joined_texts_are_folded_one_by_one() -> None:
    words = make_marked_words()
    words.fold = True
    assert spelt(join_separated([["\u202eb", "a"]], words, 16)) == ["[CLS] b [SEP] a [SEP]"]


def test_a_bundle_from_before_there_was_folding_reads_texts_as_they_are() -> None:
    fields = preparation("text").model_dump(mode="json")
    del fields["fold"]
    assert Preparation.model_validate(fields) == preparation("text")
    assert not Preparation.model_validate(fields).fold
