"""The learned critic: how probable it is that people would call an intention valid."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from miko_clf import manifest
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.distil.annotation import JudgedPost
from miko_clf.encode.build import rebuild_towers, write_plans
from miko_clf.encode.feature_cache import fingerprint_tower
from miko_clf.encode.tower import TextTower
from miko_clf.errors import BundleError, DistilError
from miko_clf.train.critic_features import (
    SURFACE_FEATURES,
    CriticExample,
    extract_critic_features,
    stream_critic_features,
    strip_example_stem,
)

_Floats = NDArray[np.float32]
_FoldRows = tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]
_MAX_DEVIATIONS = 5.0  # standard deviations; a post unlike any in training must not decide alone
_SURFACE_GAIN = 2.0  # few columns beside many: their weights are held back that much less
_MAX_ITERATIONS = 2000
_FEW_TEXTS = 200  # texts; among more, a term that stands in one alone is left out


class CriticInputs(NamedTuple):
    """Rows as the two members see them; either side may be absent, not both."""

    seen: _Floats | None
    texts: Sequence[str] | None

    def take(self, rows: Iterable[int]) -> "CriticInputs":
        """Return some of the rows."""
        rows = list(rows)
        seen = self.seen[rows] if self.seen is not None else None
        return CriticInputs(
            seen, [self.texts[row] for row in rows] if self.texts is not None else None
        )


class WeightedOutcomes(NamedTuple):
    """Outcomes of 0 and 1, one a piece of a row, and what each piece counts."""

    rows: Int[np.ndarray, " piece"]
    truth: Int[np.ndarray, " piece"]
    weight: Float[np.ndarray, " piece"]

    def within(self, rows: Int[np.ndarray, " row"]) -> "WeightedOutcomes":
        """Return the pieces of some rows, numbered as these are."""
        place = np.full(int(max(self.rows.max(), rows.max())) + 1, -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.rows] >= 0
        return WeightedOutcomes(place[self.rows[kept]], self.truth[kept], self.weight[kept])


def weigh_outcomes(
    valid: Float[np.ndarray, " row"], weight: Float[np.ndarray, " row"]
) -> WeightedOutcomes:
    """Return a piece for each outcome; a share between 0 and 1 becomes one of either."""
    rows = np.tile(np.arange(len(valid)), 2)
    truth = np.repeat([1, 0], len(valid))
    counts = np.concatenate([valid, 1 - valid]) * np.tile(weight, 2)
    kept = counts > 0
    return WeightedOutcomes(rows[kept], truth[kept], counts[kept])


class FeatureLogistic:
    """A logistic regression on standardised columns."""

    strengths = (3e-5, 1e-4, 3e-4)

    def __init__(self, mean: _Floats, scale: _Floats, weight: _Floats, bias: float) -> None:
        self.mean, self.scale, self.weight, self.bias = mean, scale, weight, bias

    @classmethod
    def fit(cls, view: CriticInputs, marks: WeightedOutcomes, strength: float) -> "FeatureLogistic":
        """Return the regression; `strength` is the inverse of the regularisation."""
        assert view.seen is not None
        spread = view.seen.std(0)
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
        mean = view.seen.mean(0)
        model = _fit_regression(_standardise(view.seen, mean, scale)[marks.rows], marks, strength)
        return cls(mean, scale, model.coef_[0].astype(np.float32), float(model.intercept_[0]))

    def logits(self, view: CriticInputs) -> Float[np.ndarray, " row"]:
        """Return the log-odds of every row."""
        assert view.seen is not None
        result: NDArray[np.float64] = (
            _standardise(view.seen, self.mean, self.scale) @ self.weight + self.bias
        ).astype(np.float64)
        return result

    def parts(self) -> dict[str, Any]:
        """Return what the constructor takes, by name."""
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}


class TfidfLogistic:
    """A logistic regression on TF-IDF of words and word pairs."""

    strengths = (0.1, 0.3, 1.0)

    def __init__(self, terms: Sequence[str], idf: _Floats, weight: _Floats, bias: float) -> None:
        self.terms, self.idf, self.weight, self.bias = list(terms), idf, weight, bias
        self._vectoriser = _create_tfidf(vocabulary=self.terms)
        self._vectoriser.idf_ = idf.astype(np.float64)

    @classmethod
    def fit(cls, view: CriticInputs, marks: WeightedOutcomes, strength: float) -> "TfidfLogistic":
        """Return the regression; `strength` is the inverse of the regularisation."""
        assert view.texts is not None
        vectoriser = _create_tfidf(min_df=2 if len(view.texts) >= _FEW_TEXTS else 1)
        columns = vectoriser.fit_transform(view.texts)
        model = _fit_regression(columns[marks.rows], marks, strength)
        return cls(
            vectoriser.get_feature_names_out().tolist(),
            vectoriser.idf_.astype(np.float32),
            model.coef_[0].astype(np.float32),
            float(model.intercept_[0]),
        )

    def logits(self, view: CriticInputs) -> Float[np.ndarray, " row"]:
        """Return the log-odds of every row."""
        columns = self._vectoriser.transform(view.texts)
        result: NDArray[np.float64] = columns @ self.weight.astype(np.float64) + self.bias
        return result

    def parts(self) -> dict[str, Any]:
        """Return what the constructor takes, by name."""
        return {"terms": self.terms, "idf": self.idf, "weight": self.weight, "bias": self.bias}


class CriticHead(NamedTuple):
    """Members whose log-odds are weighed by `mix` and moved by `bias` (Platt, 1999).

    A member that told nothing of held-out rows has no weight; if none has, all rows score alike.
    """

    members: tuple[FeatureLogistic | TfidfLogistic, ...]
    mix: tuple[float, ...]
    bias: float
    strengths: tuple[float, ...]

    def probabilities(self, view: CriticInputs) -> Float[np.ndarray, " row"]:
        """Return the calibrated probability of every row."""
        logits = np.stack([member.logits(view) for member in self.members], axis=1)
        result: NDArray[np.float64] = expit(logits @ np.array(self.mix) + self.bias)
        return result


def fit_critic_head(
    view: CriticInputs, given: WeightedOutcomes, splits: Sequence[_FoldRows]
) -> CriticHead:
    """Return the head; strength and calibration come from predictions across `splits` alone.

    Each member's strength is the one whose held-out predictions rank best; the weights of the
    members and the bias are then fitted on those same held-out log-odds.
    """
    kinds = [
        kind
        for kind, side in ((FeatureLogistic, view.seen), (TfidfLogistic, view.texts))
        if side is not None
    ]
    found = [_choose_strength(kind, view, given, splits) for kind in kinds]
    held_out = np.stack([logits for _, logits in found], axis=1)
    mix, bias = _fit_platt(held_out[given.rows], given)
    members = tuple(
        kind.fit(view, given, strength) for kind, (strength, _) in zip(kinds, found, strict=True)
    )
    return CriticHead(
        members,
        mix,
        bias,
        tuple(strength for strength, _ in found),
    )


def _choose_strength(
    kind: type[FeatureLogistic] | type[TfidfLogistic],
    view: CriticInputs,
    given: WeightedOutcomes,
    splits: Sequence[_FoldRows],
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


def _fit_regression(columns: Any, given: WeightedOutcomes, strength: float) -> LogisticRegression:
    if len(np.unique(given.truth)) < 2:
        raise DistilError(
            "too few intentions were judged: those of some fold are all valid, or none is"
        )
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    return model.fit(columns, given.truth, sample_weight=given.weight)


def _fit_platt(
    logits: Float[np.ndarray, "piece member"], given: WeightedOutcomes
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


def _standardise(seen: _Floats, mean: _Floats, scale: _Floats) -> _Floats:
    """Return columns in standard deviations from the mean, cut at `FURTHEST` of them."""
    result: _Floats = np.clip((seen - mean) * scale, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    result[:, -len(SURFACE_FEATURES) :] *= _SURFACE_GAIN
    return result


def _create_tfidf(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode", **options
    )


__all__ = ["Critic", "Example", "fit_critic", "fit_on", "folds"]
_INNER_FOLDS = 4
_ARRAYS = ("mean", "scale", "weight", "idf")


class Critic(NamedTuple):
    """A frozen text tower and a calibrated head over what it sees of an intention."""

    tower: TextTower
    head: CriticHead
    max_length: int = 96

    def probabilities(self, examples: Sequence[CriticExample]) -> Float[np.ndarray, " example"]:
        """Return how probable each intention is to be called valid.

        An intention is judged beside the others of its post: give whole posts. Memory is that of
        the answer and of a few posts at a time.
        """
        result = np.zeros(len(examples))
        for rows, seen in stream_critic_features(examples, self.tower, self.max_length):
            texts = [strip_example_stem(examples[row]) for row in rows]
            result[rows] = self.head.probabilities(CriticInputs(seen, texts))
        return result

    def write(self, folder: Path) -> None:
        """Write everything that `read` needs, the tower too: weights are safetensors."""
        state = self.tower.trunk.state_dict()
        tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in state.items()}
        facts = {
            "critic": 1,
            "tower": fingerprint_tower(self.tower),
            "versions": manifest.collect_versions(),
        }
        with manifest.write_atomically(folder) as beside:
            beside.mkdir()
            save_tensors(tensors, beside / "tower.safetensors")
            write_plans(beside / "towers.json", None, self.tower)
            self.tower.words.write(beside / "tokenizer.json")
            arrays, words = _pack_head(self.head)
            save_file(arrays, beside / "head.safetensors")
            about = {"max_length": self.max_length, "pad_id": self.tower.words.pad_id, **words}
            manifest.write_json(beside / "critic.json", about)
            manifest.write_manifest(beside, facts)

    @classmethod
    def read(cls, folder: Path) -> "Critic":
        """Return the critic that `write` wrote, without a hub.

        Raises `BundleError` where the folder holds none or a file was changed.
        """
        if "critic" not in manifest.read_manifest(folder):
            raise BundleError(f"{folder}: not a critic; a critic is made by: miko-clf kb critic")
        about = json.loads((folder / "critic.json").read_text(encoding="utf-8"))
        words = TextTokenizer.read(folder / "tokenizer.json", about["pad_id"])
        _, tower = rebuild_towers(folder / "towers.json", words)
        assert tower is not None
        tower.trunk.load_state_dict(load_tensors(folder / "tower.safetensors"))
        tower.requires_grad_(False)
        head = _unpack_head(load_file(folder / "head.safetensors"), about)
        return cls(tower.eval(), head, about["max_length"])


def fit_critic(
    examples: Sequence[CriticExample], tower: TextTower, *, max_length: int = 96, seed: int = 0
) -> Critic:
    """Return the critic that learned from the examples with `valid`; the rest are company.

    Raises `DistilError` where there are too few posts, or where all were judged alike.
    """
    _check_examples(examples)
    seen = extract_critic_features(examples, tower, max_length)
    head = fit_head_to_examples(
        CriticInputs(seen, [strip_example_stem(example) for example in examples]),
        examples,
        seed=seed,
    )
    return Critic(tower, head, max_length)


def fit_head_to_examples(
    view: CriticInputs, examples: Sequence[CriticExample], *, seed: int = 0
) -> CriticHead:
    """Return the head for evidence that was gathered before; a row of `view` is an example.

    Strength and calibration are chosen across folds of these examples alone.
    """
    _check_examples(examples)
    rows = [row for row, example in enumerate(examples) if example.valid is not None]
    judged = [examples[row] for row in rows]
    valid = np.array([example.valid for example in judged], dtype=float)
    weight = np.array([example.weight for example in judged], dtype=float)
    return fit_critic_head(
        view.take(rows),
        weigh_outcomes(valid, weight),
        split_critic_folds(judged, _INNER_FOLDS, seed),
    )


def split_critic_folds(
    examples: Sequence[CriticExample], num_folds: int, seed: int = 0
) -> list[_FoldRows]:
    """Return rows to learn from and rows to test on, `num_folds` times.

    Every row is tested once. No post stands on both sides, and no two posts of one text.
    """
    first: dict[str, str] = {}
    for example in examples:
        first.setdefault(example.group, " ".join((example.text or "").lower().split()))
    keys = [first[example.group] or f"\0{example.group}" for example in examples]
    if len(set(keys)) < num_folds:
        raise DistilError(
            f"{len(set(keys))} different posts were judged; a critic needs {num_folds} or more"
        )
    places = np.unique(keys, return_inverse=True)[1]
    splitter = GroupKFold(num_folds, shuffle=True, random_state=seed)
    return list(splitter.split(places, groups=places))


def _check_examples(examples: Sequence[CriticExample]) -> None:
    given = [example.valid for example in examples if example.valid is not None]
    wrong = [value for value in given if not 0 <= value <= 1]
    if wrong:
        raise DistilError(f"a validity of {wrong[0]} was given; allowed are 0 to 1")
    for name, share in (("valid", max(given, default=0)), ("not valid", 1 - min(given, default=1))):
        if not share:
            raise DistilError(f"no intention was judged {name}; a critic learns from both")


def _pack_head(head: CriticHead) -> tuple[dict[str, _Floats], dict[str, Any]]:
    """Return the arrays of a head, and all else of it as JSON has it."""
    arrays: dict[str, _Floats] = {}
    about: dict[str, Any] = {"mix": head.mix, "bias": head.bias, "strengths": head.strengths}
    for member in head.members:
        name = type(member).__name__.lower()
        parts = member.parts()
        arrays |= {f"{name}.{key}": parts.pop(key) for key in tuple(parts) if key in _ARRAYS}
        about[name] = parts
    return arrays, about


def _unpack_head(arrays: Mapping[str, _Floats], about: Mapping[str, Any]) -> CriticHead:
    members = []
    for kind in (FeatureLogistic, TfidfLogistic):
        name = kind.__name__.lower()
        if name in about:
            own: dict[str, Any] = {
                key: arrays[f"{name}.{key}"] for key in _ARRAYS if f"{name}.{key}" in arrays
            }
            members.append(kind(**own, **about[name]))
    mix, strengths = tuple(about["mix"]), tuple(about["strengths"])
    return CriticHead(tuple(members), mix, about["bias"], strengths)


def build_critic_examples(posts: Iterable[JudgedPost]) -> list[CriticExample]:
    """Return an example for each intention; those that nobody judged are company of the others."""
    return [
        CriticExample(
            one.post.id, one.post.text, one.post.description, mark.relation, mark.text, valid
        )
        for one in posts
        for mark, valid in zip(one.intentions, one.valid, strict=True)
    ]


def make_critic_scorer(critic: Critic) -> Callable[[Sequence[JudgedPost]], list[list[float]]]:
    """Return what a critic says of posts: a probability for each intention of each."""

    def assess(posts: Sequence[JudgedPost]) -> list[list[float]]:
        found = iter(critic.probabilities(build_critic_examples(posts)).tolist())
        return [[next(found) for _ in one.intentions] for one in posts]

    return assess
