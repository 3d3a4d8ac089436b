"""What a sweep searches, and what its trials were worth, as its folder keeps it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from miko_clf import manifest
from miko_clf import recipe as recipes
from miko_clf.errors import BundleError
from miko_clf.experiment import systems
from miko_clf.experiment.ranges import Range, Value
from miko_clf.recipe import Recipe

NAME = "sweep.json"
TRIALS = "trials.jsonl"


@dataclass(frozen=True)
class Attempt:
    """One trial: the values that it gave to keys, and what it was worth.

    `value` is the mean of `by_seed`. `seconds` are those of the process that ended it. `repeats`
    is the number of the trial of the same values whose outcome this is.
    """

    number: int
    params: Mapping[str, Value]
    state: Literal["running", "complete", "failed"] = "running"
    value: float | None = None
    by_seed: tuple[float, ...] = ()
    seconds: float = 0.0
    repeats: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What is searched and how well; `recipe` is a name or path, with `,key=value` for changes.

    `trials` are all that are made in the folder, failed ones among them.
    """

    out: Path
    recipe: str
    ranges: tuple[Range, ...]
    trials: int
    metric: str = "macro_f1"
    seeds: int = 1
    positive: str | None = None
    leaks: bool = False

    @property
    def sign(self) -> int:
        """By what a value is multiplied to be the better the larger."""
        return -1 if self.metric == "loss" else 1

    def recipe_of(self, params: Mapping[str, Value]) -> Recipe:
        """Return the recipe with these values; raises `RecipeError` where it refuses them."""
        name, changes = systems.named(self.recipe)
        return recipes.load(name, {**changes, **params})

    def check(self) -> None:
        """Raise `RecipeError` where the recipe has no such key, or refuses what a range holds."""
        self.recipe_of({})
        for one in self.ranges:
            for value in one.probes:
                self.recipe_of({one.key: value})

    def folder(self, number: int) -> Path:
        """Return where the bundles of a trial lie until it has ended."""
        return self.out / "trials" / str(number)

    def bundle(self, number: int, seed: int) -> Path:
        """Return where a trial's bundle of the n-th seed lies."""
        return self.folder(number) / f"seed-{seed}"

    def best(self, tried: Sequence[Attempt]) -> Attempt | None:
        """Return the best trial, the earliest of equals; none where none is complete."""
        found = [(self.sign * one.value, one) for one in tried if one.value is not None]
        return max(found, key=lambda pair: pair[0])[1] if found else None


def claim(plan: Sweep, facts: Mapping[str, Any]) -> None:
    """Write what is searched into a new folder, or find that it is what is searched there.

    `facts` are digests of the posts and versions. Raises `BundleError` where it is another sweep.
    """
    path = plan.out / NAME
    wanted = {
        "recipe": plan.recipe_of({}).model_dump(mode="json"),
        "ranges": {one.key: one._asdict() for one in plan.ranges},
        "metric": plan.metric,
        "seeds": plan.seeds,
        "positive": plan.positive,
        "leaks": plan.leaks,
        **facts,
    }
    if not path.exists():
        if plan.out.exists() and any(plan.out.iterdir()):
            raise BundleError(f"{plan.out} holds something else; name another --out")
        manifest.write_json(path, wanted)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BundleError(f"{path}: not readable JSON") from None
    as_kept = json.loads(json.dumps(wanted))
    differ = [name for name, value in as_kept.items() if before.get(name) != value]
    if differ:
        raise BundleError(
            f"{plan.out} holds a sweep with other {' and '.join(differ)}; name another --out"
        )


def attempts(out: Path) -> list[Attempt]:
    """Return the trials in a folder, in order; raises `BundleError`."""
    path = out / TRIALS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [Attempt(**{**row, "by_seed": tuple(row["by_seed"])}) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{path}: not readable; name another --out") from None


def write(out: Path, tried: Sequence[Attempt]) -> None:
    """Write the trials of a folder, all or nothing."""
    lines = [json.dumps(asdict(one), ensure_ascii=False, allow_nan=False) + "\n" for one in tried]
    manifest.write_text(out / TRIALS, "".join(lines))
