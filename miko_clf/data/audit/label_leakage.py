"""Whether a text that an LLM wrote gives the label away, beyond what the post itself tells."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
from pydantic import computed_field
from sklearn import model_selection
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from miko_clf.data.audit.findings import ClassMentions
from miko_clf.data.labels import flatten_label, list_answers, list_names
from miko_clf.data.post import ClassNames, Post, Record
from miko_clf.data.text import compile_label_pattern
from miko_clf.errors import PostError

_Reader = Callable[[Post], str | None]


def _read_rationale(post: Post) -> str | None:
    """Return a rationale that may be an input: one that saw the label is a target and no more."""
    return None if post.rationale is None or post.rationale.saw_label else post.rationale.text


MENTION_SOURCES: Mapping[str, _Reader] = {
    "description": lambda post: post.description,
    "intentions": lambda post: "\n".join(one.text for one in post.intentions) or None,
    "rationale": _read_rationale,
}


def flag_class_mentions(texts: Sequence[str | None], label: str) -> list[float | None]:
    """Return for each text 1 if it names the class, in any inflection, 0 if not, None if absent."""
    words = compile_label_pattern([_strip_task(label)])
    return [None if text is None else float(bool(words.search(text))) for text in texts]


def count_class_mentions(
    posts: Sequence[Post], classes: Sequence[str]
) -> tuple[ClassMentions, ...]:
    """Return, for each kind of text and each class, how many posts of it name a class."""
    mentions = []
    any_class = compile_label_pattern(map(_strip_task, classes))
    for (source, read), label in product(MENTION_SOURCES.items(), classes):
        members = [post for post in posts if label in flatten_label(post.label)]
        texts = [text for post in members if (text := read(post)) is not None]
        if texts:
            own = sum(filter(None, flag_class_mentions(texts, label))) / len(texts)
            some = sum(bool(any_class.search(text)) for text in texts) / len(texts)
            shares = {"own": round(own, 4), "any": round(some, 4)}
            counted = ClassMentions(source=source, label=label, texts=len(texts), **shares)
            mentions.append(counted)
    return tuple(mentions)


def _strip_task(label: str) -> str:
    """Return the name of a class without its task's."""
    return label.rpartition(": ")[2]


_MAX_F1_GAP = 0.1
"""Macro-F1 that a text may predict the label better than the post before it is suspect."""
_PERFECT_F1 = 0.95
"""Macro-F1 from which a text alone predicts the label nearly perfectly."""
_MAX_PROBED_ROWS = 5_000
_FOLDS = 5
FEWEST_PROBED_ROWS = 20

# By the names of a recipe's inputs; a rationale that saw the label is probed like any other.
_INPUT_READERS: Mapping[str, _Reader] = {
    "description": MENTION_SOURCES["description"],
    "intention": MENTION_SOURCES["intentions"],
    "rationale": lambda post: post.rationale.text if post.rationale else None,
}


class LabelLeak(Record):
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
        return "suspect" if max(self.gap, self.masked_gap) > _MAX_F1_GAP else "no finding"

    @property
    def chance(self) -> float:
        """Macro-F1 of guessing classes as often as they occur, whatever their shares."""
        return 1 / self.classes

    @property
    def flagged(self) -> bool:
        """Whether the text, masked or not, is nearly perfect where the post is not."""
        scores = ((self.text_f1, self.gap), (self.masked_f1, self.masked_gap))
        return any(f1 > _PERFECT_F1 and gap > _MAX_F1_GAP for f1, gap in scores)

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.name}: {self.verdict}; label read off it with macro-F1 {self.text_f1:.3f} "
            f"({self.masked_f1:.3f} with label words masked), off the post {self.post_f1:.3f}; "
            f"{self.explicit:.1%} of {self.rows} name a label"
        )


