"""A search over a recipe's keys: what is tried next, what it was worth, the best of it."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import optuna
import torch
from optuna.trial import TrialState, create_trial

from miko_clf import bundle, manifest
from miko_clf.data.splits import PostsInMemory, PostSplits
from miko_clf.errors import BundleError, EncoderError, PostError, RecipeError
from miko_clf.experiment.design import parse_recipe_source
from miko_clf.experiment.search_space import SearchRange, SearchValue
from miko_clf.experiment.trial import STOPPED
from miko_clf.pipeline import fit
from miko_clf.preflight import check_labels
from miko_clf.progress import ProgressBar
from miko_clf.recipe.schema import Recipe, dump_recipe, load_recipe
from miko_clf.train.loop import StoppedError, check_single_process

_SWEEP_FILE = "sweep.json"
_TRIALS_FILE = "trials.jsonl"
_ENOUGH = 10  # trials of different values below which importances would be noise


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

    def make_recipe(self, params: Mapping[str, SearchValue]) -> Recipe:
        """Return the recipe with these values; raises `RecipeError` where it refuses them."""
        name, changes = parse_recipe_source(self.recipe)
        return load_recipe(name, {**changes, **params})

    def check_ranges(self) -> None:
        """Raise `RecipeError` where the recipe has no such key, or refuses what a range holds."""
        self.make_recipe({})
        for span in self.ranges:
            for value in span.probes:
                self.make_recipe({span.key: value})

    def locate_trial(self, number: int) -> Path:
        """Return where the bundles of a trial lie until it has ended: `seed-0` and so on."""
        return self.out / "trials" / str(number)

    def find_best(self, trials: Sequence[SweepTrial]) -> SweepTrial | None:
        """Return the best trial, the earliest of equals; none where none is complete."""
        worth = [(self.sign * trial.value, trial) for trial in trials if trial.value is not None]
        return max(worth, key=lambda pair: pair[0])[1] if worth else None


def tune_recipe(plan: Sweep, data: PostSplits, cache: Path | None) -> list[SweepTrial]:
    """Sweep by training, and return every trial; the test split is not opened.

    Nothing is written before ranges and posts are found good. Raises a `MikoError`.
    """
    check_single_process()
    plan.check_ranges()
    posts = {split: data.read(split) for split in ("train", "val")}
    check_labels(posts, data.path)
    held = PostsInMemory(data.path, posts)
    facts = {
        "data": {split: held.fingerprint(split) for split in held.splits},
        "versions": {**manifest.collect_versions(), "optuna": metadata.version("optuna")},
    }
    with manifest.lock_folder(plan.out):
        claim_sweep(plan, facts)
        return run_sweep(plan, partial(_train_trial, plan, held, cache))


def claim_sweep(plan: Sweep, facts: Mapping[str, Any]) -> None:
    """Write what is searched into a new folder, or find that it is what is searched there.

    `facts` are digests of the posts and versions. Raises `BundleError` where it is another sweep.
    """
    facts = {
        "recipe": plan.make_recipe({}).model_dump(mode="json"),
        "ranges": {span.key: span._asdict() for span in plan.ranges},
        **{name: getattr(plan, name) for name in ("metric", "seeds", "positive", "leaks")},
        **facts,
    }
    manifest.claim_folder(plan.out / _SWEEP_FILE, facts, what="sweep")


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


def write_sweep_trials(out: Path, trials: Sequence[SweepTrial]) -> None:
    """Write the trials of a folder, all or nothing."""
    rows = (json.dumps(asdict(trial), ensure_ascii=False, allow_nan=False) for trial in trials)
    manifest.write_text(out / _TRIALS_FILE, "".join(row + "\n" for row in rows))


_Objective = Callable[[int, Mapping[str, SearchValue]], Sequence[float]]
"""From the number and values of a trial to what it is worth by each seed."""


def run_sweep(plan: Sweep, objective: _Objective) -> list[SweepTrial]:
    """Try values until all trials have ended, and return every trial in order.

    What stands in the folder is not done again. A trial that was under way when the process died
    is tried again with its values; what comes next depends on the trials before alone, so that a
    stopped sweep finds what an unbroken one does. A trial that the recipe is to blame for counts
    as failed. The best recipe, and its bundle if there is one, are kept. Raises a `MikoError`.
    """
    trials = read_sweep_trials(plan.out)
    _keep_best(plan, trials)
    try:
        done = sum(trial.state != "running" for trial in trials)
        with ProgressBar("trials", plan.trials, done=done) as bar:
            for number in range(plan.trials):
                if number == len(trials):
                    trials.append(SweepTrial(number, _suggest_values(plan, trials)))
                    write_sweep_trials(plan.out, trials)
                if trials[number].state == "running":
                    trials[number] = _finish_trial(trials[number], trials[:number], objective)
                    write_sweep_trials(plan.out, trials)
                    _keep_best(plan, trials)
                    _show_trial(bar, plan, trials[: number + 1])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(STOPPED) from None
    if plan.find_best(trials) is None:
        what = f"none of {plan.trials} trials could be trained"
        raise RecipeError(f"{plan.out}: {what}: {trials[0].error}")
    return trials


def _suggest_values(plan: Sweep, trials: Sequence[SweepTrial]) -> dict[str, SearchValue]:
    """Return the values to try next: a function of the trials before, and of how many they are."""
    params = _build_study(plan, trials, len(trials)).ask(_list_distributions(plan)).params
    return {span.key: params[span.key] for span in plan.ranges}


def _build_study(plan: Sweep, trials: Sequence[SweepTrial], seed: int) -> Any:
    """Return the trials as optuna knows them, which is told them anew: our file is the record."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize" if plan.sign < 0 else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    distributions = _list_distributions(plan)
    for trial in trials:
        params, value = dict(trial.params), trial.value
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        known = create_trial(params=params, distributions=distributions, value=value, state=state)
        study.add_trial(known)
    return study


