"""Worst mistakes, planted label errors and confounders are found, and told as plain values."""

import base64
import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from miko_clf.data.post import Intention, Post
from miko_clf.evaluate.analysis import mistakes
from miko_clf.evaluate.analysis.mistakes import (
    analyse_errors,
    find_mistakes,
    find_suspect_labels,
    measure_confounder_pairs,
)
from miko_clf.intervals import Interval
from tests.support.audited_posts import draw_picture
from tests.support.predictions import (
    make_biased_answers,
    make_noisy_scores,
    make_subject,
    make_subject_of_labels,
    posts,
)


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> bytes:
    file = io.BytesIO()
    draw_picture(seed, size).save(file, "PNG")
    return file.getvalue()


def test_as_many_false_positives_as_false_negatives_are_shown_the_surest_first() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    said = np.concatenate([np.linspace(0.7, 0.95, 10), np.linspace(0.05, 0.3, 10)])
    found = find_mistakes(make_subject(posts(20), truth, said), count=6)
    assert [one.decided for one in found].count("harmful") == 3
    assert {one.id for one in found} == {"p7", "p8", "p9", "p10", "p11", "p12"}
    sure = [one.probability for one in found]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(0.95)


def test_mistakes_of_one_kind_fill_the_places_that_the_other_leaves() -> None:
    truth, said = [0, 0, 0, 1], [0.9, 0.8, 0.7, 0.2]
    found = find_mistakes(make_subject(posts(4), truth, said), count=4)
    assert sorted(one.id for one in found) == ["p0", "p1", "p2", "p3"]


def test_a_mistake_says_how_far_past_the_threshold_it_is() -> None:
    (one,) = find_mistakes(make_subject(posts(2), [0, 1], [0.45, 0.6], threshold=0.4))
    assert (one.label, one.decided) == ("harmless", "harmful")
    assert one.probability == pytest.approx(0.45)
    assert one.distance == pytest.approx(0.05)


def test_a_mistake_among_many_labels_names_the_label_that_was_decided() -> None:
    said = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    (one,) = find_mistakes(make_subject_of_labels(posts(2), [1, 0], said, ("a", "b", "c")))
    assert (one.label, one.decided, one.distance) == ("b", "c", None)


def test_a_mistake_carries_its_intentions_and_a_small_picture_only_when_asked() -> None:
    given = (Intention(relation="xWant", text="to be heard"),)
    wrong = [Post(id="a", image=picture(1, (640, 320)), intentions=given)]
    (plain,) = find_mistakes(make_subject(wrong, [1], [0.1]))
    (shown,) = find_mistakes(make_subject(wrong, [1], [0.1]), images=True)
    assert plain.image is None
    assert plain.intentions == [{"relation": "xWant", "text": "to be heard"}]
    head, _, content = (shown.image or "").partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (160, 80)


def confounded(num_pictures: int = 40) -> tuple[list[Post], np.ndarray]:
    """Return two posts of each picture, another text and another label each, and their likes."""
    rows, truth = [], []
    for i in range(num_pictures):
        for label, text in enumerate(("what a fine day", "what a vile day")):
            rows.append(Post(id=f"{i}-{label}", text=f"{text} {i}", image=picture(i)))
            truth.append(label)
    return rows, np.array(truth)


def test_planted_confounders_are_found_and_a_reader_of_the_picture_alone_is_told() -> None:
    rows, truth = confounded()
    by_text = make_subject(rows, truth, truth * 0.8 + 0.1)
    by_picture = make_subject(rows, truth, np.repeat(np.random.default_rng(0).random(40), 2))
    (sees,) = measure_confounder_pairs(by_text)
    (blind,) = measure_confounder_pairs(by_picture)
    assert (sees.kind, sees.pairs) == ("same image, another text", 40)
    assert sees.both_right.value == 1
    assert sees.both_right.low == pytest.approx(40 / (40 + 1.96**2), abs=1e-4)
    assert (blind.both_right.value, blind.pairs) == (0, 40)
    assert blind.both_right.high < 0.1


def test_pairs_that_share_a_text_are_found_whatever_its_case() -> None:
    rows = [
        Post(id="a", text="Look at this!", image=picture(1)),
        Post(id="b", text="look at this", image=picture(2)),
        Post(id="c", text="look at this", image=picture(2)),  # the same post once more
    ]
    (found,) = measure_confounder_pairs(make_subject(rows, [0, 1, 1], [0.1, 0.9, 0.2]))
    assert (found.kind, found.pairs) == ("same text, another image", 2)
    assert found.both_right.value == 0.5


def test_a_word_that_two_posts_share_by_chance_makes_no_pair() -> None:
    rows = [Post(id="a", text="null", image=picture(1)), Post(id="b", text="null", image=b"x")]
    assert measure_confounder_pairs(make_subject(rows, [0, 1], [0.1, 0.9])) == []


def test_examining_gives_every_finding_as_plain_values_with_intervals() -> None:
    rows, truth, said = make_biased_answers(200)
    found = analyse_errors(make_subject(rows, truth, said), groups={"cats": ["cat"]})
    assert set(found) == {"mistakes", "slices", "groups", "suspects"}
    assert isinstance(found["groups"][0]["bpsn_auroc"], Interval)
    assert isinstance(found["slices"][0]["metrics"]["auroc"], Interval)


def test_without_the_extra_libraries_their_findings_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extras = ("cleanlab", "fairlearn")
    monkeypatch.setattr(mistakes, "find_spec", lambda n: None if n in extras else find_spec(n))
    rows, truth, said = make_biased_answers(200)
    found = analyse_errors(make_subject(rows, truth, said), groups={"cats": ["cat"]})
    assert found["not_installed"] == ["cleanlab", "fairlearn"]
    assert not {"groups", "suspects"} & set(found)


@pytest.mark.parametrize("seed", range(5))
def test_planted_label_errors_are_found_among_the_flagged(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, 1000)
    said = make_noisy_scores(truth, 4.0, seed)  # accuracy .977
    planted = random.choice(1000, 50, replace=False)
    given = truth.copy()
    given[planted] ^= 1
    found = find_suspect_labels(make_subject(posts(1000), given, said))
    assert len(found) <= 50
    hits = {f"p{row}" for row in planted} & {one.id for one in found}
    assert len(hits) / 50 >= 0.6
    assert [one.quality for one in found] == sorted(one.quality for one in found)
    assert all(one.label != one.likely for one in found)


def test_posts_that_the_system_learned_from_are_never_suspects() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 400)
    said = make_noisy_scores(truth)
    rows = posts(400)
    found = find_suspect_labels(make_subject(rows, truth, said, train=rows[:200]))
    assert found
    assert all(int(one.id[1:]) >= 200 for one in found)
    assert find_suspect_labels(make_subject(rows, truth, said, train=rows)) == []
