"""What a comparison of recipes consists of, and where its parts lie."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf import manifest
from miko_clf.errors import BundleError
from miko_clf.experiment.systems import System, systems

NAME = "experiment.json"


class Trial(NamedTuple):
    """One system trained from one seed, on the rest of one fold where there are folds."""

    system: System
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """A name for its files."""
        fold = "" if self.fold is None else f"-{self.fold}"
        return f"{self.system.slug}-{self.seed}{fold}"


@dataclass(frozen=True)
class Source:
    """Which posts, and how they are read."""

    path: str
    label_map: tuple[tuple[str, str], ...] = ()
    split_seed: int | None = None
    task: str | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a comparison finds. Written once, then only read.

    `arms` are those that were asked for, none for all. `folds` is the number of folds of a
    grouped cross-validation, drawn anew for each seed; without it train, val and test are the
    data's own.
    """

    recipes: tuple[str, ...]
    source: Source
    seeds: int
    arms: tuple[str, ...] = ()
    folds: int | None = None
    positive: str | None = None
    leaks: bool = False

    def systems(self) -> list[System]:
        """Return what is trained."""
        return systems(self.recipes, self.arms)

    @property
    def one_order(self) -> bool:
        """Whether systems read different things, and posts must be batched by what all read."""
        every = self.systems()
        return len({system.recipe.inputs for system in every}) > 1 or any(
            system.control for system in every
        )

    def trials(self) -> list[Trial]:
        """Return all that is trained, seed by seed, so that early seeds are complete first."""
        folds: list[int | None] = [None] if self.folds is None else list(range(self.folds))
        every = self.systems()
        return [
            Trial(system, seed, fold)
            for seed in range(self.seeds)
            for fold in folds
            for system in every
        ]


def claim(out: Path, experiment: Experiment, facts: Mapping[str, Any]) -> None:
    """Write the experiment into a new folder, or find that it is, or grew from, the one there.

    It may grow by recipes and by seeds. `facts` are digests of the posts and versions. Raises
    `BundleError` where another stands there.
    """
    path = out / NAME
    wanted = json.loads(json.dumps({**asdict(experiment), **facts}))
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise BundleError(f"{out} holds something else; name another --out")
        manifest.write_json(path, wanted)
        return
    before = _json(path)
    differ = [name for name in wanted if before.get(name) != wanted[name]]
    other = [name for name in differ if not _grew(name, before.get(name), wanted[name])]
    if other:
        raise BundleError(
            f"{out} holds a comparison with other {' and '.join(other)}; name another --out"
        )
    if differ:
        manifest.write_json(path, wanted)


def _grew(name: str, before: Any, after: Any) -> bool:
    if name == "seeds":
        return isinstance(before, int) and before <= after
    if name == "recipes":
        return isinstance(before, list) and set(before) <= set(after)
    if name == "systems":
        return isinstance(before, dict) and before.items() <= after.items()
    return False


def is_one(path: Path) -> bool:
    """Say whether a comparison of recipes lies in a folder."""
    return (path / NAME).is_file()


def read(out: Path) -> Experiment:
    """Return the experiment in a folder; raises `BundleError`."""
    found = _json(out / NAME)
    try:
        known = {name: found[name] for name in Experiment.__dataclass_fields__}
        known["source"] = Source(**_frozen(found["source"]))
        return Experiment(**_frozen(known))
    except (KeyError, TypeError):
        raise BundleError(f"{out / NAME}: not of this version") from None


def bundle_of(out: Path, trial: Trial) -> Path:
    """Return where the bundle of a trial lies."""
    return out / "trials" / trial.name


def scores_of(out: Path, trial: Trial, split: str) -> Path:
    """Return where the scores of a trial lie."""
    return out / "scores" / split / f"{trial.name}.json"


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lists as tuples, which JSON does not have."""
    return {key: _as_tuple(value) for key, value in values.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
    if not isinstance(found, dict):
        raise BundleError(f"{path}: an object is needed")
    return found
