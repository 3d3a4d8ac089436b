"""A search over a recipe's keys: what is tried next, what it was worth, the best of it."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import optuna
import torch
from optuna.trial import TrialState, create_trial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miko_clf import bundle, manifest
from miko_clf.data.splits import PostsInMemory, PostSplits
from miko_clf.errors import BundleError, EncoderError, PostError, RecipeError
from miko_clf.experiment import design
from miko_clf.experiment.search_space import SearchRange, SearchValue
from miko_clf.pipeline import FitOptions, fit, read_labelled_split
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train.loop import StoppedError

_SWEEP_FILE = "sweep.json"
_TRIALS_FILE = "trials.jsonl"


@dataclass(frozen=True)
class SweepTrial:
    """One trial: the values that it gave to keys, and what it was worth.

    `value` is the mean of `by_seed`. `seconds` are those of the process that ended it. `repeats`
    is the number of the trial of the same values whose outcome this is.
    """

    number: int
    params: Mapping[str, SearchValue]
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
    ranges: tuple[SearchRange, ...]
    trials: int
    metric: str = "macro_f1"
    seeds: int = 1
    positive: str | None = None
    leaks: bool = False

    @property
    def sign(self) -> int:
        """By what a value is multiplied to be the better the larger."""
        return -1 if self.metric == "loss" else 1

    def recipe_of(self, params: Mapping[str, SearchValue]) -> Recipe:
        """Return the recipe with these values; raises `RecipeError` where it refuses them."""
        name, changes = design.parse_recipe_source(self.recipe)
        return recipes.load_recipe(name, {**changes, **params})

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

    def best(self, tried: Sequence[SweepTrial]) -> SweepTrial | None:
        """Return the best trial, the earliest of equals; none where none is complete."""
        found = [(self.sign * one.value, one) for one in tried if one.value is not None]
        return max(found, key=lambda pair: pair[0])[1] if found else None


def claim_sweep(plan: Sweep, facts: Mapping[str, Any]) -> None:
    """Write what is searched into a new folder, or find that it is what is searched there.

    `facts` are digests of the posts and versions. Raises `BundleError` where it is another sweep.
    """
    path = plan.out / _SWEEP_FILE
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


def read_sweep_trials(out: Path) -> list[SweepTrial]:
    """Return the trials in a folder, in order; raises `BundleError`."""
    path = out / _TRIALS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [SweepTrial(**{**row, "by_seed": tuple(row["by_seed"])}) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{path}: not readable; name another --out") from None


def write_sweep_trials(out: Path, tried: Sequence[SweepTrial]) -> None:
    """Write the trials of a folder, all or nothing."""
    lines = [json.dumps(asdict(one), ensure_ascii=False, allow_nan=False) + "\n" for one in tried]
    manifest.write_text(out / _TRIALS_FILE, "".join(lines))


SWEEP_STOPPED = "stopped; the same command goes on from there"
_ENOUGH = 10  # trials of different values below which importances would be noise

_Objective = Callable[[int, Mapping[str, SearchValue]], Sequence[float]]
"""From the number and values of a trial to what it is worth by each seed."""


def run_sweep(plan: Sweep, objective: _Objective) -> list[SweepTrial]:
    """Try values until all trials have ended, and return every trial in order.

    What stands in the folder is not done again. A trial that was under way when the process died
    is tried again with its values; what comes next depends on the trials before alone, so that a
    stopped sweep finds what an unbroken one does. A trial that the recipe is to blame for counts
    as failed. The best recipe, and its bundle if there is one, are kept. Raises a `MikoError`.
    """
    tried = read_sweep_trials(plan.out)
    _keep(plan, tried)
    try:
        with _bar(plan, tried) as bar:
            for number in range(plan.trials):
                if number == len(tried):
                    tried.append(SweepTrial(number, _suggest_values(plan, tried)))
                    write_sweep_trials(plan.out, tried)
                if tried[number].state == "running":
                    tried[number] = _finish_trial(tried[number], tried[:number], objective)
                    write_sweep_trials(plan.out, tried)
                    _keep(plan, tried)
                    _tell(bar, plan, tried[: number + 1])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(SWEEP_STOPPED) from None
    if plan.best(tried) is None:
        raise RecipeError(
            f"{plan.out}: none of {plan.trials} trials could be trained: {tried[0].error}"
        )
    return tried


def measure_importances(plan: Sweep, tried: Sequence[SweepTrial]) -> dict[str, float]:
    """Return each key's share in what made values good, largest first (PED-ANOVA, IJCAI 2023).

    There is none of fewer than ten complete trials.
    """
    first = [one for one in tried if one.value is not None and one.repeats is None]
    if len(first) < _ENOUGH:
        return {}
    found = optuna.importance.get_param_importances(_study(plan, first, 0))
    return {key: float(share) for key, share in found.items()}


def _suggest_values(plan: Sweep, tried: Sequence[SweepTrial]) -> dict[str, SearchValue]:
    """Return the values to try next: a function of the trials before, and of how many they are."""
    found = _study(plan, tried, len(tried)).ask(_distributions(plan)).params
    return {one.key: found[one.key] for one in plan.ranges}


def _study(plan: Sweep, tried: Sequence[SweepTrial], seed: int) -> Any:
    """Return the trials as optuna knows them, which is told them anew: our file is the record."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize" if plan.sign < 0 else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    known = _distributions(plan)
    for one in tried:
        state = TrialState.FAIL if one.value is None else TrialState.COMPLETE
        params = dict(one.params)
        study.add_trial(
            create_trial(params=params, distributions=known, value=one.value, state=state)
        )
    return study


