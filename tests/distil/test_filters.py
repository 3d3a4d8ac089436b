"""Stems, refusals, and what is not kept of what an LLM wrote."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.data.post import RELATIONS, Intention, Post, Relation
from miko_clf.data.text import compile_label_pattern
from miko_clf.distil.filters import find_faults, find_text_fault, is_refusal, is_repetitive
from miko_clf.distil.relations import (
    MIKO_RELATION_ORDER,
    RELATION_STEMS,
    has_stem,
    strip_relation_stem,
)
from tests.support.repository import SHARED

POST = Post(
    id="1",
    text="what a perfect day at the beach, so glad we came, see you there",
    description="A torn parasol lies on a grey beach in heavy rain while two people run away.",
)


def intention(relation: Relation, rest: str) -> Intention:
    return Intention(relation=relation, text=f"{RELATION_STEMS[relation]} {rest}.")


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("make fun of the weather", ""),
        ("", "too short"),
        ("what a perfect day at the BEACH so glad we came, see you there", "copy of the post"),
        ("lies on a grey beach in heavy rain while two people run", "copy of the post"),
        ("laugh and laugh and laugh and laugh and laugh and", "repeats itself"),
        ("be sarcastic about the beach", "names the label"),
        ("sound un-sarcastically cheerful", "names the label"),
        ("get a post that is classified as a joke", "names the label"),
        ("hear what PersonX thinks", "PersonX"),
        ("I\u2019m sorry, but I can\u2019t assist with that", "refusal"),
    ],
)
def test_an_intention_is_refused_for_a_named_reason(rest: str, reason: str) -> None:
    assert find_faults([intention("xWant", rest)], POST, ["sarcastic", "not_sarcastic"]) == [reason]


def test_a_sentence_without_its_stem_is_refused() -> None:
    found = find_faults(
        [Intention(relation="xNeed", text="After posting this, the author will go.")], POST
    )
    assert found == ["relation stem missing"]


def test_of_near_duplicates_under_one_relation_the_first_is_kept() -> None:
    given = [
        intention("xWant", "share their opinion of the weather"),
        intention("xWant", "share their opinion of the  Weather!"),
        intention("xWant", "share their opinions of the weather"),
        intention("xWant", "go home"),
        intention("xIntent", "go home"),
    ]
    assert find_faults(given, POST) == ["", "near-duplicate", "near-duplicate", "", ""]


def test_one_text_under_three_relations_is_kept_once() -> None:
    relations: tuple[Relation, ...] = ("xWant", "xIntent", "xEffect")
    three = [intention(relation, "share their opinion") for relation in relations]
    assert find_faults(three[:2], POST) == ["", ""]
    assert find_faults(three, POST) == ["", *["same text in three relations"] * 2]


def test_a_refused_intention_does_not_take_its_twin_along() -> None:
    twins = [intention("xWant", "be sarcastic"), intention("xWant", "be sarcastix")]
    assert find_faults(twins, POST, ["sarcastic"]) == ["names the label", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("harmful", "too short"),
        ("A torn parasol lies on a grey beach in heavy rain while two people run away",
         "copy of the post"),
        ("The words praise what the picture shows to be ruined.", ""),
        ("The words mock the rain, so the label is sarcastic.", ""),
        ("I cannot help with this request.", "refusal"),
        ("He said, he said, he said, he said, he said, he said, he said", "repeats itself"),
    ],
)  # fmt: skip
def test_a_rationale_is_refused_for_a_named_reason(text: str, reason: str) -> None:
    assert find_text_fault(text, POST) == reason


@pytest.mark.parametrize(
    ("labels", "found", "passed"),
    [
        (["harmful", "not_harmful"], "harm harmless harmfully unharmed non-harmful", "harmony"),
        (["hateful", "nonHateful"], "hate hates hating hatred hater", "hat hats that"),
        (["sarcastic"], "sarcasm sarcastically unsarcastic", "sarcophagus"),
        (["misogynous"], "misogyny misogynist misogynistic", "miso"),
        (["ironic"], "irony ironically", "iron ironing"),
        (["very harmful", "other", "0"], "harmful", "very other 0"),
    ],
)
def test_a_class_is_found_in_its_inflections_only(
    labels: list[str], found: str, passed: str
) -> None:
    pattern = compile_label_pattern(labels)
    assert [word for word in found.split() if not pattern.fullmatch(word)] == []
    assert [word for word in passed.split() if pattern.search(word)] == []


def test_a_negation_is_masked_with_the_class_it_negates() -> None:
    assert (
        compile_label_pattern(["harmful"]).sub("", "it isn't very harmful or not harmful")
        == "it  or "
    )


@pytest.mark.parametrize("text", ["ha ha ha ha ha ha", "a b c " * 4, "hahahahahahahahahahahahaha"])
def test_a_loop_is_seen(text: str) -> None:
    assert is_repetitive(text)


@pytest.mark.parametrize("text", ["very very good", "so so so funny", "the cat and the cat"])
def test_emphasis_is_no_loop(text: str) -> None:
    assert not is_repetitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "I can't assist with that.",
        "I\u2019m sorry, but I can\u2019t help with this request.",
        "Sorry, I cannot identify people in images.",
        "As an AI language model, I do not have opinions.",
        "I won't provide descriptions that demean people.",
        "Unable to help with this request.",
        "I apologize, but this is beyond what I may do.",
        "I must respectfully decline.",
        "I'd rather not speculate about this person.",
        "This request violates our content policy.",
        "I'm not comfortable discussing this.",
        "This meme shows a slur. I can't assist with analysing it.",
        "**I'm sorry.**",
        '"We are unable to process this image."',
        "That's not something I can help with.",
    ],
)
def test_an_apology_in_place_of_an_answer_is_a_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the user wants to say they are sorry",
        "After seeing this, others feel sorry for the author.",
        "sorry for the author's bad luck.",
        "apologise for the late reply",
        "The author posts this because they can't help laughing.",
        "I can't help but laugh at this cake.",
        'The screen reads "Sorry, we could not process your request" over a map.',
        "The author, as an AI researcher, wants to show a robot.",
        "others will feel that the content violates decency",
        "I cannot help " + "and so on " * 60,
    ],
)
def test_an_answer_that_speaks_of_apologies_is_none(text: str) -> None:
    assert not is_refusal(text)


@given(
    st.sampled_from(RELATIONS), st.sampled_from(["unable to help", "sorry", "an AI", "won't help"])
)
def test_a_stem_keeps_an_ordinary_intention_from_looking_like_a_refusal(
    relation: Relation, rest: str
) -> None:
    assert not is_refusal(f"{RELATION_STEMS[relation]} {rest}.")


@pytest.fixture(scope="module")
def published() -> list[Post]:
    """The 1,000 posts and 9,981 intentions of MIKO's benchmark."""
    path = SHARED / "data" / "miko" / "MIKO_benchmark.json"
    if not path.is_file():
        pytest.skip("MIKO_benchmark.json is not beside the project (MIKO_SHARED names its folder)")
    return [
        Post(
            id=row["image_name"],
            text=row["text"],
            intentions=tuple(
                Intention(relation=relation, text=row["intentions"][f"Intention {place}"])
                for place, relation in enumerate(MIKO_RELATION_ORDER, 1)
                if row["intentions"].get(f"Intention {place}")
            ),
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.real
def test_published_intentions_are_recognised_kept_and_no_refusals(published: list[Post]) -> None:
    given = [one for post in published for one in post.intentions]
    assert len(given) == 9_981
    assert sum(has_stem(one.relation, one.text) for one in given) / len(given) > 0.999
    assert not [one for one in given if is_refusal(one.text)]
    assert not [one for one in given if is_refusal(strip_relation_stem(one.relation, one.text))]
    kept = [fault == "" for post in published for fault in find_faults(post.intentions, post)]
    assert sum(kept) / len(kept) > 0.999


@pytest.mark.real
def test_no_published_rationale_is_a_refusal_and_nearly_all_name_their_label(
    harm_c: Path,
) -> None:
    texts = list(json.loads((harm_c / "rationales.json").read_text(encoding="utf-8")).values())
    assert not [text for text in texts if is_refusal(text)]
    named = compile_label_pattern(["harmful", "harmless"])
    assert sum(bool(named.search(text)) for text in texts) / len(texts) > 0.99
