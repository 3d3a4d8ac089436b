"""The sweep command: its options and what it calls."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.cli.parser import (
    Command,
    Parser,
    UsageError,
    add_data_options,
    choose_cache,
    open_data,
    require_options,
    write_skipped_posts,
)

SWEEP_METRICS = ("macro_f1", "auroc", "accuracy", "average_precision", "loss")


def _add_sweep_options(parser: Parser) -> None:
    add = parser.add_argument
    say = "YAML file or name of a shipped recipe; RECIPE,key=value,... changes keys"
    add("recipe", type=str, metavar="RECIPE", help=say)
    say = (
        "a key and what it may be: fusion.layers=1..4, fusion.dropout=0.0..0.5, "
        "task.optimiser.rate=log:1e-4..1e-2 or task.optimiser.decay=linear,cosine; "
        "give it once for each key"
    )
    add("--range", type=str, action="append", default=[], metavar="KEY=...", help=say)
    add_data_options(parser)
    say = "folder of trials, logs and the best; a sweep that was stopped there goes on"
    add("--out", type=Path, metavar="DIR", help=say)
    say = "trials in all, those among them that are done already (default: %(default)s)"
    add("--trials", type=PositiveInt, default=20, metavar="N", help=say)
    say = (
        "what validation measures in the kept epoch (default: %(default)s); the best value is "
        "flattered, because validation chose it"
    )
    add("--metric", choices=SWEEP_METRICS, default="macro_f1", help=say)
    say = "seeds that a trial is trained from and its value is the mean of (default: %(default)s)"
    add("--seeds", type=PositiveInt, default=1, metavar="N", help=say)
    say = "positive class of two, TASK=NAME,... where there are tasks (default: the rarer)"
    add("--positive", type=str, metavar="NAME", help=say)
    say = "read a description, intentions or a rationale that give the label away all the same"
    add("--i-know-it-leaks", action="store_true", help=say)


def _run_sweep(given: Namespace, line: str) -> None:
    require_options(given, "data", "out")
    if not given.range:
        raise UsageError("the following arguments are required: --range")
    from miko_clf import manifest
    from miko_clf.experiment.search_space import parse_ranges
    from miko_clf.experiment.sweep import Sweep, measure_importances

    plan = Sweep(
        out=given.out,
        recipe=given.recipe,
        ranges=parse_ranges(given.range),
        trials=given.trials,
        metric=given.metric,
        seeds=given.seeds,
        positive=given.positive,
        leaks=given.i_know_it_leaks,
    )
    plan.check()  # before torch is imported and posts are read
    from miko_clf.experiment.sweep import tune_recipe

    data, skipped = open_data(given)
    tried = tune_recipe(plan, data, choose_cache(given))
    shares = measure_importances(plan, tried)
    manifest.write_json(plan.out / "importance.json", shares)
    _show_trials(plan, tried, shares)
    _print_best(plan, tried, given.data)
    write_skipped_posts(skipped, plan.out / "skipped.json")


def _show_trials(plan: Any, tried: Sequence[Any], shares: Mapping[str, float]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    keys = [one.key for one in plan.ranges]
    table = Table(box=box.SIMPLE_HEAD, title=f"{plan.metric} on val, best first")
    for name in ("trial", plan.metric, *map(escape, keys), "seconds"):
        table.add_column(name, justify="right", overflow="fold")
    done = [one for one in tried if one.value is not None]
    for one in sorted(done, key=lambda one: -plan.sign * one.value):
        seconds = f"as {one.repeats}" if one.repeats is not None else f"{one.seconds:.1f}"
        values = [escape(_format_param(one.params[key])) for key in keys]
        table.add_row(str(one.number), _format_value(one), *values, seconds)
    console = Console()
    console.print(table)
    for one in tried:
        if one.state == "failed":
            print(f"trial {one.number} failed: {one.error}")
    if shares:
        said = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        print(f"importance (PED-ANOVA, rough): {said}")


def _format_value(one: Any) -> str:
    spread = f" [{min(one.by_seed):.4f}, {max(one.by_seed):.4f}]" if len(one.by_seed) > 1 else ""
    return f"{one.value:.4f}{spread}".replace("[", r"\[")


def _format_param(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _print_best(plan: Any, tried: Sequence[Any], data: Path) -> None:
    best, count = plan.best(tried), sum(one.value is not None for one in tried)
    which = " (of its first seed)" if plan.seeds > 1 else ""
    print(f"best:   {plan.out / 'best.yaml'}, bundle {plan.out / 'best'}{which}")
    print(
        f"its {plan.metric} of {best.value:.4f} is flattered: validation chose it among {count} "
        "trials; only posts that no choice was made on can say how good it is"
    )
    bundle, where = shlex.quote(str(plan.out / "best")), shlex.quote(str(data))
    print(f"next:   miko-clf evaluate {bundle} --data {where} --split test")


SWEEP_COMMANDS: Mapping[str, Command] = {
    "sweep": Command(
        "Search values of a recipe's keys by validation, which flatters the best it finds",
        "RECIPE --data D --out DIR --range KEY=... [--range KEY=... ...] [options]",
        "tiny --data posts --out runs/sweep --range fusion.layers=1..4 --trials 20",
        _add_sweep_options,
        "train,sweep",
    )
}
SWEEP_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"sweep": _run_sweep}
