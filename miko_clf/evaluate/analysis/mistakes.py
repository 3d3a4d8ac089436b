"""The surest mistakes, suspect labels, confounder pairs: all that is said of a system's errors."""

import base64
import io
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from miko_clf.data.post import Post
from miko_clf.data.preprocess import decode_image, digest_image
from miko_clf.data.splits import group_rows
from miko_clf.data.text import normalise_text
from miko_clf.evaluate.analysis.estimates import NUM_RESAMPLES, bound_clustered_share
from miko_clf.evaluate.analysis.fairness import measure_group_fairness
from miko_clf.evaluate.analysis.slices import (
    GroupWords,
    find_group_members,
    find_word_members,
    has_enough_posts,
    measure_slices,
)
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval, draw_resamples

_PairFamily = list[tuple[int, int]]
_PAIR_KINDS = ("same image, another text", "same text, another image")
_NUM_MISTAKES = 24
_MAX_SUSPECT_SHARE = 0.05  # of the posts that are shown to a person
_THUMBNAIL_SIDE = 160
_JPEG_QUALITY = 70


@dataclass(frozen=True)
class Mistake:
    """One post that was decided wrongly.

    `probability` is that of the wrong label; `distance` is how far the probability of the positive
    class lies from the threshold, where there is one. `image` is a small JPEG as a data URI.
    """

    id: str
    text: str | None
    description: str | None
    label: str
    decided: str
    probability: float
    distance: float | None
    intentions: list[dict[str, str]]
    image: str | None


def find_mistakes(
    predictions: SystemPredictions, *, count: int = _NUM_MISTAKES, images: bool = False
) -> list[Mistake]:
    """Return the `count` worst mistakes, the most probable first.

    Every label that was wrongly decided for has an equal share of them, as far as it has as many.
    """
    sure = predictions.probabilities[np.arange(len(predictions.posts)), predictions.decided]
    order = np.argsort(-sure, kind="stable")
    wrong = order[predictions.decided[order] != predictions.truth[order]]
    decided = predictions.decided[wrong]
    kinds = [wrong[decided == label] for label in np.unique(decided)]
    turns = [int(row) for turn in zip_longest(*kinds) for row in turn if row is not None]
    rows = sorted(turns[:count], key=lambda row: -sure[row])
    return [_describe_mistake(predictions, row, images) for row in rows]


