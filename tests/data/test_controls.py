"""Controls take the meaning of intentions away and nothing else."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miko_clf.data.controls import CONTROLS, Control, apply_control
from miko_clf.data.post import Intention, Post


def posts(count: int, prefix: str = "p") -> list[Post]:
    """Posts of two classes, each with an intention of its own; every fifth has none."""
    return [
        Post(
            id=f"{prefix}{n}",
            text=f"text {n}",
            label="yes" if n % 3 else "no",
            intentions=()
            if n % 5 == 4
            else (Intention(relation="xIntent", text=f"{prefix} wants number {n}"),),
        )
        for n in range(count)
    ]


def texts(found: list[Post]) -> list[tuple[str, ...]]:
    """What the intentions of each post say."""
    return [tuple(one.text for one in post.intentions) for post in found]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_changes_intentions_alone_and_is_the_same_each_time(control: Control) -> None:
    before, train = posts(40), posts(60, "t")
    after = apply_control(before, control, train, seed=3)
    bare = [post.model_copy(update={"intentions": ()}) for post in after]
    assert bare == [post.model_copy(update={"intentions": ()}) for post in before]
    assert after == apply_control(before, control, train, seed=3)
    assert all(not b.intentions for a, b in zip(before, after, strict=True) if not a.intentions)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000))
def test_shuffled_intentions_are_all_there_and_none_is_at_home(count: int, seed: int) -> None:
    before = posts(count)
    after = apply_control(before, "shuffled", (), seed)
    assert Counter(texts(after)) == Counter(texts(before))
    for one, other in zip(before, after, strict=True):
        assert not one.intentions or count < 3 or one.intentions != other.intentions


def test_other_posts_are_of_train_and_say_nothing_of_the_label() -> None:
    before, train = posts(3000), posts(900, "t")
    after = apply_control(before, "other-post", train, seed=0)
    label_of = {post.intentions: post.label for post in train if post.intentions}
    pairs = Counter((post.label, label_of[post.intentions]) for post in after if post.intentions)
    for mine in ("yes", "no"):
        total = pairs[mine, "yes"] + pairs[mine, "no"]
        assert pairs[mine, "yes"] / total == pytest.approx(2 / 3, abs=0.05)


def test_a_training_post_is_not_its_own_other_post() -> None:
    train = posts(50)
    after = apply_control(train, "other-post", train, seed=0)
    assert all(a != b for a, b in zip(texts(train), texts(after), strict=True) if a)


def test_noise_keeps_relations_and_the_number_of_words() -> None:
    before = posts(20)
    after = apply_control(before, "noise", posts(20, "t"), seed=0)
    for a, b in zip(before, after, strict=True):
        assert [one.relation for one in a.intentions] == [one.relation for one in b.intentions]
        counts = [[len(one.text.split()) for one in post.intentions] for post in (a, b)]
        assert counts[0] == counts[1]
    assert texts(before) != texts(after)


def test_empty_leaves_no_intention() -> None:
    assert not any(post.intentions for post in apply_control(posts(20), "empty", (), seed=0))
