"""The learned judge: how probable it is that people would call an intention valid."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from sklearn.model_selection import GroupKFold

from miko_clf import manifest
from miko_clf.data.words import Words
from miko_clf.encode.build import rebuild, write_plans
from miko_clf.encode.evidence import Example, evidence, said, stream
from miko_clf.encode.features import fingerprint
from miko_clf.encode.towers import TextTower
from miko_clf.errors import BundleError, DistilError
from miko_clf.train.head import Floats, Head, Read, Seen, Split, View, fit_head, marks

__all__ = ["Critic", "Example", "fit_critic", "fit_on", "folds"]
INNER_FOLDS = 4
ARRAYS = ("mean", "scale", "weight", "idf")


class Critic(NamedTuple):
    """A frozen text tower and a calibrated head over what it sees of an intention."""

    tower: TextTower
    head: Head
    max_length: int = 96

    def probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, " example"]:
        """Return how probable each intention is to be called valid.

        An intention is judged beside the others of its post: give whole posts. Memory is that of
        the answer and of a few posts at a time.
        """
        result = np.zeros(len(examples))
        for rows, seen in stream(examples, self.tower, self.max_length):
            texts = [said(examples[row]) for row in rows]
            result[rows] = self.head.probabilities(View(seen, texts))
        return result

    def write(self, folder: Path) -> None:
        """Write everything that `read` needs, the tower too: weights are safetensors."""
        state = self.tower.trunk.state_dict()
        tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in state.items()}
        facts = {"critic": 1, "tower": fingerprint(self.tower), "versions": manifest.versions()}
        with manifest.aside(folder) as beside:
            beside.mkdir()
            save_tensors(tensors, beside / "tower.safetensors")
            write_plans(beside / "towers.json", None, self.tower)
            self.tower.words.write(beside / "tokenizer.json")
            arrays, words = _packed(self.head)
            save_file(arrays, beside / "head.safetensors")
            about = {"max_length": self.max_length, "pad_id": self.tower.words.pad_id, **words}
            manifest.write_json(beside / "critic.json", about)
            manifest.write(beside, facts)

    @classmethod
    def read(cls, folder: Path) -> "Critic":
        """Return the critic that `write` wrote, without a hub.

        Raises `BundleError` where the folder holds none or a file was changed.
        """
        if "critic" not in manifest.read(folder):
            raise BundleError(f"{folder}: not a critic; a critic is made by: miko-clf kb critic")
        about = json.loads((folder / "critic.json").read_text(encoding="utf-8"))
        words = Words.read(folder / "tokenizer.json", about["pad_id"])
        _, tower = rebuild(folder / "towers.json", words)
        assert tower is not None
        tower.trunk.load_state_dict(load_tensors(folder / "tower.safetensors"))
        tower.requires_grad_(False)
        head = _unpacked(load_file(folder / "head.safetensors"), about)
        return cls(tower.eval(), head, about["max_length"])


def fit_critic(
    examples: Sequence[Example], tower: TextTower, *, max_length: int = 96, seed: int = 0
) -> Critic:
    """Return the critic that learned from the examples with `valid`; the rest are company.

    Raises `DistilError` where there are too few posts, or where all were judged alike.
    """
    _check(examples)
    seen = evidence(examples, tower, max_length)
    head = fit_on(View(seen, [said(example) for example in examples]), examples, seed=seed)
    return Critic(tower, head, max_length)


def fit_on(view: View, examples: Sequence[Example], *, seed: int = 0) -> Head:
    """Return the head for evidence that was gathered before; a row of `view` is an example.

    Strength and calibration are chosen across folds of these examples alone.
    """
    _check(examples)
    rows = [row for row, example in enumerate(examples) if example.valid is not None]
    judged = [examples[row] for row in rows]
    valid = np.array([example.valid for example in judged], dtype=float)
    weight = np.array([example.weight for example in judged], dtype=float)
    return fit_head(view.take(rows), marks(valid, weight), folds(judged, INNER_FOLDS, seed))


def folds(examples: Sequence[Example], num_folds: int, seed: int = 0) -> list[Split]:
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


def _check(examples: Sequence[Example]) -> None:
    given = [example.valid for example in examples if example.valid is not None]
    wrong = [value for value in given if not 0 <= value <= 1]
    if wrong:
        raise DistilError(f"a validity of {wrong[0]} was given; allowed are 0 to 1")
    for name, share in (("valid", max(given, default=0)), ("not valid", 1 - min(given, default=1))):
        if not share:
            raise DistilError(f"no intention was judged {name}; a critic learns from both")


def _packed(head: Head) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Return the arrays of a head, and all else of it as JSON has it."""
    arrays: dict[str, Floats] = {}
    about: dict[str, Any] = {"mix": head.mix, "bias": head.bias, "strengths": head.strengths}
    for member in head.members:
        name = type(member).__name__.lower()
        parts = member.parts()
        arrays |= {f"{name}.{key}": parts.pop(key) for key in tuple(parts) if key in ARRAYS}
        about[name] = parts
    return arrays, about


def _unpacked(arrays: Mapping[str, Floats], about: Mapping[str, Any]) -> Head:
    members = []
    for kind in (Seen, Read):
        name = kind.__name__.lower()
        if name in about:
            own: dict[str, Any] = {
                key: arrays[f"{name}.{key}"] for key in ARRAYS if f"{name}.{key}" in arrays
            }
            members.append(kind(**own, **about[name]))
    mix, strengths = tuple(about["mix"]), tuple(about["strengths"])
    return Head(tuple(members), mix, about["bias"], strengths)
