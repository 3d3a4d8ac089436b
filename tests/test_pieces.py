"""Pieces of words: put together again, whatever marks the tokenizer writes."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from miko_clf.evaluate.explain.pieces import Merger


def wordpiece() -> Tokenizer:
    names = ["[UNK]", "[CLS]", "[SEP]", "trump", "em", "##bed", "##ding", "a", "##s"]
    ids = {name: place for place, name in enumerate(names)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return made


def byte_level() -> Tokenizer:
    pieces = ["caf", "Ã", "©", "Ġ", "Ġa", "Ġco", "zy"]
    ids = {name: place for place, name in enumerate(pieces)}
    made = Tokenizer(models.BPE(ids, []))
    made.decoder = decoders.ByteLevel()
    return made


def marked(*pieces: str) -> Tokenizer:
    return Tokenizer(models.BPE({name: place for place, name in enumerate(pieces)}, []))


def test_continued_pieces_join_the_word_they_continue() -> None:
    made = wordpiece()
    ids = made.encode("embedding trumps a").ids
    words = Merger(made).words(ids, np.arange(len(ids), dtype=float))
    assert words == [("[CLS]", 0), ("embedding", 6), ("trumps", 9), ("a", 6), ("[SEP]", 7)]


def test_words_of_several_bytes_a_letter_are_readable() -> None:
    words = Merger(byte_level()).words([0, 1, 2, 4, 5, 6], np.ones(6))
    assert words == [("café", 3), ("a", 1), ("cozy", 2)]


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (("▁so", "ft", "▁tea"), [("soft", 3.0), ("tea", 4.0)]),
        (("so", "ft</w>", "tea</w>"), [("soft", 3.0), ("tea", 4.0)]),
    ],
)
def test_marks_of_where_words_begin_or_end_are_taken_off(
    pieces: tuple[str, ...], wanted: list[tuple[str, float]]
) -> None:
    assert Merger(marked(*pieces)).words([0, 1, 2], np.array([1.0, 2.0, 4.0])) == wanted


def test_a_text_without_pieces_has_no_words() -> None:
    assert Merger(wordpiece()).words([], np.zeros(0)) == []
