"""Whether a text that an LLM wrote gives the label away, beyond what the post itself tells."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product

import numpy as np
from pydantic import computed_field
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import (
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    train_test_split,
)

from miko_clf.data.label_words import label_words
from miko_clf.data.labels import answers
from miko_clf.data.post import Names, Post, Record
from miko_clf.errors import PostError

GAP = 0.1
"""Macro-F1 that a text may predict the label better than the post before it is suspect."""
PERFECT = 0.95
"""Macro-F1 from which a text alone predicts the label nearly perfectly."""
MOST_ROWS = 5_000
FEWEST_ROWS = 20

_READ: Mapping[str, Callable[[Post], str | None]] = {
    "description": lambda post: post.description,
    "intention": lambda post: "\n".join(one.text for one in post.intentions),
    "rationale": lambda post: post.rationale.text if post.rationale else None,
}


class Leak(Record):
    """How well simple words predict the label: read off a text, and off the post it is about.

    Macro-F1 of TF-IDF of one and two words with logistic regression, over held-out folds;
    `masked_f1` is without the words that name a class, `explicit` the share of rows with one.
    """

    name: str
    rows: int
    classes: int
    text_f1: float
    masked_f1: float
    post_f1: float
    explicit: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gap(self) -> float:
        """What the text predicts better than the post, or than chance, in macro-F1."""
        return round(self.text_f1 - max(self.post_f1, self.chance), 4)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def masked_gap(self) -> float:
        """The same, once the words that name a class are masked."""
        return round(self.masked_f1 - max(self.post_f1, self.chance), 4)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> str:
        """`flagged`, `suspect` or `no finding`; masking never turns a finding into none."""
        if self.flagged:
            return "flagged"
        return "suspect" if max(self.gap, self.masked_gap) > GAP else "no finding"

    @property
    def chance(self) -> float:
        """Macro-F1 of guessing classes as often as they occur, whatever their shares."""
        return 1 / self.classes

    @property
    def flagged(self) -> bool:
        """Whether the text, masked or not, is nearly perfect where the post is not."""
        found = ((self.text_f1, self.gap), (self.masked_f1, self.masked_gap))
        return any(score > PERFECT and gap > GAP for score, gap in found)

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.name}: {self.verdict}; label read off it with macro-F1 {self.text_f1:.3f} "
            f"({self.masked_f1:.3f} with label words masked), off the post {self.post_f1:.3f}; "
            f"{self.explicit:.1%} of {self.rows} name a label"
        )


def probe(
    texts: Sequence[str],
    labels: Sequence[Names],
    post_texts: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    name: str = "text",
) -> Leak:
    """Return how far texts give their labels away, beside what the texts of the posts tell.

    Rows of one group share a fold, where every class has a group a fold. A label of several
    names counts as one class. Classes with fewer rows than folds are left out; of more than
    5,000 rows a stratified sample is taken. Raises `PostError` where fewer than two classes are
    left.
    """
    names = {name for label in labels for name in _names(label)}
    y = np.array(["+".join(sorted(_names(label))) for label in labels])
    rows = _rows(y, folds, seed)
    if len(set(y[rows])) < 2:
        raise PostError(
            f"{name}: a leak probe needs two classes of at least {folds} rows, "
            f"given {dict(Counter(y.tolist()))}"
        )
    named = label_words(names)
    kept = [texts[row] for row in rows]
    within = None if groups is None else _groups(np.array(groups)[rows], y[rows], folds)

    def score(read: Sequence[str]) -> float:
        return _macro_f1(read, y[rows], within, folds, seed)

    text_f1 = score(kept)
    explicit = sum(bool(named.search(text)) for text in kept) / len(rows)
    masked = [named.sub(" ", text) for text in kept]
    return Leak(
        name=name,
        rows=len(rows),
        classes=len(set(y[rows])),
        text_f1=text_f1,
        masked_f1=score(masked) if explicit else text_f1,
        post_f1=score([post_texts[row] for row in rows]),
        explicit=round(explicit, 4),
    )


def check_inputs(posts: Sequence[Post], inputs: Collection[str], *, allow: bool) -> list[Leak]:
    """Return what the texts among the inputs give away of the labels of these posts.

    Description, intention and rationale are probed where at least 20 labelled posts of two
    classes have one, for each task anew where labels are of several. Raises `PostError` for the
    first that is flagged, unless `allow`.
    """
    found: list[Leak] = []
    for name, task in product((name for name in _READ if name in inputs), _tasks(posts)):
        asked = [(post, answers(post.label)) for post in posts]
        told = [(p, each[task], _READ[name](p) or "") for p, each in asked if task in each]
        told = [(post, label, text) for post, label, text in told if text.strip()]
        labels = [label for _, label, _ in told]
        if len(told) < FEWEST_ROWS or not _two_classes(labels):
            continue
        leak = probe(
            [text for _, _, text in told],
            labels,
            [post.text or "" for post, _, _ in told],
            groups=[post.group or f"post {post.id}" for post, _, _ in told],
            name=f"{name} ({task})" if task else name,
        )
        if leak.flagged and not allow:
            raise PostError(
                f"{leak.line()}; it gives the label away, so results would be void: take {name} "
                "out of the recipe's inputs, have it written anew without the label, or say "
                "--i-know-it-leaks"
            )
        found.append(leak)
    return found


def _tasks(posts: Sequence[Post]) -> list[str]:
    """Return the tasks that posts have labels for; one without a name where there is but one."""
    return sorted({task for post in posts for task in answers(post.label)})


def _names(label: Names) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label


def _two_classes(labels: Sequence[Names], folds: int = 5) -> bool:
    sizes = Counter("+".join(sorted(_names(label))) for label in labels)
    return sum(size >= folds for size in sizes.values()) >= 2


def _rows(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the rows to probe: of classes with a row a fold, no more than `MOST_ROWS`."""
    sizes = Counter(y.tolist())
    rows = np.array([row for row, label in enumerate(y) if sizes[label] >= folds], dtype=int)
    if len(rows) <= MOST_ROWS:
        return rows
    sample, _ = train_test_split(rows, train_size=MOST_ROWS, stratify=y[rows], random_state=seed)
    return np.sort(sample)


def _groups(groups: np.ndarray, y: np.ndarray, folds: int) -> np.ndarray | None:
    """Return the groups if folds can be made of them and they say anything, else None."""
    enough = all(len(set(groups[y == label])) >= folds for label in set(y))
    return groups if enough and len(set(groups)) < len(groups) else None


def _macro_f1(
    texts: Sequence[str], y: np.ndarray, groups: np.ndarray | None, folds: int, seed: int
) -> float:
    """Return the macro-F1 of guesses for held-out folds; words are weighed over all rows."""
    words = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        seen = words.fit_transform(texts)
    except ValueError:  # no word stands in two rows
        seen = np.zeros((len(texts), 1))
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    split = kind(folds, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=1000, class_weight="balanced")
    guesses = cross_val_predict(model, seen, y, groups=groups, cv=split)
    return round(float(f1_score(y, guesses, average="macro")), 4)
