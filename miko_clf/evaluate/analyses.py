"""What is found out about one system on one split, beside its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miko_clf.bundle import Bundle
from miko_clf.data.audit.quick import quick
from miko_clf.data.post import Post
from miko_clf.evaluate.asked import Asked
from miko_clf.evaluate.calibration_report import calibration_report
from miko_clf.evaluate.curves import curves
from miko_clf.evaluate.errors.examine import examine
from miko_clf.evaluate.errors.robustness import robustness
from miko_clf.evaluate.explain import explain
from miko_clf.evaluate.predict import Predictor
from miko_clf.evaluate.subject import subject


@dataclass(frozen=True)
class Wanted:
    """What is looked into. `few` leaves everything out but the scores.

    `images` lays small pictures of mistakes into the report, `groups` are lists of words by the
    name of a group. Robustness runs the towers again for each change; attribution needs captum.
    """

    few: bool = False
    images: bool = False
    robustness: bool = False
    attribution: bool = False
    groups: Mapping[str, Sequence[str]] | None = None


def look_into(
    opened: Bundle,
    one: Asked,
    wanted: Wanted,
    *,
    cache: Path | None,
    num_resamples: int,
) -> dict[str, Any]:
    """Return findings by name, of the bundle in its usual arm on the posts that answer a question.

    Empty where any number of labels may hold. Values are plain apart from `Interval`.
    """
    predictor = Predictor(opened, one.posts, cache)
    seen = subject(opened, predictor, one.here, one.train, cache)
    if wanted.few or seen is None:
        return {}
    found = {
        "system": opened.path.name,
        "arm": seen.arm,
        "curves": asdict(curves(seen, num_resamples=num_resamples)),
        "calibration": asdict(calibration_report(seen, num_resamples)),
        **examine(seen, images=wanted.images, groups=wanted.groups),
    }
    places = {post.id: row for row, post in enumerate(seen.posts)}
    rows = [places[each["id"]] for each in found.get("mistakes", [])]
    found |= explain(seen, rows, num_resamples=num_resamples, attribution=wanted.attribution)
    if wanted.robustness:
        changed = robustness(seen, num_resamples=num_resamples)
        found["robustness"] = [asdict(each) for each in changed]
    return found


def audited(train: Sequence[Post], posts: Sequence[Post], split: str) -> dict[str, Any]:
    """Return the lines of the cheap audit of a split beside train."""
    return {
        "lines": quick({"train": train, split: posts} if split != "train" else {"train": train})
    }
