"""The parts of an audit: likeness of texts and pictures, areas, look-ups."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictured import drawn, words
from PIL import Image, ImageEnhance
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score

from miko_clf.data.audit import pictures, texts
from miko_clf.data.audit.area import area
from miko_clf.data.audit.glance import MARKS, named, normal
from miko_clf.data.audit.joined import Joined
from miko_clf.data.audit.lookup import look_up
from miko_clf.data.audit.naming import named_in
from miko_clf.data.audit.nearby import nearby

SMALL = settings(max_examples=40, deadline=None)


def partition(groups: np.ndarray) -> set[frozenset[int]]:
    """Return the groups as sets of places."""
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in set(groups.tolist())}


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    """Return the bytes of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@SMALL
@given(st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
))  # fmt: skip
def test_joined_things_are_the_connected_components(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    num_things, pairs = drawn
    joined = Joined(num_things)
    for one, other in pairs:
        joined.join(one, other)
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    graph = coo_array((np.ones(len(pairs)), (ones, others)), shape=(num_things, num_things))
    _, expected = connected_components(graph, directed=False)
    assert partition(joined.groups()) == partition(expected)


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
    assert normal(one) == normal(other) != ""


def test_emoji_are_kept_and_an_absent_text_is_empty() -> None:
    assert normal("😂!") == "😂"
    assert normal(None) == normal("?!") == ""


def test_a_text_with_one_word_changed_is_near_and_another_text_is_not() -> None:
    text = words(1, 30)
    groups = texts.near([normal(each) for each in (text, text[:-6] + "zzzzzz", words(2, 30))])
    assert partition(groups) == {frozenset({0, 1}), frozenset({2})}


def test_texts_under_the_stated_likeness_are_never_joined() -> None:
    start = words(3, 10)
    nearly = [normal(f"{start} {words(seed, 6)}") for seed in range(40)]
    likeness = texts.jaccard(texts.shingles(nearly[0]), texts.shingles(nearly[1]))
    assert 0.4 < likeness < texts.JACCARD
    assert len(set(texts.near(nearly).tolist())) == 40


@SMALL
@given(st.lists(st.sampled_from("abc"), max_size=30).map("".join), st.text("abc", max_size=30))
def test_the_likeness_of_texts_is_the_same_from_both_sides(one: str, other: str) -> None:
    left, right = texts.shingles(one), texts.shingles(other)
    assert texts.jaccard(left, right) == texts.jaccard(right, left)
    assert texts.jaccard(left, left) == 1


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_near_texts_are_a_partition_that_no_order_changes(
    seeds: list[int], chance: random.Random
) -> None:
    given_texts = [normal(words(seed // 2, 30) + "x" * (seed % 2)) for seed in seeds]
    order = list(range(len(seeds)))
    chance.shuffle(order)
    straight = partition(texts.near(given_texts))
    shuffled = partition(texts.near([given_texts[place] for place in order]))
    assert sorted(row for group in straight for row in group) == list(range(len(seeds)))
    assert straight == {frozenset(order[row] for row in group) for group in shuffled}
    assert straight == {
        frozenset(row for row, each in enumerate(seeds) if each // 2 == kind)
        for kind in {seed // 2 for seed in seeds}
    }


def test_a_picture_saved_anew_shrunk_or_brightened_is_near_and_others_are_not() -> None:
    image = drawn(1, (400, 300))
    looks = [
        pictures.look(each)
        for each in (
            encoded(image),
            encoded(image, "JPEG", quality=40),
            encoded(image.resize((200, 150))),
            encoded(ImageEnhance.Contrast(image).enhance(0.8)),
            *(encoded(drawn(seed, (400, 300))) for seed in range(2, 30)),
        )
    ]
    groups = partition(pictures.near(looks))
    assert frozenset(range(4)) in groups
    assert len(groups) == 29


def test_equal_pixels_are_found_through_another_format_and_near_ones_are_not_equal() -> None:
    image = drawn(5)
    sources = [
        encoded(image),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "JPEG", quality=90),
    ]
    looks = [pictures.look(source) for source in sources]
    groups = pictures.near(looks)
    found = pictures.equal(sources, looks, groups)
    assert len(set(groups.tolist())) == 1
    assert found[0] == found[1] != found[2]
    assert len({each.digest for each in looks}) == 3


def test_pictures_of_one_colour_are_equal_only_by_their_pixels() -> None:
    plain = [Image.new("RGB", (40, 40), colour) for colour in ("black", "navy", "navy")]
    sources = [encoded(each) for each in plain[:2]] + [encoded(plain[2], "WEBP", lossless=True)]
    looks = [pictures.look(source) for source in sources]
    groups = pictures.near(looks)
    found = pictures.equal(sources, looks, groups)
    assert len(set(groups.tolist())) == 3
    assert found[0] != found[1] == found[2]


@SMALL
@given(st.lists(st.integers(0, 5), min_size=60, max_size=90), st.integers(20, 40))
def test_the_area_is_that_of_scikit_learn_and_turns_with_the_sign(
    values: list[int], ones: int
) -> None:
    numbers = np.array(values, dtype=np.float64)
    inside = np.arange(len(numbers)) < ones
    found, turned = area(numbers, inside), area(-numbers, inside)
    assert found
    assert turned
    assert found.value == pytest.approx(roc_auc_score(inside, numbers))
    assert found.low <= found.value <= found.high
    assert found.either_way() == pytest.approx(turned.either_way())


def test_the_interval_of_an_area_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    inside = np.arange(200) < 80
    truth = 0.7602  # of two normal distributions one standard deviation apart: Phi(1 / sqrt 2)
    held = 0
    for _ in range(400):
        found = area(chance.normal(size=200) + inside, inside)
        held += bool(found and found.low <= truth <= found.high)
    assert 0.91 < held / 400 < 0.98


def test_too_few_rows_of_a_class_and_unknown_numbers_have_no_area() -> None:
    assert area(np.arange(100.0), np.arange(100) < 19) is None
    numbers = np.where(np.arange(100) < 81, np.nan, 1.0)
    assert area(numbers, np.arange(100) % 2 == 0) is None


def test_runs_of_numbers_are_found_by_neighbours_where_the_area_sees_nothing() -> None:
    numbers = np.arange(1000.0)
    inside = (np.arange(1000) // 50) % 2 == 0
    ids = [str(number) for number in range(1000)]
    plain, voted = area(numbers, inside), nearby(numbers, inside, ids)
    assert plain
    assert voted
    assert plain.either_way().value < 0.6
    assert voted.value > 0.9
    mixed = nearby(numbers, np.random.default_rng(0).random(1000) < 0.4, ids)
    assert mixed
    assert mixed.low < 0.5 < mixed.high


def test_a_look_up_scores_what_answering_trains_label_scores() -> None:
    known = [("a", "bad"), ("b", "good"), ("c", "good"), ("c", "bad"), ("d", "good"), (None, "bad")]
    known += [(f"x{row}", "good") for row in range(4)]
    asked = [("a", "bad"), ("b", "bad"), ("c", "good"), ("z", "good"), (None, "bad")]
    found = look_up("text", "test", known, asked)
    assert found
    assert (found.rows, found.found, found.right) == (5, 3, 2)
    assert (found.accuracy, found.majority) == (0.6, 0.4)
    assert found.gain == pytest.approx(0.2)
    assert not found.leak


def test_a_look_up_is_a_leak_where_its_gain_is_beyond_chance() -> None:
    known = [(row, "bad" if row % 2 else "good") for row in range(100)]
    asked = [(row, "bad" if row % 2 else "good") for row in range(50, 150)]
    flipped = [(row, "good" if row % 2 else "bad") for row in range(50, 150)]
    assert (found := look_up("text", "test", known, asked))
    assert found.leak
    assert (found := look_up("text", "test", known, flipped))
    assert not found.leak
    assert look_up("text", "test", known, []) is None


@SMALL
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab")), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab")), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_a_look_up_does_not_depend_on_the_order_of_posts(
    known: list[tuple[int, str]], asked: list[tuple[int, str]], chance: random.Random
) -> None:
    found = look_up("text", "test", known, asked)
    shuffled = chance.sample(known, len(known)), chance.sample(asked, len(asked))
    assert found == look_up("text", "test", *shuffled)


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
    assert [name for name, pattern in MARKS.items() if pattern.search(text)] == [mark]


def test_plain_words_hold_no_mark() -> None:
    assert not any(p.search("me@home is no. 5, she said: wwwow") for p in MARKS.values())


def test_a_class_is_named_in_any_inflection() -> None:
    said = ["it is harmless", "a harmony of colours", None, "they label it"]
    assert named_in(said, "harmful") == [1.0, 0.0, None, 0.0]


def test_several_labels_count_as_one_name_in_any_order() -> None:
    assert named(("b", "a")) == named(("a", "b")) == "a + b"
    assert named(()) == "(none)"
    assert named(None) is None
