"""The learned critic: how probable it is that people would call an intention valid."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from miko_clf import manifest
from miko_clf.data.post import RELATIONS, Relation
from miko_clf.data.tokenizer import TextTokenizer, pad_ids
from miko_clf.distil.annotation import JudgedPost
from miko_clf.distil.relations import strip_relation_stem
from miko_clf.encode.build import rebuild_towers, write_plans
from miko_clf.encode.feature_cache import fingerprint_tower
from miko_clf.encode.tower import TextTower, mean_pool
from miko_clf.errors import BundleError, DistilError
from miko_clf.progress import show_progress

_FORMAT = 2  # of the folder; 1 held TF-IDF and what the post says
_POSTS_PER_CHUNK = 32  # whole posts, because an intention is compared with its siblings
_BATCH_SIZE = 64
_INNER_FOLDS = 4
_STRENGTHS = (3e-5, 1e-4, 3e-4)  # inverse of the regularisation
_MAX_ITERATIONS = 2000
_MAX_DEVIATIONS = 5.0  # standard deviations; a post unlike any in training must not decide alone
_NUM_SURFACE = len(RELATIONS) + 6  # the last columns, which no encoder makes
_SURFACE_GAIN = 2.0  # few columns beside many: their weights are held back that much less
_Floats = NDArray[np.float32]
_FoldRows = tuple[NDArray[np.int64], NDArray[np.int64]]


class CriticExample(NamedTuple):
    """One intention of one post; `valid` is the share of people who called it so, None unasked.

    Examples of one `group` are of one post, whose `text` only keeps copies on one side of a fold.
    """

    group: str
    text: str | None
    relation: Relation
    intention: str
    valid: float | None = None


class CriticHead(NamedTuple):
    """A logistic regression on standardised columns, calibrated (Platt, 1999)."""

    mean: _Floats
    scale: _Floats
    weight: _Floats
    bias: float

    def logits(self, features: _Floats) -> Float[np.ndarray, " row"]:
        """Return the log-odds of every row."""
        columns = _standardise(features, self.mean, self.scale)
        return (columns @ self.weight + self.bias).astype(np.float64)

    def probabilities(self, features: _Floats) -> Float[np.ndarray, " row"]:
        """Return the probability of every row."""
        result: NDArray[np.float64] = expit(self.logits(features))
        return result


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
        for rows, features in _read_in_chunks(examples, self.tower, self.max_length):
            result[rows] = self.head.probabilities(features)
        return result

    def score_posts(self, posts: Sequence[JudgedPost]) -> list[list[float]]:
        """Return a probability for each intention of each post."""
        scores = iter(self.probabilities(build_critic_examples(posts)).tolist())
        return [[next(scores) for _ in post.intentions] for post in posts]

    def write(self, folder: Path) -> None:
        """Write everything that `read` needs, the tower too: weights are safetensors."""
        state = self.tower.trunk.state_dict()
        tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in state.items()}
        facts = {
            "critic": _FORMAT,
            "tower": fingerprint_tower(self.tower),
            "versions": manifest.collect_versions(),
        }
        arrays = self.head._asdict()
        settings = {
            "max_length": self.max_length,
            "pad_id": self.tower.words.pad_id,
            "bias": arrays.pop("bias"),
        }
        with manifest.write_atomically(folder) as beside:
            beside.mkdir()
            save_tensors(tensors, beside / "tower.safetensors")
            write_plans(beside / "towers.json", None, self.tower)
            self.tower.words.write(beside / "tokenizer.json")
            save_file(arrays, beside / "head.safetensors")
            manifest.write_json(beside / "critic.json", settings)
            manifest.write_manifest(beside, facts)

    @classmethod
    def read(cls, folder: Path) -> "Critic":
        """Return the critic that `write` wrote, without a hub.

        Raises `BundleError` where the folder holds none of this format, or a file was changed.
        """
        command = "miko-clf kb train-critic"
        version = manifest.read_manifest(folder).get("critic")
        if version is None:
            raise BundleError(f"{folder}: not a critic; a critic is made by: {command}")
        if version != _FORMAT:
            raise BundleError(
                f"{folder}: a critic of format {version}, and {_FORMAT} is what is read; "
                f"train it again with: {command}"
            )
        settings = json.loads((folder / "critic.json").read_text(encoding="utf-8"))
        words = TextTokenizer.read(folder / "tokenizer.json", settings["pad_id"])
        _, tower = rebuild_towers(folder / "towers.json", words)
        assert tower is not None
        tower.trunk.load_state_dict(load_tensors(folder / "tower.safetensors"))
        tower.requires_grad_(False)
        head = CriticHead(**load_file(folder / "head.safetensors"), bias=settings["bias"])
        return cls(tower.eval(), head, settings["max_length"])


def build_critic_examples(posts: Iterable[JudgedPost]) -> list[CriticExample]:
    """Return an example for each intention; those that nobody judged are company of the others."""
    return [
        CriticExample(judged.post.id, judged.post.text, intention.relation, intention.text, valid)
        for judged in posts
        for intention, valid in zip(judged.intentions, judged.valid, strict=True)
    ]


def fit_critic(
    examples: Sequence[CriticExample], tower: TextTower, *, max_length: int = 96, seed: int = 0
) -> Critic:
    """Return the critic that learned from the examples with `valid`; the rest are company.

    Raises `DistilError` where there are too few posts, or where all were judged alike.
    """
    _check_examples(examples)
    features = extract_critic_features(examples, tower, max_length)
    return Critic(tower, fit_critic_head(features, examples, seed=seed), max_length)


def fit_critic_head(
    features: Float[np.ndarray, "example column"],
    examples: Sequence[CriticExample],
    *,
    seed: int = 0,
) -> CriticHead:
    """Return the head for features that were extracted before; those not judged are left out.

    The strength is the one whose predictions rank best on held-out folds of these examples; the
    slope and the shift of the calibration are then fitted on the same held-out log-odds.
    """
    rows = [row for row, example in enumerate(examples) if example.valid is not None]
    judged, features = [examples[row] for row in rows], features[rows]
    valid = np.array([example.valid for example in judged], dtype=float)
    held_out = {strength: np.zeros(len(judged)) for strength in _STRENGTHS}
    for train, test in split_critic_folds(judged, _INNER_FOLDS, seed):
        for strength, logits in held_out.items():
            head = _fit_regression(features[train], valid[train], strength)
            logits[test] = head.logits(features[test])
    pieces, truth, weight = _split_outcomes(valid)

    def measure_ranking(strength: float) -> float:
        return float(roc_auc_score(truth, held_out[strength][pieces], sample_weight=weight))

    best = max(_STRENGTHS, key=measure_ranking)
    slope, shift = _fit_platt(held_out[best][pieces], truth, weight)
    head = _fit_regression(features, valid, best)
    return head._replace(
        weight=(slope * head.weight).astype(np.float32), bias=slope * head.bias + shift
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


def extract_critic_features(
    examples: Sequence[CriticExample], tower: TextTower, max_length: int = 96
) -> Float[np.ndarray, "example column"]:
    """Return the columns of every example, of which no label is a part.

    Of its own words their mean state (at length one) and how far they spread around it, then the
    mean state of all intentions of its post, each `tower.width` wide; then what stands in
    `_measure_surface`.
    """
    features = np.empty((len(examples), 3 * tower.width + _NUM_SURFACE), dtype=np.float32)
    for rows, columns in _read_in_chunks(examples, tower, max_length):
        features[rows] = columns
    return features


def _read_in_chunks(
    examples: Sequence[CriticExample], tower: TextTower, max_length: int
) -> Iterator[tuple[list[int], _Floats]]:
    """Yield the features of some whole posts at a time, with the rows that they belong to."""
    posts: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        if example.relation not in RELATIONS:
            known = ", ".join(RELATIONS)
            raise DistilError(f"no relation called {example.relation!r}; choose from {known}")
        posts.setdefault(example.group, []).append(row)
    groups = list(posts.values())
    starts = range(0, len(groups), _POSTS_PER_CHUNK)
    for start in show_progress(starts, "Reading intentions"):
        chunk = groups[start : start + _POSTS_PER_CHUNK]
        features = _read_posts(
            [[examples[row] for row in group] for group in chunk], tower, max_length
        )
        yield [row for group in chunk for row in group], features


def _read_posts(
    posts: Sequence[Sequence[CriticExample]], tower: TextTower, max_length: int
) -> _Floats:
    """Return the features of whole posts, row after row.

    Intentions are read without their stem, which the relation says already: so sentences of one
    meaning look alike, whichever stem their teacher was asked to use.
    """
    texts = [strip_relation_stem(row.relation, row.intention) for post in posts for row in post]
    means, spreads = _encode_texts(texts, tower, max_length)
    blocks, start = [], 0
    for post in posts:
        rows = slice(start, start + len(post))
        own = _normalise_rows(means[rows])
        mean = np.broadcast_to(_normalise_rows(own.mean(0)), own.shape)
        surface = _measure_surface([row.relation for row in post], texts[rows], own)
        blocks.append(np.hstack([own, spreads[rows], mean, surface]))
        start += len(post)
    return np.concatenate(blocks).astype(np.float32)


@torch.inference_mode()
def _encode_texts(
    texts: Sequence[str], tower: TextTower, max_length: int
) -> tuple[_Floats, _Floats]:
    """Return the mean state of each text and how far its words spread around it, zeros if blank."""
    ids = tower.words.encode(texts, min(max_length, tower.limit))
    means = np.zeros((len(texts), tower.width), dtype=np.float32)
    spreads = np.zeros_like(means)
    order = sorted((row for row in range(len(ids)) if ids[row]), key=lambda row: len(ids[row]))
    device = next(tower.parameters()).device
    tower.eval()
    for start in range(0, len(order), _BATCH_SIZE):
        rows = order[start : start + _BATCH_SIZE]
        arrays = pad_ids([ids[row] for row in rows], tower.words.pad_id)
        words, mask = (torch.from_numpy(array).to(device) for array in arrays)
        states = tower(words, mask).float()
        mean = mean_pool(states, mask)
        spread = mean_pool((states - mean[:, None]) ** 2, mask).sqrt()
        means[rows], spreads[rows] = mean.cpu().numpy(), spread.cpu().numpy()
    return means, spreads


def _measure_surface(relations: Sequence[str], texts: Sequence[str], own: _Floats) -> _Floats:
    """Return for each intention of a post what needs no encoder, and how it is like the others.

    Which relation it is of, and how many words it has. Then its mean and greatest likeness to the
    others, the mean likeness among all, the mean overlap of its words with those of each other,
    and the share of its words that no other has.
    """
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    alike = own @ own.T
    among = float(alike[~np.eye(len(texts), dtype=bool)].mean()) if len(texts) > 1 else 0.0
    rows = []
    for place, (relation, mine) in enumerate(zip(relations, words, strict=True)):
        others = [*words[:place], *words[place + 1 :]]
        likeness = np.delete(alike[place], place)
        shared = [len(mine & other) / max(1, len(mine | other)) for other in others]
        rows.append(
            [
                *(relation == name for name in RELATIONS),
                np.log1p(len(mine)),
                *((likeness.mean(), likeness.max(), among) if others else (0.0, 0.0, 0.0)),
                float(np.mean(shared)) if others else 0.0,
                len(mine.difference(*others)) / max(1, len(mine)),
            ]
        )
    return np.array(rows, dtype=np.float32)


def _normalise_rows(rows: _Floats) -> _Floats:
    """Return each row at length one, zeros as they are."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: _Floats = rows / np.maximum(length, np.float32(1e-6))
    return scaled


