"""Conformal sets hold the true label of new posts as often as they say."""

import numpy as np

from miko_clf.data.labels import Part
from miko_clf.evaluate.fitting import _fitted
from miko_clf.evaluate.link import linked, within
from miko_clf.questions import choice
from miko_clf.recipe.decision import Decision

ASKED = choice(["no", "yes"])
SEEN, NEW = 40, 1000


def test_sets_beside_an_isotonic_line_hold_the_label_as_often_as_they_say() -> None:
    decision = Decision(calibration="isotonic", conformal=0.9)
    random, covered = np.random.default_rng(0), []
    for _ in range(150):
        truth = (random.random(SEEN + NEW) < 0.35).astype(np.int64)
        logits = random.normal(size=(SEEN + NEW, 2))
        logits[:, 1] = logits[:, 0] + random.normal(2.2 * truth - 1.1)
        part = Part(ASKED.each[0], slice(0, 2), np.arange(SEEN), truth[:SEEN])
        one = _fitted(part, {"without": logits[:SEEN]}, "without", decision)
        assert one.conformal is not None
        held = within(linked(logits[SEEN:], ASKED, [one]), one.conformal.quantiles["without"])
        covered.append(held[np.arange(NEW), truth[SEEN:]].mean())
    assert 0.9 <= np.mean(covered) < 0.94  # 0.893 with a quantile of the line's own rows
