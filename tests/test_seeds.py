"""Several seeds of one system: mean, spread and interval."""

import numpy as np
import pytest

from miko_clf.evaluate.interval import bootstrap
from miko_clf.evaluate.seeds import Scores, difference, over_seeds


def scores(truth: np.ndarray, right: float, seed: int) -> Scores:
    """A seed that is right on about that share of the rows."""
    random = np.random.default_rng(seed)
    said = np.where(random.random(len(truth)) < right, truth, 1 - truth)
    positive = np.where(said == 1, 0.6, 0.4) + 0.3 * (random.random(len(truth)) - 0.5)
    return Scores(np.stack([1 - positive, positive], axis=1), 0.5)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, 200)


def test_seeds_that_agree_have_no_spread_and_the_interval_of_their_rows(truth: np.ndarray) -> None:
    one = scores(truth, 0.8, 1)
    found = over_seeds([one] * 3, truth, positive=1, num_resamples=400)["accuracy"]
    alone = bootstrap(one.probabilities, truth, positive=1, threshold=0.5)["accuracy"]
    assert found.deviation == pytest.approx(0)
    assert found.mean == pytest.approx(alone.value)
    assert found.low == pytest.approx(alone.low, abs=0.02)
    assert found.high == pytest.approx(alone.high, abs=0.02)


def test_mean_and_deviation_are_those_of_the_seeds(truth: np.ndarray) -> None:
    seeds = [scores(truth, right, seed) for seed, right in enumerate((0.7, 0.8, 0.9))]
    found = over_seeds(seeds, truth, positive=1, num_resamples=50)["accuracy"]
    each = [((one.probabilities[:, 1] >= 0.5) == truth).mean() for one in seeds]
    assert found.mean == pytest.approx(np.mean(each))
    assert found.deviation == pytest.approx(np.std(each, ddof=1))
    assert found.low < found.mean < found.high


def test_seeds_that_differ_widen_the_interval(truth: np.ndarray) -> None:
    near = [scores(truth, 0.8, seed) for seed in range(3)]
    far = [scores(truth, right, 7) for right in (0.6, 0.8, 1.0)]
    narrow = over_seeds(near, truth, positive=1, num_resamples=400)["accuracy"]
    wide = over_seeds(far, truth, positive=1, num_resamples=400)["accuracy"]
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_system_does_not_differ_from_itself(truth: np.ndarray) -> None:
    seeds = [scores(truth, 0.8, seed) for seed in range(3)]
    assert difference(seeds, seeds, truth, positive=1, num_resamples=50) == (0, 0, 0, 1, 0)


def test_a_better_system_differs_and_the_sign_says_how(truth: np.ndarray) -> None:
    good = [scores(truth, 0.95, seed) for seed in range(3)]
    bad = [scores(truth, 0.6, seed) for seed in range(3)]
    found = difference(good, bad, truth, positive=1, num_resamples=100)
    back = difference(bad, good, truth, positive=1, num_resamples=100)
    assert 0 < found.low < found.value < found.high
    assert back.value == pytest.approx(-found.value)


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("count", [50, 97, 200])
def test_seeds_that_agree_to_the_last_digit_are_those_of_one(num_seeds: int, count: int) -> None:
    truth = np.random.default_rng(count).integers(0, 2, count)
    one = scores(truth, 0.8, 1)
    many = over_seeds([one] * num_seeds, truth, positive=1, num_resamples=60)
    alone = over_seeds([one], truth, positive=1, num_resamples=60)
    for name, found in many.items():
        assert found.low == pytest.approx(alone[name].low), name
        assert found.high == pytest.approx(alone[name].high), name