def probe_leakage(
    texts: Sequence[str],
    labels: Sequence[ClassNames],
    post_texts: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    folds: int = _FOLDS,
    seed: int = 0,
    name: str = "text",
) -> LabelLeak:
    """Return how far texts give their labels away, beside what the texts of the posts tell.

    Rows of one group share a fold, where every class has a group a fold. A label of several
    names counts as one class. Classes with fewer rows than folds are left out; of more than
    5,000 rows a stratified sample is taken. Raises `PostError` where fewer than two classes are
    left.
    """
    y = np.array(_join_names(labels))
    rows = _choose_rows(y, folds, seed)
    if len(set(y[rows])) < 2:
        raise PostError(
            f"{name}: a leak probe needs two classes of at least {folds} rows, "
            f"given {dict(Counter(y.tolist()))}"
        )
    named = compile_label_pattern({name for label in labels for name in list_names(label)})
    probed = [texts[row] for row in rows]
    within = None if groups is None else _choose_groups(np.array(groups)[rows], y[rows], folds)
    score = partial(_score_macro_f1, y=y[rows], groups=within, folds=folds, seed=seed)
    text_f1 = score(probed)
    explicit = sum(bool(named.search(text)) for text in probed) / len(rows)
    masked = [named.sub(" ", text) for text in probed]
    return LabelLeak(
        name=name,
        rows=len(rows),
        classes=len(set(y[rows])),
        text_f1=text_f1,
        masked_f1=score(masked) if explicit else text_f1,
        post_f1=score([post_texts[row] for row in rows]),
        explicit=round(explicit, 4),
    )


def check_input_leakage(
    posts: Sequence[Post], inputs: Collection[str], *, allow: bool
) -> list[LabelLeak]:
    """Return what the texts among the inputs give away of the labels of these posts.

    Description, intention and rationale are probed where at least 20 labelled posts of two
    classes have one, for each task anew where labels are of several. Raises `PostError` for the
    first that is flagged, unless `allow`.
    """
    leaks: list[LabelLeak] = []
    answers = [list_answers(post.label) for post in posts]
    tasks = sorted({task for answer in answers for task in answer})
    for name, task in product((name for name in _INPUT_READERS if name in inputs), tasks):
        texts = [_INPUT_READERS[name](post) or "" for post in posts]
        rows = [row for row, text in enumerate(texts) if task in answers[row] and text.strip()]
        labels = [answers[row][task] for row in rows]
        frequent = [name for name, size in Counter(_join_names(labels)).items() if size >= _FOLDS]
        if len(rows) < FEWEST_PROBED_ROWS or len(frequent) < 2:
            continue
        leak = probe_leakage(
            [texts[row] for row in rows],
            labels,
            [posts[row].text or "" for row in rows],
            groups=[posts[row].group or f"post {posts[row].id}" for row in rows],
            name=f"{name} ({task})" if task else name,
        )
        if leak.flagged and not allow:
            raise PostError(
                f"{leak.line()}; it gives the label away, so results would be void: take {name} "
                "out of the recipe's inputs, have it written anew without the label, or say "
                "--i-know-it-leaks"
            )
        leaks.append(leak)
    return leaks


def _join_names(labels: Sequence[ClassNames]) -> list[str]:
    return ["+".join(sorted(list_names(label))) for label in labels]


def _choose_rows(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the rows to probe: of classes with a row a fold, no more than `_MAX_PROBED_ROWS`."""
    sizes = Counter(y.tolist())
    rows = np.array([row for row, label in enumerate(y) if sizes[label] >= folds], dtype=int)
    if len(rows) <= _MAX_PROBED_ROWS:
        return rows
    sample, _ = model_selection.train_test_split(
        rows, train_size=_MAX_PROBED_ROWS, stratify=y[rows], random_state=seed
    )
    return np.sort(sample)


def _choose_groups(groups: np.ndarray, y: np.ndarray, folds: int) -> np.ndarray | None:
    """Return the groups if folds can be made of them and they say anything, else None."""
    enough = all(len(set(groups[y == label])) >= folds for label in set(y))
    return groups if enough and len(set(groups)) < len(groups) else None


def _score_macro_f1(
    texts: Sequence[str], y: np.ndarray, groups: np.ndarray | None, folds: int, seed: int
) -> float:
    """Return the macro-F1 of guesses for held-out folds; words are weighed over all rows."""
    pattern = r"(?u)\b\w+\b"
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=pattern)
    try:
        features = words.fit_transform(texts)
    except ValueError:  # no word stands in two rows
        features = np.zeros((len(texts), 1))
    plain, grouped = model_selection.StratifiedKFold, model_selection.StratifiedGroupKFold
    split = (plain if groups is None else grouped)(folds, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=1000, class_weight="balanced")
    guesses = model_selection.cross_val_predict(model, features, y, groups=groups, cv=split)
    return round(float(f1_score(y, guesses, average="macro")), 4)
