"""All explanations of one system on one split, under the names that a report gives them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from miko_clf.evaluate.explain.attribution import attribute
from miko_clf.evaluate.explain.neighbours import nearest
from miko_clf.evaluate.explain.relations import readings
from miko_clf.evaluate.explain.shapley import share_out
from miko_clf.evaluate.subject import Subject


def explain(
    subject: Subject,
    rows: Sequence[int],
    *,
    num_resamples: int = 1000,
    attribution: bool = False,
) -> dict[str, Any]:
    """Return `shapley`, `relations`, `neighbours` and, if asked for, `attribution`.

    The first two are over all posts; `rows` are the posts whose neighbours, words and patches are
    wanted. A key is absent where the system has nothing of the kind. Values are plain apart from
    `Interval`. Raises `MikoError` where attribution is wanted and captum is not there.
    """
    attributed = attribute(subject, rows) if attribution else None
    found = {
        "shapley": asdict(share_out(subject, num_resamples)),
        "relations": [asdict(each) for each in readings(subject, num_resamples)],
        "neighbours": [asdict(each) for each in nearest(subject, rows)],
        "attribution": asdict(attributed) if attributed else {},
    }
    return {name: value for name, value in found.items() if value}
