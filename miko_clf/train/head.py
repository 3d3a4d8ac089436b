"""A calibrated logistic head over what was seen and over the words that were read."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from miko_clf.encode.evidence import SURFACE
from miko_clf.errors import DistilError

Floats = NDArray[np.float32]
Split = tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]
FURTHEST = 5.0  # standard deviations; a post unlike any in training must not decide alone
SURFACE_GAIN = 2.0  # few columns beside many: their weights are held back that much less
STEPS = 2000
FEW = 200  # texts; among more, a term that stands in one alone is left out


class View(NamedTuple):
    """Rows as the two members see them; either side may be absent, not both."""

    seen: Floats | None
    texts: Sequence[str] | None

    def take(self, rows: Iterable[int]) -> "View":
        """Return some of the rows."""
        rows = list(rows)
        seen = self.seen[rows] if self.seen is not None else None
        return View(seen, [self.texts[row] for row in rows] if self.texts is not None else None)


class Marks(NamedTuple):
    """Outcomes of 0 and 1, one a piece of a row, and what each piece counts."""

    rows: Int[np.ndarray, " piece"]
    truth: Int[np.ndarray, " piece"]
    weight: Float[np.ndarray, " piece"]

    def within(self, rows: Int[np.ndarray, " row"]) -> "Marks":
        """Return the pieces of some rows, numbered as these are."""
        place = np.full(int(max(self.rows.max(), rows.max())) + 1, -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.rows] >= 0
        return Marks(place[self.rows[kept]], self.truth[kept], self.weight[kept])


def marks(valid: Float[np.ndarray, " row"], weight: Float[np.ndarray, " row"]) -> Marks:
    """Return a piece for each outcome; a share between 0 and 1 becomes one of either."""
    rows = np.tile(np.arange(len(valid)), 2)
    truth = np.repeat([1, 0], len(valid))
    counts = np.concatenate([valid, 1 - valid]) * np.tile(weight, 2)
    kept = counts > 0
    return Marks(rows[kept], truth[kept], counts[kept])


class Seen:
    """A logistic regression on standardised columns."""

    strengths = (3e-5, 1e-4, 3e-4)

    def __init__(self, mean: Floats, scale: Floats, weight: Floats, bias: float) -> None:
        self.mean, self.scale, self.weight, self.bias = mean, scale, weight, bias

    @classmethod
    def fit(cls, view: View, marks: Marks, strength: float) -> "Seen":
        """Return the regression; `strength` is the inverse of the regularisation."""
        assert view.seen is not None
        spread = view.seen.std(0)
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
        mean = view.seen.mean(0)
        model = _regression(_standard(view.seen, mean, scale)[marks.rows], marks, strength)
        return cls(mean, scale, model.coef_[0].astype(np.float32), float(model.intercept_[0]))

    def logits(self, view: View) -> Float[np.ndarray, " row"]:
        """Return the log-odds of every row."""
        assert view.seen is not None
        result: NDArray[np.float64] = (
            _standard(view.seen, self.mean, self.scale) @ self.weight + self.bias
        ).astype(np.float64)
        return result

    def parts(self) -> dict[str, Any]:
        """Return what the constructor takes, by name."""
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}


class Read:
    """A logistic regression on TF-IDF of words and word pairs."""

    strengths = (0.1, 0.3, 1.0)

    def __init__(self, terms: Sequence[str], idf: Floats, weight: Floats, bias: float) -> None:
        self.terms, self.idf, self.weight, self.bias = list(terms), idf, weight, bias
        self._vectoriser = _tfidf(vocabulary=self.terms)
        self._vectoriser.idf_ = idf.astype(np.float64)

    @classmethod
    def fit(cls, view: View, marks: Marks, strength: float) -> "Read":
        """Return the regression; `strength` is the inverse of the regularisation."""
        assert view.texts is not None
        vectoriser = _tfidf(min_df=2 if len(view.texts) >= FEW else 1)
        columns = vectoriser.fit_transform(view.texts)
        model = _regression(columns[marks.rows], marks, strength)
        return cls(
            vectoriser.get_feature_names_out().tolist(),
            vectoriser.idf_.astype(np.float32),
            model.coef_[0].astype(np.float32),
            float(model.intercept_[0]),
        )

    def logits(self, view: View) -> Float[np.ndarray, " row"]:
        """Return the log-odds of every row."""
        columns = self._vectoriser.transform(view.texts)
        result: NDArray[np.float64] = columns @ self.weight.astype(np.float64) + self.bias
        return result

    def parts(self) -> dict[str, Any]:
        """Return what the constructor takes, by name."""
        return {"terms": self.terms, "idf": self.idf, "weight": self.weight, "bias": self.bias}


class Head(NamedTuple):
    """Members whose log-odds are weighed by `mix` and moved by `bias` (Platt, 1999).

    A member that told nothing of held-out rows has no weight; if none has, all rows score alike.
    """

    members: tuple[Seen | Read, ...]
    mix: tuple[float, ...]
    bias: float
    strengths: tuple[float, ...]

    def probabilities(self, view: View) -> Float[np.ndarray, " row"]:
        """Return the calibrated probability of every row."""
        logits = np.stack([member.logits(view) for member in self.members], axis=1)
        result: NDArray[np.float64] = expit(logits @ np.array(self.mix) + self.bias)
        return result


def fit_head(view: View, given: Marks, splits: Sequence[Split]) -> Head:
    """Return the head; strength and calibration come from predictions across `splits` alone.

    Each member's strength is the one whose held-out predictions rank best; the weights of the
    members and the bias are then fitted on those same held-out log-odds.
    """
    kinds = [kind for kind, side in ((Seen, view.seen), (Read, view.texts)) if side is not None]
    found = [_crossfit(kind, view, given, splits) for kind in kinds]
    held_out = np.stack([logits for _, logits in found], axis=1)
    mix, bias = _platt(held_out[given.rows], given)
    members = tuple(
        kind.fit(view, given, strength) for kind, (strength, _) in zip(kinds, found, strict=True)
    )
    return Head(
        members,
        mix,
        bias,
        tuple(strength for strength, _ in found),
    )


def _crossfit(
    kind: type[Seen] | type[Read], view: View, given: Marks, splits: Sequence[Split]
) -> tuple[float, Float[np.ndarray, " row"]]:
    """Return the strength whose held-out log-odds rank best, and those log-odds."""
    held_out = {strength: np.zeros(int(given.rows.max()) + 1) for strength in kind.strengths}
    for train, test in splits:
        learned, asked = view.take(train), view.take(test)
        for strength, logits in held_out.items():
            logits[test] = kind.fit(learned, given.within(train), strength).logits(asked)

    def ranks(strength: float) -> float:
        scores = held_out[strength][given.rows]
        return float(roc_auc_score(given.truth, scores, sample_weight=given.weight))

    best = max(kind.strengths, key=ranks)
    return best, held_out[best]


def _regression(columns: Any, given: Marks, strength: float) -> LogisticRegression:
    if len(np.unique(given.truth)) < 2:
        raise DistilError(
            "too few intentions were judged: those of some fold are all valid, or none is"
        )
    model = LogisticRegression(C=strength, max_iter=STEPS)
    return model.fit(columns, given.truth, sample_weight=given.weight)


def _platt(
    logits: Float[np.ndarray, "piece member"], given: Marks
) -> tuple[tuple[float, ...], float]:
    """Return the weights of the members, never below 0, and the bias of least NLL.

    From a few posts a member may predict held-out rows worse than chance; a weight below 0 would
    turn that noise into a critic that is sure of the opposite of what it learned.
    """
    sign = 2 * given.truth - 1

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mix, bias = at[:-1], at[-1]
        margin = sign * (logits @ mix + bias)
        slope = -given.weight * sign * expit(-margin)
        value = given.weight @ np.logaddexp(0, -margin) + mix @ mix / 2
        return float(value), np.append(logits.T @ slope + mix, slope.sum())

    num_members = logits.shape[1]
    start = np.append(np.ones(num_members), 0.0)
    limits = [(0.0, None)] * num_members + [(None, None)]
    found = minimize(loss, start, jac=True, bounds=limits, method="L-BFGS-B").x
    return tuple(float(weight) for weight in found[:-1]), float(found[-1])


def _standard(seen: Floats, mean: Floats, scale: Floats) -> Floats:
    """Return columns in standard deviations from the mean, cut at `FURTHEST` of them."""
    result: Floats = np.clip((seen - mean) * scale, -FURTHEST, FURTHEST)
    result[:, -len(SURFACE) :] *= SURFACE_GAIN
    return result


def _tfidf(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode", **options
    )
