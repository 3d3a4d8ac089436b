"""Errors: worst mistakes, planted bias, planted label errors and planted confounders are found."""

import base64
import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from judged import answers, noisy, of_labels, posts
from pictured import drawn
from PIL import Image

from miko_clf.data.post import Intention, Post
from miko_clf.evaluate.errors import examine as examining
from miko_clf.evaluate.errors.examine import examine
from miko_clf.evaluate.errors.groups import groups
from miko_clf.evaluate.errors.members import (
    GroupsError,
    group_members,
    read_groups,
    word_members,
)
from miko_clf.evaluate.errors.mistakes import mistakes
from miko_clf.evaluate.errors.pairs import pairs
from miko_clf.evaluate.errors.suspects import suspects
from miko_clf.evaluate.interval import Interval


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> bytes:
    file = io.BytesIO()
    drawn(seed, size).save(file, "PNG")
    return file.getvalue()


def test_as_many_false_positives_as_false_negatives_are_shown_the_surest_first() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    said = np.concatenate([np.linspace(0.7, 0.95, 10), np.linspace(0.05, 0.3, 10)])
    found = mistakes(answers(posts(20), truth, said), count=6)
    assert [one.decided for one in found].count("harmful") == 3
    assert {one.id for one in found} == {"p7", "p8", "p9", "p10", "p11", "p12"}
    sure = [one.probability for one in found]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(0.95)


def test_mistakes_of_one_kind_fill_the_places_that_the_other_leaves() -> None:
    truth, said = [0, 0, 0, 1], [0.9, 0.8, 0.7, 0.2]
    found = mistakes(answers(posts(4), truth, said), count=4)
    assert sorted(one.id for one in found) == ["p0", "p1", "p2", "p3"]


def test_a_mistake_says_how_far_past_the_threshold_it_is() -> None:
    (one,) = mistakes(answers(posts(2), [0, 1], [0.45, 0.6], threshold=0.4))
    assert (one.label, one.decided) == ("harmless", "harmful")
    assert one.probability == pytest.approx(0.45)
    assert one.distance == pytest.approx(0.05)


def test_a_mistake_among_many_labels_names_the_label_that_was_decided() -> None:
    said = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    (one,) = mistakes(of_labels(posts(2), [1, 0], said, ("a", "b", "c")))
    assert (one.label, one.decided, one.distance) == ("b", "c", None)


def test_a_mistake_carries_its_intentions_and_a_small_picture_only_when_asked() -> None:
    given = (Intention(relation="xWant", text="to be heard"),)
    wrong = [Post(id="a", image=picture(1, (640, 320)), intentions=given)]
    (plain,) = mistakes(answers(wrong, [1], [0.1]))
    (shown,) = mistakes(answers(wrong, [1], [0.1]), images=True)
    assert plain.image is None
    assert plain.intentions == [{"relation": "xWant", "text": "to be heard"}]
    head, _, content = (shown.image or "").partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (160, 80)


def biased(num_posts: int = 600, shift: float = 2.5) -> tuple[list[Post], np.ndarray, np.ndarray]:
    """Return posts of which those that name a cat are thought harmful more than they are."""
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, num_posts)
    cats = random.random(num_posts) < 0.3
    said = noisy(truth, 2.5)
    logit = np.log(said / (1 - said)) + shift * cats
    rows = [
        Post(id=f"p{i}", text=f"my {'Cat' if cat else 'dog'} sleeps") for i, cat in enumerate(cats)
    ]
    return rows, truth, 1 / (1 + np.exp(-logit))


def test_a_planted_bias_is_found() -> None:
    rows, truth, said = biased()
    members = word_members(rows, {"cats": ["cat", "kitten"], "animals": ["cat", "dog"]})
    (found,) = groups(answers(rows, truth, said), members)  # everybody is no group
    assert found.group == "cats"
    assert found.false_positive_gap.low > 0
    assert found.false_negative_gap.high < 0
    assert found.bpsn_auroc.high < found.subgroup_auroc.low
    assert found.bpsn_auroc.high < found.bnsp_auroc.low


def test_no_bias_is_found_where_none_was_planted() -> None:
    rows, truth, said = biased(shift=0.0)
    (found,) = groups(answers(rows, truth, said), word_members(rows, {"cats": ["cat"]}))
    assert found.false_positive_gap.low < 0 < found.false_positive_gap.high
    assert found.false_negative_gap.low < 0 < found.false_negative_gap.high


def test_the_areas_of_a_group_compare_its_posts_with_the_right_others() -> None:
    """Group: negative .6, positive .7. Others: negatives .1 and .65, positives .5 and .9."""
    truth = np.array([0, 1, 0, 0, 1, 1] * 10)
    said = np.tile([0.6, 0.7, 0.1, 0.65, 0.5, 0.9], 10)
    inside = np.tile([True, True, False, False, False, False], 10)
    (found,) = groups(answers(posts(60), truth, said), {"g": inside}, num_resamples=50)
    assert found.subgroup_auroc.value == 1
    assert found.bpsn_auroc.value == pytest.approx(0.5)  # .9 is above .6, .5 is not
    assert found.bnsp_auroc.value == 1
    assert found.false_positive_rate.value == 1
    assert found.false_positive_gap.value == pytest.approx(0.5)
    assert np.isnan(found.subgroup_auroc.low), "no resample differs, so none says anything"