def _check_examples(examples: Sequence[CriticExample]) -> None:
    valid = [example.valid for example in examples if example.valid is not None]
    wrong = [share for share in valid if not 0 <= share <= 1]
    if wrong:
        raise DistilError(f"a validity of {wrong[0]} was given; allowed are 0 to 1")
    if not max(valid, default=0):
        raise DistilError("no intention was judged valid; a critic learns from both")
    if min(valid) == 1:
        raise DistilError("no intention was judged not valid; a critic learns from both")


def _fit_regression(
    features: _Floats, valid: Float[np.ndarray, " row"], strength: float
) -> CriticHead:
    rows, truth, weight = _split_outcomes(valid)
    if len(np.unique(truth)) < 2:
        raise DistilError(
            "too few intentions were judged: those of some fold are all valid, or none is"
        )
    mean, spread = features.mean(0), features.std(0)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
    columns = _standardise(features, mean, scale).astype(np.float64)  # else some fits do not end
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    model.fit(columns[rows], truth, sample_weight=weight)
    return CriticHead(mean, scale, model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def _split_outcomes(
    valid: Float[np.ndarray, " row"],
) -> tuple[Int[np.ndarray, " piece"], Int[np.ndarray, " piece"], Float[np.ndarray, " piece"]]:
    """Return row, truth and weight of every outcome; a share between 0 and 1 is some of either."""
    rows = np.tile(np.arange(len(valid)), 2)
    truth = np.repeat([1, 0], len(valid))
    weight = np.concatenate([valid, 1 - valid])
    counts = weight > 0
    return rows[counts], truth[counts], weight[counts]


def _fit_platt(
    logits: Float[np.ndarray, " piece"],
    truth: Int[np.ndarray, " piece"],
    weight: Float[np.ndarray, " piece"],
) -> tuple[float, float]:
    """Return the slope, never below 0, and the shift of log-odds that make them probabilities.

    From a few posts held-out rows may be predicted worse than by chance; a slope below 0 would
    turn that noise into a critic that is sure of the opposite of what it learned.
    """
    model = LogisticRegression(max_iter=_MAX_ITERATIONS)
    model.fit(logits[:, None], truth, sample_weight=weight)
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, shift) if slope > 0 else (0.0, float(logit(np.average(truth, weights=weight))))


def _standardise(features: _Floats, mean: _Floats, scale: _Floats) -> _Floats:
    """Return columns in standard deviations from the mean, cut where they are very far."""
    result: _Floats = np.clip((features - mean) * scale, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    result[:, -_NUM_SURFACE:] *= _SURFACE_GAIN
    return result