def _make_thumbnail(image: Path | bytes) -> str:
    """Return a picture as the data URI of a JPEG of at most 160 pixels a side."""
    small = decode_image(image, at_least=(_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _describe_mistake(predictions: SystemPredictions, row: int, images: bool) -> Mistake:
    post, decided = predictions.posts[row], int(predictions.decided[row])
    labels, positive = predictions.question.labels, predictions.question.positive
    distance = None
    if positive is not None:
        limit = 0.5 if predictions.threshold is None else predictions.threshold
        distance = abs(float(predictions.probabilities[row, positive]) - limit)
    return Mistake(
        id=post.id,
        text=post.text,
        description=post.description,
        label=labels[int(predictions.truth[row])],
        decided=labels[decided],
        probability=float(predictions.probabilities[row, decided]),
        distance=distance,
        intentions=[{"relation": one.relation, "text": one.text} for one in post.intentions],
        image=_make_thumbnail(post.image) if images and post.image is not None else None,
    )


@dataclass(frozen=True)
class SuspectLabel:
    """A post whose label is doubtful: `likely` is the more probable one.

    `quality` is the probability of the label it has. `issue` says that confident learning too,
    which knows how sure the system is of each class on average, holds the label for wrong.
    """

    id: str
    text: str | None
    label: str
    likely: str
    quality: float
    issue: bool


def find_suspect_labels(
    predictions: SystemPredictions, *, share: float = _MAX_SUSPECT_SHARE
) -> list[SuspectLabel]:
    """Return the posts of least label quality, the worst first: at most a share of them.

    By confident learning (Northcutt et al., 2021; cleanlab, an extra that takes seconds to load).
    Probabilities must be of posts that the system did not learn from, so posts of the training
    split are passed over. A post on which it agrees with the label is no suspect.
    """
    find_label_issues = import_module("cleanlab.filter").find_label_issues
    get_label_quality_scores = import_module("cleanlab.rank").get_label_quality_scores
    learned = {post.id for post in predictions.train}
    rows = np.array([i for i, post in enumerate(predictions.posts) if post.id not in learned])
    if not len(rows):
        return []
    stated, labels = predictions.probabilities[rows], predictions.truth[rows]
    stated = stated / stated.sum(1, keepdims=True)
    quality = get_label_quality_scores(labels, stated)
    # without a row of every class no class's usual confidence is known
    has_every_class = len(np.unique(labels)) == stated.shape[1]
    issues = find_label_issues(labels, stated, n_jobs=1) if has_every_class else None
    worst = np.argsort(quality, kind="stable")[: math.ceil(share * len(rows))]
    names = predictions.question.labels
    return [
        SuspectLabel(
            id=predictions.posts[rows[at]].id,
            text=predictions.posts[rows[at]].text,
            label=names[labels[at]],
            likely=names[stated[at].argmax()],
            quality=float(quality[at]),
            issue=issues is not None and bool(issues[at]),
        )
        for at in worst
        if stated[at].argmax() != labels[at]
    ]


@dataclass(frozen=True)
class ConfounderPairs:
    """On how many pairs a system is right about both posts: none if it reads what they share."""

    kind: str
    pairs: int
    both_right: Interval


def measure_confounder_pairs(
    predictions: SystemPredictions, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[ConfounderPairs]:
    """Return each kind of pair that there is (Kiela et al., NeurIPS 2020).

    Images are the same where their bytes are, texts where they are without punctuation, case and
    white space; a text of one word is shared by chance. The interval is over resamples of the
    shared images, or texts: pairs that share one are drawn together. It is Wilson's over these
    where all pairs are right, or none.
    """
    right = predictions.decided == predictions.truth
    kinds, by_kind = [], find_confounder_pairs(predictions.posts, predictions.truth)
    for kind, families in zip(_PAIR_KINDS, by_kind, strict=True):
        if not families:
            continue
        both = np.array([sum(right[a] and right[b] for a, b in family) for family in families])
        counts = np.array([len(family) for family in families])
        weights = draw_resamples(len(families), num_resamples, seed)
        interval = bound_clustered_share(both, counts, weights, len(families))
        kinds.append(ConfounderPairs(kind, int(counts.sum()), interval))
    return kinds


def find_confounder_pairs(
    posts: Sequence[Post], truth: np.ndarray
) -> tuple[list[_PairFamily], list[_PairFamily]]:
    """Return the pairs of row numbers by what they share: of each image, and of each text."""
    images = [None if post.image is None else digest_image(post.image) for post in posts]
    texts = [normalise_text(p.text) if len((p.text or "").split()) > 1 else None for p in posts]
    return _pair_by_shared_part(images, texts, truth), _pair_by_shared_part(texts, images, truth)


def _pair_by_shared_part(
    shared: Sequence[Hashable], other: Sequence[Hashable], truth: np.ndarray
) -> list[_PairFamily]:
    families = [
        [(a, b) for a, b in combinations(rows, 2) if other[a] != other[b] and truth[a] != truth[b]]
        for rows in group_rows(shared)
    ]
    return [family for family in families if family]


def analyse_errors(
    predictions: SystemPredictions, *, images: bool = False, groups: GroupWords | None = None
) -> dict[str, Any]:
    """Return findings by name; intervals are `Interval`, and what finds nothing is left out.

    `mistakes`, `slices` with `slices_left_out`, `groups` of the posts' own or of the word lists
    given, `groups_left_out` with how many posts these have, `suspects` and `pairs`. Groups need
    fairlearn and suspects cleanlab, which are an extra: where one is not installed its finding is
    left out and it stands in `not_installed`.
    """
    slices, num_left_out = measure_slices(predictions)
    members = find_group_members(predictions.posts)
    if groups is not None:
        members |= find_word_members(predictions.posts, groups)
    findings = {
        "mistakes": _list_plain(find_mistakes(predictions, images=images)),
        "slices": _list_plain(slices),
        "slices_left_out": num_left_out,
        "pairs": _list_plain(measure_confounder_pairs(predictions)),
        "groups_left_out": {
            name: int(own.sum()) for name, own in members.items() if not has_enough_posts(own)
        },
    }
    libraries = ["cleanlab", "fairlearn"] if members else ["cleanlab"]
    findings["not_installed"] = absent = [name for name in libraries if not find_spec(name)]
    if "cleanlab" not in absent:
        findings["suspects"] = _list_plain(find_suspect_labels(predictions))
    if members and "fairlearn" not in absent:
        findings["groups"] = _list_plain(measure_group_fairness(predictions, members))
    return {name: value for name, value in findings.items() if value}


def _list_plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