def test_a_group_without_negatives_has_no_false_positive_rate() -> None:
    truth = np.array([1] * 20 + [0, 1] * 20)
    inside = np.arange(60) < 20
    (found,) = groups(answers(posts(60), truth, noisy(truth)), {"g": inside}, num_resamples=50)
    assert np.isnan(found.false_positive_rate.value)
    assert np.isnan(found.false_positive_gap.value)
    assert found.false_negative_rate.low <= found.false_negative_rate.value


def test_words_of_a_group_are_whole_words_in_any_case() -> None:
    rows = [Post(id=f"{i}", text=t) for i, t in enumerate(("A CAT!", "concatenate", "cat-like"))]
    assert word_members(rows, {"cats": ["cat"]})["cats"].tolist() == [True, False, True]
    assert word_members(rows, {"none": [], "blank": [" "]}) == {}


def test_a_group_that_names_each_picture_is_no_target_group() -> None:
    targets = [Post(id=f"{i}", text="x", group=f"target {i % 3}") for i in range(30)]
    assert sorted(group_members(targets)) == ["target 0", "target 1", "target 2"]
    pictures = [Post(id=f"{i}", text="x", group=f"picture {i}") for i in range(12)]
    assert group_members(pictures) == {}
    assert group_members(posts(5, group="one")) == {}


@pytest.mark.parametrize(
    "text", ["[a, b]", "women: woman", "women: []", "women: [3]", "{", "women: ['']", ""]
)
def test_a_bad_file_of_groups_is_one_line_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(GroupsError, match=r"groups\.yaml.*lists of words") as caught:
        read_groups(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_groups_may_be_yaml_or_json(tmp_path: Path) -> None:
    path = tmp_path / "groups"
    for text in ("cats: [cat, kitten]", json.dumps({"cats": ["cat", "kitten"]})):
        path.write_text(text)
        assert read_groups(path) == {"cats": ["cat", "kitten"]}
    with pytest.raises(GroupsError, match="cannot be read"):
        read_groups(tmp_path / "none")


@pytest.mark.parametrize("seed", range(5))
def test_planted_label_errors_are_found_among_the_flagged(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, 1000)
    said = noisy(truth, 4.0, seed)  # accuracy .977
    planted = random.choice(1000, 50, replace=False)
    given = truth.copy()
    given[planted] ^= 1
    found = suspects(answers(posts(1000), given, said))
    assert len(found) <= 50
    hits = {f"p{row}" for row in planted} & {one.id for one in found}
    assert len(hits) / 50 >= 0.6
    assert [one.quality for one in found] == sorted(one.quality for one in found)
    assert all(one.label != one.likely for one in found)


def test_posts_that_the_system_learned_from_are_never_suspects() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 400)
    said = noisy(truth)
    rows = posts(400)
    found = suspects(answers(rows, truth, said, train=rows[:200]))
    assert found
    assert all(int(one.id[1:]) >= 200 for one in found)
    assert suspects(answers(rows, truth, said, train=rows)) == []


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
    by_text = answers(rows, truth, truth * 0.8 + 0.1)
    by_picture = answers(rows, truth, np.repeat(np.random.default_rng(0).random(40), 2))
    (sees,) = pairs(by_text)
    (blind,) = pairs(by_picture)
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
    (found,) = pairs(answers(rows, [0, 1, 1], [0.1, 0.9, 0.2]))
    assert (found.kind, found.pairs) == ("same text, another image", 2)
    assert found.both_right.value == 0.5


def test_a_word_that_two_posts_share_by_chance_makes_no_pair() -> None:
    rows = [Post(id="a", text="null", image=picture(1)), Post(id="b", text="null", image=b"x")]
    assert pairs(answers(rows, [0, 1], [0.1, 0.9])) == []


def test_examining_gives_every_finding_as_plain_values_with_intervals() -> None:
    rows, truth, said = biased(200)
    found = examine(answers(rows, truth, said), groups={"cats": ["cat"]})
    assert set(found) == {"mistakes", "slices", "groups", "suspects"}
    assert isinstance(found["groups"][0]["bpsn_auroc"], Interval)
    assert isinstance(found["slices"][0]["metrics"]["auroc"], Interval)


def test_without_the_extra_libraries_their_findings_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extras = ("cleanlab", "fairlearn")
    monkeypatch.setattr(examining, "find_spec", lambda n: None if n in extras else find_spec(n))
    rows, truth, said = biased(200)
    found = examine(answers(rows, truth, said), groups={"cats": ["cat"]})
    assert found["not_installed"] == ["cleanlab", "fairlearn"]
    assert not {"groups", "suspects"} & set(found)
