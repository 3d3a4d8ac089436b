"""A planted bias between groups is found, and none where none is planted."""

import json
from pathlib import Path

import numpy as np
import pytest

from miko_clf.data.post import Post
from miko_clf.evaluate.analysis.fairness import measure_group_fairness
from miko_clf.evaluate.analysis.slices import (
    GroupsError,
    find_group_members,
    find_word_members,
    read_target_groups,
)
from tests.support.predictions import make_biased_answers, make_noisy_scores, make_subject, posts


def test_a_planted_bias_is_found() -> None:
    rows, truth, said = make_biased_answers()
    members = find_word_members(rows, {"cats": ["cat", "kitten"], "animals": ["cat", "dog"]})
    (found,) = measure_group_fairness(
        make_subject(rows, truth, said), members
    )  # everybody is no group
    assert found.group == "cats"
    assert found.false_positive_gap.low > 0
    assert found.false_negative_gap.high < 0
    assert found.bpsn_auroc.high < found.subgroup_auroc.low
    assert found.bpsn_auroc.high < found.bnsp_auroc.low


def test_no_bias_is_found_where_none_was_planted() -> None:
    rows, truth, said = make_biased_answers(shift=0.0)
    (found,) = measure_group_fairness(
        make_subject(rows, truth, said), find_word_members(rows, {"cats": ["cat"]})
    )
    assert found.false_positive_gap.low < 0 < found.false_positive_gap.high
    assert found.false_negative_gap.low < 0 < found.false_negative_gap.high


def test_the_areas_of_a_group_compare_its_posts_with_the_right_others() -> None:
    """Group: negative .6, positive .7. Others: negatives .1 and .65, positives .5 and .9."""
    truth = np.array([0, 1, 0, 0, 1, 1] * 10)
    said = np.tile([0.6, 0.7, 0.1, 0.65, 0.5, 0.9], 10)
    inside = np.tile([True, True, False, False, False, False], 10)
    (found,) = measure_group_fairness(
        make_subject(posts(60), truth, said), {"g": inside}, num_resamples=50
    )
    assert found.subgroup_auroc.value == 1
    assert found.bpsn_auroc.value == pytest.approx(0.5)  # .9 is above .6, .5 is not
    assert found.bnsp_auroc.value == 1
    assert found.false_positive_rate.value == 1
    assert found.false_positive_gap.value == pytest.approx(0.5)
    assert np.isnan(found.subgroup_auroc.low), "no resample differs, so none says anything"


def test_a_group_without_negatives_has_no_false_positive_rate() -> None:
    truth = np.array([1] * 20 + [0, 1] * 20)
    inside = np.arange(60) < 20
    (found,) = measure_group_fairness(
        make_subject(posts(60), truth, make_noisy_scores(truth)), {"g": inside}, num_resamples=50
    )
    assert np.isnan(found.false_positive_rate.value)
    assert np.isnan(found.false_positive_gap.value)
    assert found.false_negative_rate.low <= found.false_negative_rate.value


def test_words_of_a_group_are_whole_words_in_any_case() -> None:
    rows = [Post(id=f"{i}", text=t) for i, t in enumerate(("A CAT!", "concatenate", "cat-like"))]
    assert find_word_members(rows, {"cats": ["cat"]})["cats"].tolist() == [True, False, True]
    assert find_word_members(rows, {"none": [], "blank": [" "]}) == {}


def test_groups_of_people_are_the_targets_of_posts_and_never_what_they_belong_to() -> None:
    rows = [
        Post(id=f"{i}", text="x", group=f"thread {i % 3}", targets=("women", f"club {i % 2}")[:i])
        for i in range(3)
    ]
    members = find_group_members(rows)
    assert {name: inside.tolist() for name, inside in members.items()} == {
        "women": [False, True, True],
        "club 0": [False, False, True],
    }
    assert find_group_members(posts(30, group="one")) == {}


def test_of_many_targets_the_twenty_of_the_most_posts_are_looked_into() -> None:
    rows = [Post(id=f"{i}", text="x", targets=(f"t{i % 30:02}", "all")) for i in range(50)]
    members = find_group_members(rows)
    assert len(members) == 20
    assert members["all"].all()
    assert all(inside.sum() > 1 for inside in members.values())


@pytest.mark.parametrize(
    "text", ["[a, b]", "women: woman", "women: []", "women: [3]", "{", "women: ['']", ""]
)
def test_a_bad_file_of_groups_is_one_line_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(GroupsError, match=r"groups\.yaml.*lists of words") as caught:
        read_target_groups(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_groups_may_be_yaml_or_json(tmp_path: Path) -> None:
    path = tmp_path / "groups"
    for text in ("cats: [cat, kitten]", json.dumps({"cats": ["cat", "kitten"]})):
        path.write_text(text)
        assert read_target_groups(path) == {"cats": ["cat", "kitten"]}
    with pytest.raises(GroupsError, match="cannot be read"):
        read_target_groups(tmp_path / "none")
