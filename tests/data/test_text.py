"""Texts made alike by case and punctuation, and the marks that stand in them."""

import pytest

from miko_clf.data.text import TEXT_MARKS, normalise_text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Stay at HOME!", "stay, at home"),
        ("ﬁne\u00a0day", "fine day"),
        ("a_b", "a b"),
        ("\u201cso\u201d \u2014 it goes\u2026", "so it goes"),
    ],
)
def test_case_punctuation_and_white_space_do_not_make_texts_different(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other) != ""


def test_emoji_are_kept_and_an_absent_text_is_empty() -> None:
    assert normalise_text("😂!") == "😂"
    assert normalise_text(None) == normalise_text("?!") == ""


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("hashtag", "so #true"),
        ("hashtag", "so # true"),
        ("emoji", "so 😂"),
        ("emoji", "so emoji_15"),
        ("@user", "hi @you"),
        ("@user", "hi <user> !"),
        ("URL", "see https://a.example"),
        ("URL", "see <url>"),
    ],
)
def test_marks_are_known_as_people_and_as_data_sets_write_them(mark: str, text: str) -> None:
    assert [name for name, pattern in TEXT_MARKS.items() if pattern.search(text)] == [mark]


def test_plain_words_hold_no_mark() -> None:
    assert not any(p.search("me@home is no. 5, she said: wwwow") for p in TEXT_MARKS.values())
