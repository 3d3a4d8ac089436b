"""Posts that belong together are the connected components of what joins them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from miko_clf.data.splits import DisjointSets
from tests.support.audited_posts import FEW_EXAMPLES, make_partition


@FEW_EXAMPLES
@given(st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
))  # fmt: skip
def test_joined_things_are_the_connected_components(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    num_things, pairs = drawn
    joined = DisjointSets(num_things)
    for one, other in pairs:
        joined.join(one, other)
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    graph = coo_array((np.ones(len(pairs)), (ones, others)), shape=(num_things, num_things))
    _, expected = connected_components(graph, directed=False)
    assert make_partition(joined.groups()) == make_partition(expected)
