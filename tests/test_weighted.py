"""Metrics on many resamples at once are those of each resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miko_clf import metrics
from miko_clf.evaluate import weighted


def rows(num_labels: int, num_rows: int, tied: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, in tenths if tied, and labels that know nothing of them."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(num_labels), num_rows)
    if tied:
        probabilities = np.round(probabilities, 1)
        probabilities[:, 0] = np.clip(1 - probabilities[:, 1:].sum(1), 0, 1)
    return probabilities, random.integers(0, num_labels, num_rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(2, 60), st.booleans(), st.integers(0, 10**6))
def test_each_resample_has_the_metrics_of_its_rows_repeated(
    num_labels: int, num_rows: int, tied: bool, seed: int
) -> None:
    probabilities, truth = rows(num_labels, num_rows, tied, seed)
    positive = 1 if num_labels == 2 else None
    threshold = 0.4 if num_labels == 2 else None
    weights = weighted.draw(num_rows, 4, np.random.default_rng(seed))
    decided = metrics.decide(probabilities, positive=positive, threshold=threshold)
    found = weighted.measure(probabilities, truth, weights, positive=positive, decided=decided)
    for row, values in zip(weights, found, strict=True):
        held = np.repeat(np.arange(num_rows), row)
        expected = metrics.classification(
            probabilities[held], truth[held], positive=positive, threshold=threshold
        )
        np.testing.assert_allclose(values, list(expected.values()), atol=1e-6)


def test_resamples_worked_on_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, truth = rows(2, 50, False, 0)
    weights = weighted.draw(50, 31, np.random.default_rng(0))
    whole = weighted.measure(probabilities, truth, weights, positive=1)
    monkeypatch.setattr(weighted, "_CELLS", 200)
    np.testing.assert_array_equal(
        weighted.measure(probabilities, truth, weights, positive=1), whole
    )


def test_a_resample_is_as_large_as_the_rows() -> None:
    weights = weighted.draw(30, 100, np.random.default_rng(0))
    assert (weights.sum(1) == 30).all()
    assert weights.mean() == 1


def test_a_row_is_ranked_among_those_of_its_stratum() -> None:
    probabilities, truth = rows(2, 90, False, 3)
    strata = np.arange(90) % 3
    whole = np.ones((1, 90), dtype=int)
    (found,) = weighted.measure(
        probabilities, truth, whole, positive=1, strata=strata, names=["auroc"]
    )[:, 0]
    pairs = wins = 0.0
    for stratum in range(3):
        held = strata == stratum
        yes, no = (probabilities[held & (truth == label), 1] for label in (1, 0))
        wins += (yes[:, None] > no).sum() + (yes[:, None] == no).sum() / 2
        pairs += len(yes) * len(no)
    assert found == pytest.approx(wins / pairs)
