"""Planted label errors are found among the flagged."""

import numpy as np
import pytest

from miko_clf.evaluate.analysis.label_errors import find_suspect_labels
from tests.support.predictions import make_noisy_scores, make_subject, posts


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