def _list_distributions(plan: Sweep) -> dict[str, Any]:
    """Return what is drawn from, in an order that is not that of the command line."""
    return {span.key: span.distribution for span in sorted(plan.ranges, key=lambda span: span.key)}


def _finish_trial(
    trial: SweepTrial, before: Sequence[SweepTrial], objective: _Objective
) -> SweepTrial:
    same = next((other for other in before if other.params == trial.params), None)
    if same is not None:
        return replace(same, number=trial.number, seconds=0.0, repeats=same.number)
    started = time.monotonic()
    try:
        by_seed, error = tuple(objective(trial.number, trial.params)), None
        if not all(map(math.isfinite, by_seed)):
            error = "what it is worth is not a number"
    except (RecipeError, EncoderError) as refused:
        error = str(refused)
    seconds = round(time.monotonic() - started, 1)
    if error is not None:
        return replace(trial, state="failed", seconds=seconds, error=error)
    value = fmean(by_seed)
    return replace(trial, state="complete", value=value, by_seed=by_seed, seconds=seconds)


def _keep_best(plan: Sweep, trials: Sequence[SweepTrial]) -> None:
    """Keep the best recipe and the bundle of its first seed; give up those of ended trials.

    Killed anywhere, it does the rest when it is called again.
    """
    best = plan.find_best(trials)
    if best is not None:
        recipe = dump_recipe(plan.make_recipe(best.params))
        manifest.write_text(plan.out / "best.yaml", recipe)
        trained, kept = plan.locate_trial(best.number) / "seed-0", plan.out / "best"
        if trained.is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            os.rename(trained, kept)
    for trial in trials:
        if trial.state != "running":
            shutil.rmtree(plan.locate_trial(trial.number), ignore_errors=True)


def _show_trial(bar: ProgressBar, plan: Sweep, trials: Sequence[SweepTrial]) -> None:
    last, best = trials[-1], plan.find_best(trials)
    leader = f"best {plan.metric} {best.value:.4f}" if best else "none yet"
    bar.update(len(trials), what=leader)
    if not bar.on_terminal:
        worth = last.state if last.value is None else f"{last.value:.4f}"
        bar.print(f"{len(trials)} of {plan.trials} trials: {worth}, {leader}")


def measure_importances(plan: Sweep, trials: Sequence[SweepTrial]) -> dict[str, float]:
    """Return each key's share in what made values good, largest first (PED-ANOVA, IJCAI 2023).

    There is none of fewer than ten complete trials.
    """
    complete = [trial for trial in trials if trial.value is not None and trial.repeats is None]
    if len(complete) < _ENOUGH:
        return {}
    shares = optuna.importance.get_param_importances(_build_study(plan, complete, 0))
    return {key: float(share) for key, share in shares.items()}


def _train_trial(
    plan: Sweep,
    data: PostsInMemory,
    cache: Path | None,
    number: int,
    params: Mapping[str, SearchValue],
) -> list[float]:
    """Train a trial from each seed, and return what validation measured in the epochs kept.

    What training prints goes to `logs/`. Raises a `MikoError`, or KeyboardInterrupt on Ctrl-C.
    """
    recipe, values = plan.make_recipe(params), []
    for seed in range(plan.seeds):
        place = plan.locate_trial(number) / f"seed-{seed}"
        if not place.exists():
            seeded = recipe.model_copy(update={"seed": recipe.seed + seed})
            with _log_output(plan.out / "logs" / f"{number}.log"):
                fit(seeded, data, place, cache=cache, positive=plan.positive, leaks=plan.leaks)
        values.append(read_kept_metric(place, recipe.task.early.metric, plan.metric))
    return values


@contextmanager
def _log_output(path: Path) -> Iterator[None]:
    """Send what training prints to the end of a file, and raise what ends it as a sweep has it."""
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            yield
    except torch.OutOfMemoryError:
        raise RecipeError("does not fit into the memory of the accelerator") from None
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from None


def read_kept_metric(place: Path, early: str, metric: str) -> float:
    """Return a validation metric of the epoch that a bundle was kept from, the best by `early`.

    Raises `PostError` where validation does not measure it.
    """
    lines = (place / bundle.METRICS_FILE).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "validation" in row]
    # What is fitted, mixed or averaged after the last epoch is what answers; else the best epoch.
    settled = [row["validation"] for row in rows if row["stage"] in ("probe", "ensemble")]
    epochs = [row["validation"] for row in rows if row["stage"] == "task"]
    sign = -1 if early == "loss" else 1
    kept = settled[-1] if settled else max(epochs, key=lambda measures: sign * measures[early])
    known = [name for name, value in kept.items() if value is not None]
    if metric not in known:
        raise PostError(f"val has no {metric}; --metric may be {', '.join(known)}")
    return float(kept[metric])
