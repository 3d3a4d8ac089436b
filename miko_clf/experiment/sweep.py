"""A search over a recipe's keys: what is tried next, what it was worth, and the best of it."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miko_clf import manifest
from miko_clf import recipe as recipes
from miko_clf.errors import EncoderError, RecipeError
from miko_clf.experiment.ranges import Value
from miko_clf.experiment.record import Attempt, Sweep, attempts, write

STOPPED = "stopped; the same command goes on from there"
_ENOUGH = 10  # trials of different values below which importances would be noise

Objective = Callable[[int, Mapping[str, Value]], Sequence[float]]
"""From the number and values of a trial to what it is worth by each seed."""


def sweep(plan: Sweep, objective: Objective) -> list[Attempt]:
    """Try values until all trials have ended, and return every trial in order.

    What stands in the folder is not done again. A trial that was under way when the process died
    is tried again with its values; what comes next depends on the trials before alone, so that a
    stopped sweep finds what an unbroken one does. A trial that the recipe is to blame for counts
    as failed. The best recipe, and its bundle if there is one, are kept. Raises a `MikoError`.
    """
    tried = attempts(plan.out)
    _keep(plan, tried)
    try:
        with _bar(plan, tried) as bar:
            for number in range(plan.trials):
                if number == len(tried):
                    tried.append(Attempt(number, _suggested(plan, tried)))
                    write(plan.out, tried)
                if tried[number].state == "running":
                    tried[number] = _ended(tried[number], tried[:number], objective)
                    write(plan.out, tried)
                    _keep(plan, tried)
                    _tell(bar, plan, tried[: number + 1])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(STOPPED) from None
    if plan.best(tried) is None:
        raise RecipeError(
            f"{plan.out}: none of {plan.trials} trials could be trained: {tried[0].error}"
        )
    return tried


def importances(plan: Sweep, tried: Sequence[Attempt]) -> dict[str, float]:
    """Return each key's share in what made values good, largest first (PED-ANOVA, IJCAI 2023).

    There is none of fewer than ten complete trials.
    """
    first = [one for one in tried if one.value is not None and one.repeats is None]
    if len(first) < _ENOUGH:
        return {}
    found = optuna.importance.get_param_importances(_study(plan, first, 0))
    return {key: float(share) for key, share in found.items()}


def _suggested(plan: Sweep, tried: Sequence[Attempt]) -> dict[str, Value]:
    """Return the values to try next: a function of the trials before, and of how many they are."""
    found = _study(plan, tried, len(tried)).ask(_distributions(plan)).params
    return {one.key: found[one.key] for one in plan.ranges}


def _study(plan: Sweep, tried: Sequence[Attempt], seed: int) -> Any:
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


def _ended(one: Attempt, before: Sequence[Attempt], objective: Objective) -> Attempt:
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


def _keep(plan: Sweep, tried: Sequence[Attempt]) -> None:
    """Keep the best recipe and the bundle of its first seed; give up those of ended trials.

    Killed anywhere, it does the rest when it is called again.
    """
    best = plan.best(tried)
    if best is not None:
        manifest.write_text(plan.out / "best.yaml", recipes.dump(plan.recipe_of(best.params)))
        bundle, kept = plan.bundle(best.number, 0), plan.out / "best"
        if bundle.is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            os.rename(bundle, kept)
    for one in tried:
        if one.state != "running":
            shutil.rmtree(plan.folder(one.number), ignore_errors=True)


def _tell(bar: Progress, plan: Sweep, tried: Sequence[Attempt]) -> None:
    last, best = tried[-1], plan.best(tried)
    said = f"best {plan.metric} {best.value:.4f}" if best else "none yet"
    bar.update(bar.task_ids[0], completed=len(tried), description=said)
    if not bar.console.is_terminal:
        worth = last.state if last.value is None else f"{last.value:.4f}"
        line = f"{len(tried)} of {plan.trials} trials: {worth}, {said}"
        bar.console.print(line, highlight=False)


def _bar(plan: Sweep, tried: Sequence[Attempt]) -> Progress:
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
