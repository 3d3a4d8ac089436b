"""Relations: each has a stem, a meaning and a place; stem and completion join once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.data.post import RELATIONS, Relation
from miko_clf.distil.relations import (
    MIKO_RELATION_ORDER,
    RELATION_MEANINGS,
    RELATION_STEMS,
    has_stem,
    make_sentence,
    strip_relation_stem,
)

PIECES = st.lists(
    st.sampled_from((
        "the", "author", "others", "posts", "this", "because", "is", "will", "feels", "wants",
        "to", "After", "posting", "seeing", ",", "Before", "needs", "intended", "laugh", "a",
        "Proud", "I", "NASA", '"', "“", "”", ".", "!", "…",
    )),
    max_size=14,
).map(" ".join)  # fmt: skip


def test_every_relation_has_a_stem_that_it_knows_a_meaning_and_a_place() -> None:
    assert (
        set(RELATION_STEMS) == set(RELATION_MEANINGS) == set(MIKO_RELATION_ORDER) == set(RELATIONS)
    )
    assert len(MIKO_RELATION_ORDER) == 10
    for relation, stem in RELATION_STEMS.items():
        assert has_stem(relation, f"{stem} laugh.")
        assert strip_relation_stem(relation, f"{stem} laugh.") == "laugh."


@pytest.mark.parametrize(
    ("relation", "said", "whole"),
    [
        ("xWant", "laugh", "After posting this, the author wants to laugh."),
        ("xWant", "To laugh!", "After posting this, the author wants to laugh."),
        ("xWant", "wants to to laugh", "After posting this, the author wants to laugh."),
        ("xWant", "After posting this Tweet, the user wants to laugh.",
         "After posting this, the author wants to laugh."),
        ("xWant", "others to laugh", "After posting this, the author wants others to laugh."),
        ("oEffect", "Others will smile", "After seeing this, others will smile."),
        ("oReact", "- feel amused,", "After seeing this, others feel amused."),
        ("xReact", "“Proud”", "After posting this, the author feels proud."),
        ("xReact", 'stuck on "why"', 'After posting this, the author feels stuck on "why".'),
        ("xAttr", "They are witty", "The author posts this because the author is witty."),
        ("xNeed", "a photo", "Before posting this, the author needs a photo."),
        ("xNeed", "have seen it", "Before posting this, the author needs to have seen it."),
        ("Open", "To share joy", "The author posts this because they want to share joy."),
        ("Open", "Trump won", "The author posts this because Trump won."),
        ("Open", "The user posted this tweet to warn others",
         "The author posts this because they want to warn others."),
        ("xIntent", " ... ", ""),
    ],
)  # fmt: skip
def test_a_stem_and_a_completion_are_joined_once(relation: Relation, said: str, whole: str) -> None:
    assert make_sentence(relation, said) == whole


@given(st.sampled_from(RELATIONS), PIECES)
def test_a_joined_sentence_is_recognised_and_joined_no_further(
    relation: Relation, said: str
) -> None:
    whole = make_sentence(relation, said)
    if has_stem(relation, whole):
        assert make_sentence(relation, whole) == whole
    else:
        assert whole == "" or any(has_stem(other, whole) for other in RELATIONS)


def test_a_sentence_of_another_relation_is_not_dressed_up_as_this_one() -> None:
    stray = "After seeing this, others feel amused."
    assert make_sentence("xWant", stray) == stray
    assert not has_stem("xWant", stray)
