"""Whether stated probabilities mean what they say: what chance alone gives, and what is found."""

import numpy as np

from miko_clf import metrics
from miko_clf.evaluate.reliability import compute_calibration_test


def draw(random: np.random.Generator, rows: int, sharper: float) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of two labels and truth; 1 is calibrated, more is overconfident."""
    logit = random.normal(size=rows)
    truth = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    stated = 1 / (1 + np.exp(-sharper * logit))
    return np.stack([1 - stated, stated], axis=1), truth


def test_a_calibrated_model_is_found_wanting_one_time_in_twenty_and_a_bad_one_nearly_always() -> (
    None
):
    random, found = np.random.default_rng(0), {1.0: 0, 2.5: 0}
    for sharper in found:
        for run in range(100):
            found[sharper] += compute_calibration_test(*draw(random, 354, sharper), run).p < 0.05
    assert found[1.0] <= 10  # 5 are expected; 11 and more in 1 of 90 such tests
    assert found[2.5] >= 95


def test_what_chance_gives_is_the_ece_of_posts_that_mean_what_they_say() -> None:
    random = np.random.default_rng(1)
    probabilities, _ = draw(random, 200, 1.0)
    found, each = compute_calibration_test(probabilities, np.zeros(200, dtype=np.int64)), []
    for _ in range(300):
        truth = (random.random(200) < probabilities[:, 1]).astype(np.int64)
        measured = metrics.measure_classification(probabilities, truth, positive=1, names=["ece"])
        each.append(measured["ece"])
    assert abs(found.expected - np.mean(each)) < 0.004
    assert abs(found.limit - np.quantile(each, 0.95)) < 0.01
    assert found.expected > 0.03  # never 0 on a sample, which is why the interval excludes it
