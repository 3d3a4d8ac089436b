"""Posts that belong together are the connected components of what joins them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from miko_clf.data.post import Post
from miko_clf.data.splits import DisjointSets, group_alike_posts
from tests.support.audited_posts import FEW_EXAMPLES, make_partition


@FEW_EXAMPLES
@given(st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
))  # fmt: skip
def test_united_things_are_the_connected_components(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    num_things, pairs = drawn
    groups = DisjointSets([()] * num_things)
    for first, second in pairs:
        groups.union(first, second)
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    graph = coo_array((np.ones(len(pairs)), (firsts, seconds)), shape=(num_things, num_things))
    _, expected = connected_components(graph, directed=False)
    assert make_partition(groups.find_all()) == make_partition(expected)


def test_things_that_share_a_mark_over_any_chain_are_one_group_named_by_its_lowest() -> None:
    groups = DisjointSets([["b"], ["a"], [], ["a", "b"], ["c"]])
    assert groups.find_all().tolist() == [0, 0, 2, 0, 4]


def test_posts_of_one_group_or_the_same_words_stay_on_one_side() -> None:
    posts = [
        Post(id=str(number), text=text, group=group)
        for number, (text, group) in enumerate(
            [("One, two!", "g"), ("one two", "h"), ("three", "h"), ("four", None), ("five", None)]
        )
    ]
    parts = group_alike_posts(posts)
    assert len(set(parts[:3])) == 1
    assert len(set(parts)) == 3
