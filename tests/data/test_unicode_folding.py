"""Disguises are undone whatever they are made of, and texts that are none stay byte by byte."""
# ruff: noqa: RUF001

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.data.unicode_folding import DISGUISES, fold_disguises
from tests.support.audited_posts import FEW_EXAMPLES

RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ"
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهويةىءآأؤئ\u064b\u064e\u0651\u200c\u200f"
HINDI = "अआइईउऊएऐओऔकखगघचछजझटठडढतथदधनपफबभमयरलवशषसहक़ज़ड़ि\u094d\u093e\u0902\u200d\u200c"
EMOJI = [
    "👩‍❤️‍👨",
    "👨‍👩‍👧",
    "🏳️‍🌈",
    "🇩🇪",
    "🇺🇦",
    "👍🏽",
    "1️⃣",
    "❤️",
    "😂",
    "🏴\U000e0067\U000e0062\U000e007f",
]
PLAIN = {"Russian": RUSSIAN, "Greek": GREEK, "Arabic": ARABIC, "Hindi": HINDI}


def make_texts(letters: str) -> st.SearchStrategy[str]:
    """Return texts of words of these letters, some in capitals, and emoji."""
    words = st.text(letters, min_size=1, max_size=9)
    parts = st.one_of(words, words.map(str.capitalize), st.sampled_from(EMOJI))
    return st.lists(parts, min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize("letters", PLAIN.values(), ids=PLAIN)
@FEW_EXAMPLES
@given(st.data())
def test_texts_of_one_script_and_emoji_stay_byte_by_byte(letters: str, data: st.DataObject) -> None:
    text = data.draw(make_texts(letters))
    assert fold_disguises(text) == text


@FEW_EXAMPLES
@given(st.text(string.printable + "éüßçñøıœÅž", max_size=60))
def test_latin_texts_with_accents_stay_byte_by_byte(text: str) -> None:
    assert fold_disguises(text) == text


@pytest.mark.parametrize("kind", DISGUISES)
@FEW_EXAMPLES
@given(st.lists(st.text(string.ascii_letters, min_size=3, max_size=9), min_size=1, max_size=6),
       st.data())  # fmt: skip
def test_every_disguise_of_words_is_undone(
    kind: str, words: list[str], data: st.DataObject
) -> None:
    hidden = [DISGUISES[kind](word) if data.draw(st.booleans()) else word for word in words]
    text = " ".join(["the", *hidden])
    assert fold_disguises(text) == " ".join(["the", *words])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ｋｉｌｌ", "kill"),
        ("k\u200bi\u200bl\u2060l them\u200b", "kill them"),
        ("kіll", "kill"),  # a Cyrillic i
        ("ΚΙLL", "KILL"),  # two Greek capitals
        ("k\u0336i\u0336l\u0336l\u0336 \u0336", "kill "),
        ("\u202ellik\u202c them", "kill them"),
        ("𝓀𝒾𝓁𝓁 𝐊𝐈𝐋𝐋 𝕜𝟙𝕝𝕝", "kill KILL k1ll"),
        ("ⓚⓘⓛⓛ ᵏⁱˡˡ ᴋɪʟʟ", "kill kill kill"),
        ("🅺🅸🅻🅻", "kill"),
        ("k\u0300\u0301\u0302\u0303ill", "kill"),
        ("k\u200bі\u0336ｌl", "kill"),  # all at once
        ("we hate сосоа and such", "we hate cocoa and such"),  # a word of Cyrillic alone
    ],
)
def test_a_disguise_is_read_as_what_it_stands_for(text: str, plain: str) -> None:
    assert fold_disguises(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "Москва is the capital, сор is litter",  # one word has letters of no Latin look
        "оса",  # a wasp, in a text without Latin words
        "5 μm, 20 °C, m², 1º, 4ᵗʰ, ½, ™",
        "α-helix, β = 3, Δx ≠ 0",
        "iPhone'ом, 3Dшный, USBшник",
        "می‌خواهم \u200fabc שלום",
        "a\u0301 Việt Nam, tiê\u0301ng",
        "東京ＮＨＫテレビ！".replace("ＮＨＫ", "NHK"),
        "naïve café 👩‍🚀 yes",
    ],
)
def test_what_is_no_disguise_stays(text: str) -> None:
    assert fold_disguises(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [("мaма мыла раму", "мама мыла раму"), ("сaр и роза", "сар и роза")],  # with a Latin a
)
def test_a_latin_letter_in_a_word_of_another_script_becomes_one_of_that(
    text: str, plain: str
) -> None:
    assert fold_disguises(text) == plain