def _distributions(plan: Sweep) -> dict[str, Any]:
    """Return what is drawn from, in an order that is not that of the command line."""
    return {one.key: one.distribution for one in sorted(plan.ranges, key=lambda one: one.key)}


def _finish_trial(
    one: SweepTrial, before: Sequence[SweepTrial], objective: _Objective
) -> SweepTrial:
    same = next((other for other in before if other.params == one.params), None)
    if same is not None:
        return replace(same, number=one.number, seconds=0.0, repeats=same.number)
    started = time.monotonic()
    try:
        by_seed, error = tuple(objective(one.number, one.params)), None
        if not all(map(math.isfinite, by_seed)):
            by_seed, error = (), "what it is worth is not a number"
    except (RecipeError, EncoderError) as refused:
        by_seed, error = (), str(refused)
    seconds = round(time.monotonic() - started, 1)
    if error is not None:
        return replace(one, state="failed", seconds=seconds, error=error)
    value = fmean(by_seed)
    return replace(one, state="complete", value=value, by_seed=by_seed, seconds=seconds)


def _keep(plan: Sweep, tried: Sequence[SweepTrial]) -> None:
    """Keep the best recipe and the bundle of its first seed; give up those of ended trials.

    Killed anywhere, it does the rest when it is called again.
    """
    best = plan.best(tried)
    if best is not None:
        manifest.write_text(
            plan.out / "best.yaml", recipes.dump_recipe(plan.recipe_of(best.params))
        )
        bundle, kept = plan.bundle(best.number, 0), plan.out / "best"
        if bundle.is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            os.rename(bundle, kept)
    for one in tried:
        if one.state != "running":
            shutil.rmtree(plan.folder(one.number), ignore_errors=True)


def _tell(bar: Progress, plan: Sweep, tried: Sequence[SweepTrial]) -> None:
    last, best = tried[-1], plan.best(tried)
    said = f"best {plan.metric} {best.value:.4f}" if best else "none yet"
    bar.update(bar.task_ids[0], completed=len(tried), description=said)
    if not bar.console.is_terminal:
        worth = last.state if last.value is None else f"{last.value:.4f}"
        line = f"{len(tried)} of {plan.trials} trials: {worth}, {said}"
        bar.console.print(line, highlight=False)


def _bar(plan: Sweep, tried: Sequence[SweepTrial]) -> Progress:
    """Return a bar on this moment's stderr, whatever stderr is sent to while a trial trains."""
    console = Console(file=sys.stderr)
    bar = Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    done = sum(one.state != "running" for one in tried)
    bar.add_task("trials", total=plan.trials, completed=done)
    return bar


@dataclass(frozen=True)
class TrainingObjective:
    """Trains a trial from each seed, and says what validation measured in the epoch it kept.

    `data` holds train and val, and nothing of test. What training prints goes to `logs/`.
    """

    plan: Sweep
    data: PostsInMemory
    cache: Path | None

    def __call__(self, number: int, params: Mapping[str, SearchValue]) -> list[float]:
        """Return the metric by seed; raises a `MikoError`, or KeyboardInterrupt on Ctrl-C."""
        recipe, values = self.plan.recipe_of(params), []
        for seed in range(self.plan.seeds):
            place = self.plan.bundle(number, seed)
            if not place.exists():
                self._fit(recipe.model_copy(update={"seed": recipe.seed + seed}), place, number)
            values.append(read_kept_metric(place, recipe.task.early.metric, self.plan.metric))
        return values

    def _fit(self, recipe: Recipe, place: Path, number: int) -> None:
        logs = self.plan.out / "logs"
        logs.mkdir(exist_ok=True)
        how = FitOptions(place, self.cache, positive=self.plan.positive, leaks=self.plan.leaks)
        with (
            (logs / f"{number}.log").open("a", encoding="utf-8") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                fit(recipe, self.data, how)
            except torch.OutOfMemoryError:
                raise RecipeError("does not fit into the memory of the accelerator") from None
            except StoppedError as error:
                raise KeyboardInterrupt(str(error)) from None


def tune_recipe(plan: Sweep, data: PostSplits, cache: Path | None) -> list[SweepTrial]:
    """Sweep by training, and return every trial; the test split is not opened.

    Nothing is written before ranges and posts are found good. Raises a `MikoError`.
    """
    plan.check()
    held = PostsInMemory(
        data.path, {split: read_labelled_split(data, split) for split in ("train", "val")}
    )
    facts = {
        "data": {split: held.fingerprint(split) for split in held.splits},
        "versions": {**manifest.collect_versions(), "optuna": metadata.version("optuna")},
    }
    with manifest.lock_folder(plan.out):
        claim_sweep(plan, facts)
        return run_sweep(plan, TrainingObjective(plan, held, cache))


def read_kept_metric(place: Path, early: str, metric: str) -> float:
    """Return a validation metric of the epoch that a bundle was kept from, the best by `early`.

    Raises `PostError` where validation does not measure it.
    """
    lines = (place / bundle.METRICS_FILE).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["stage"] == "task"]
    sign = -1 if early == "loss" else 1
    epochs = [row["validation"] for row in rows if "validation" in row]
    kept = max(epochs, key=lambda measures: sign * measures[early])
    if metric not in kept:
        raise PostError(f"val has no {metric}; --metric may be {', '.join(kept)}")
    return float(kept[metric])
