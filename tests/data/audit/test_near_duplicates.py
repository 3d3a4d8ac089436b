"""Near duplicates: likeness of texts and of pictures, joined whatever their order."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from miko_clf.data.audit import near_duplicates
from miko_clf.data.text import normalise_text
from tests.support.audited_posts import FEW_EXAMPLES, draw_picture, make_partition, make_words


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    """Return the bytes of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def test_a_text_with_one_word_changed_is_near_and_another_text_is_not() -> None:
    text = make_words(1, 30)
    groups = near_duplicates.group_near_texts(
        [normalise_text(each) for each in (text, text[:-6] + "zzzzzz", make_words(2, 30))]
    )
    assert make_partition(groups) == {frozenset({0, 1}), frozenset({2})}


def test_texts_under_the_stated_likeness_are_never_joined() -> None:
    start = make_words(3, 10)
    nearly = [normalise_text(f"{start} {make_words(seed, 6)}") for seed in range(40)]
    likeness = near_duplicates.measure_jaccard(
        near_duplicates.cut_shingles(nearly[0]), near_duplicates.cut_shingles(nearly[1])
    )
    assert 0.4 < likeness < near_duplicates.MIN_JACCARD
    assert len(set(near_duplicates.group_near_texts(nearly).tolist())) == 40


@FEW_EXAMPLES
@given(st.lists(st.sampled_from("abc"), max_size=30).map("".join), st.text("abc", max_size=30))
def test_the_likeness_of_texts_is_the_same_from_both_sides(one: str, other: str) -> None:
    left, right = near_duplicates.cut_shingles(one), near_duplicates.cut_shingles(other)
    assert near_duplicates.measure_jaccard(left, right) == near_duplicates.measure_jaccard(
        right, left
    )
    assert near_duplicates.measure_jaccard(left, left) == 1


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_near_texts_are_a_partition_that_no_order_changes(
    seeds: list[int], chance: random.Random
) -> None:
    given_texts = [normalise_text(make_words(seed // 2, 30) + "x" * (seed % 2)) for seed in seeds]
    order = list(range(len(seeds)))
    chance.shuffle(order)
    straight = make_partition(near_duplicates.group_near_texts(given_texts))
    shuffled = make_partition(
        near_duplicates.group_near_texts([given_texts[place] for place in order])
    )
    assert sorted(row for group in straight for row in group) == list(range(len(seeds)))
    assert straight == {frozenset(order[row] for row in group) for group in shuffled}
    assert straight == {
        frozenset(row for row, each in enumerate(seeds) if each // 2 == kind)
        for kind in {seed // 2 for seed in seeds}
    }


def test_a_picture_saved_anew_shrunk_or_brightened_is_near_and_others_are_not() -> None:
    image = draw_picture(1, (400, 300))
    looks = [
        near_duplicates.fingerprint_image(each)
        for each in (
            encoded(image),
            encoded(image, "JPEG", quality=40),
            encoded(image.resize((200, 150))),
            encoded(ImageEnhance.Contrast(image).enhance(0.8)),
            *(encoded(draw_picture(seed, (400, 300))) for seed in range(2, 30)),
        )
    ]
    groups = make_partition(near_duplicates.group_near_images(looks))
    assert frozenset(range(4)) in groups
    assert len(groups) == 29


def test_equal_pixels_are_found_through_another_format_and_near_ones_are_not_equal() -> None:
    image = draw_picture(5)
    sources = [
        encoded(image),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "JPEG", quality=90),
    ]
    looks = [near_duplicates.fingerprint_image(source) for source in sources]
    groups = near_duplicates.group_near_images(looks)
    found = near_duplicates.digest_pixels(sources, looks, groups)
    assert len(set(groups.tolist())) == 1
    assert found[0] == found[1] != found[2]
    assert len({each.digest for each in looks}) == 3


def test_pictures_of_one_colour_are_equal_only_by_their_pixels() -> None:
    plain = [Image.new("RGB", (40, 40), colour) for colour in ("black", "navy", "navy")]
    sources = [encoded(each) for each in plain[:2]] + [encoded(plain[2], "WEBP", lossless=True)]
    looks = [near_duplicates.fingerprint_image(source) for source in sources]
    groups = near_duplicates.group_near_images(looks)
    found = near_duplicates.digest_pixels(sources, looks, groups)
    assert len(set(groups.tolist())) == 3
    assert found[0] != found[1] == found[2]
