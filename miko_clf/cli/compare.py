"""The commands that measure systems, and search for one: their options and what they call."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.cli.ocr import OCR_HELP, read_data_by_ocr
from miko_clf.cli.parser import (
    Command,
    Parser,
    UsageError,
    choose_cache,
    format_split_options,
    open_data,
    parse_dated_split,
    parse_label_map,
    print_json,
    require_options,
    write_skipped_posts,
)

SWEEP_METRICS = ("macro_f1", "auroc", "accuracy", "average_precision", "loss")
# options of `evaluate` for bundles, which a comparison of recipes has no use for or has settled
_BUNDLE_OPTIONS = (
    "images", "robustness", "attribution", "groups", "label_map", "split_seed", "split_by",
    "test_from", "val_from", "task", "ocr",
)  # fmt: skip


def _add_compare_options(parser: Parser) -> None:
    add = parser.add_option
    say = "YAML files or names of shipped recipes; RECIPE,key=value,... changes keys"
    add("recipes RECIPE", str, say, nargs="+")
    say = (
        "folder of trials and report; a comparison that was stopped there goes on, and one that "
        "is done takes further recipes and seeds"
    )
    add("--out DIR", Path, say)
    add("--seeds N", PositiveInt, "", 5)
    say = (
        "arms to train: with, student, without, shuffled, other-post, empty, noise "
        "(default: all that a recipe has)"
    )
    add("--arms A,B", str, say)
    say = "cross-validate over all posts but test, in grouped folds drawn anew for each seed"
    add("--folds K", PositiveInt, say)
    add("--jobs N", PositiveInt, "trials at a time (default: one a core, one on a GPU)")
    say = "say too which pairs differ by less than this in macro-F1 and AUROC, such as 0.01"
    add("--margin X", float, say)
    parser.add_training_options()
    parser.add_resamples_option()
    parser.add_json_option()
    parser.add_data_options()


def _run_compare(args: Namespace, line: str) -> None:
    """Train recipes, their arms and controls from several seeds, and test every difference.

    Trains on train and compares on val, so that test is left for one look: miko-clf evaluate DIR
    --data D. Prints a table of every arm and what the differences show.
    """
    require_options(args, "data", "out")
    if args.folds == 1:
        raise UsageError("--folds 1 leaves nothing to learn from; give 2 or more")
    from miko_clf.experiment.compare import compare
    from miko_clf.experiment.design import PostSource

    dates = parse_dated_split(args) or (None, None)
    source = PostSource(
        path=str(args.data),
        label_map=tuple(sorted(parse_label_map(args.label_map).items())),
        split_seed=args.split_seed,
        task=args.task,
        skip_bad=args.skip_bad,
        test_from=dates[0],
        val_from=dates[1],
    )
    report = compare(
        args.recipes,
        source,
        args.out,
        seeds=args.seeds,
        arms=args.arms.split(",") if args.arms else None,
        folds=args.folds,
        jobs=args.jobs,
        cache=choose_cache(args),
        positive=args.positive,
        leaks=args.i_know_it_leaks,
        margin=args.margin,
        num_resamples=args.resamples,
        command=line,
    )
    _show_report(report, args.out / "report", as_json=args.json)
    if args.skip_bad:
        from miko_clf.experiment.folds import OUT_OF_FOLD, list_skipped_posts

        splits = ("train", "val") if args.folds is None else (OUT_OF_FOLD,)
        write_skipped_posts(list_skipped_posts(source, splits), args.out / "skipped.json")


def _add_evaluate_options(parser: Parser) -> None:
    add = parser.add_option
    say = "bundles that fit has written, or one folder that compare has"
    add("bundles BUNDLE", Path, say, nargs="+")
    add("--split S", str, "rows; opening test is counted", "test")
    add("--out DIR", Path, "folder of the report (default: the first bundle's path + .report)")
    add("--quick", bool, "the table alone: no curves, slices, explanations")
    say = "small pictures of the worst mistakes in the report, blurred until clicked"
    add("--images", bool, say)
    say = "score the posts again with missing inputs, typos, JPEG, rescaling and noise: minutes"
    add("--robustness", bool, say)
    add("--ocr", bool, OCR_HELP)
    add("--attribution", bool, "which words and patches the worst mistakes hang on; needs captum")
    say = 'JSON or YAML file of words by group, {"women": ["woman"]}, to look for bias'
    add("--groups FILE", Path, say)
    say = "trials of a comparison at a time (default: one a core, one on a GPU)"
    add("--jobs N", PositiveInt, say)
    say = "score a test split of which more than a tenth was learned from, and the rest by itself"
    add("--allow-overlap", bool, say)
    say = "of a comparison: which pairs differ by less than this in macro-F1 and AUROC"
    add("--margin X", float, say)
    parser.add_resamples_option()
    parser.add_json_option()
    parser.add_data_options()


def _run_evaluate(args: Namespace, line: str) -> None:
    """Evaluate bundles, or a comparison, on a split: table, curves, slices, explanations.

    Prints a table of systems, arms and baselines, each figure with its interval, and writes
    report.html, report.md and report.json. Every opening of test is counted in the bundles.
    """
    require_options(args, "data")
    from miko_clf.experiment.design import is_experiment

    if any(map(is_experiment, args.bundles)):
        _run_evaluate_comparison(args, line)
        return
    if args.margin is not None:
        raise UsageError("--margin is for a comparison over seeds, which compare makes")
    from miko_clf.data.splits import is_test_split
    from miko_clf.evaluate.analysis.slices import read_target_groups
    from miko_clf.evaluate.evaluator import AnalysisOptions, evaluate_bundles
    from miko_clf.evaluate.model_card import add_test_results

    data, skipped = open_data(args)
    data = read_data_by_ocr(data, args)
    analyses = AnalysisOptions(
        images=args.images,
        robustness=args.robustness,
        attribution=args.attribution,
        groups=None if args.groups is None else read_target_groups(args.groups),
    )
    report = evaluate_bundles(
        args.bundles,
        data,
        args.split,
        cache=choose_cache(args),
        num_resamples=args.resamples,
        command=line,
        analyses=None if args.quick else analyses,
        allow_overlap=args.allow_overlap,
    )
    out = _write_report(report, args)
    if is_test_split(args.split):
        for path in args.bundles:
            add_test_results(path, report)
    write_skipped_posts(skipped, out / "skipped.json")


def _run_evaluate_comparison(args: Namespace, line: str) -> None:
    from miko_clf.experiment.compare import evaluate_comparison

    if len(args.bundles) > 1:
        raise UsageError("a comparison is evaluated alone; name one folder")
    if refused := [name for name in _BUNDLE_OPTIONS if args[name]]:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise UsageError(f"{names} is not for a comparison; its bundles lie in its trials/")
    report = evaluate_comparison(
        args.bundles[0],
        args.data,
        args.split,
        cache=choose_cache(args),
        jobs=args.jobs,
        num_resamples=args.resamples,
        command=line,
        margin=args.margin,
        allow_overlap=args.allow_overlap,
    )
    _write_report(report, args)


def _write_report(report: Any, args: Namespace) -> Path:
    """Write and print a report; return its folder."""
    from miko_clf.evaluate.report import write_report

    first = args.bundles[0] if args.bundles[0].name else args.bundles[0].resolve()
    out: Path = args.out or first.with_name(f"{first.name}.report")
    write_report(report, out)
    _show_report(report, out, as_json=args.json)
    return out


def _show_report(report: Any, folder: Path, *, as_json: bool) -> None:
    """Print a report that is written in the folder."""
    from miko_clf.evaluate.report import print_report

    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")
    else:
        print_report(report)
    html, page, fields = (folder / f"report.{kind}" for kind in ("html", "md", "json"))
    print(f"report: {html}, {page} and {fields}", file=sys.stderr if as_json else sys.stdout)


def _add_cross_options(parser: Parser) -> None:
    add = parser.add_option
    add("bundles BUNDLE", Path, "bundles that fit has written", nargs="+")
    add("--data D", list, "folder or file of posts to try every bundle on; give it once for each")
    add("--split S", str, "rows; every look at test is counted in the bundles", "val")
    add("--metric", ("macro_f1", "auroc", "accuracy"), "what is measured", "macro_f1")
    add("--out DIR", Path, "folder of matrix.json (default: the first bundle's path + .cross)")
    add("--label-map A=B,C=B", str, "rename or merge labels as posts are read")
    parser.add_resamples_option()
    parser.add_json_option()
    parser.add_cache_options()


def _run_cross(args: Namespace, line: str) -> None:
    """Try bundles on data that they were not trained on, each figure with its interval."""
    require_options(args, "data")
    from miko_clf import manifest
    from miko_clf.data.dataset import open_folder

    label_map = parse_label_map(args.label_map)
    folders = [open_folder(Path(path), label_map=label_map) for path in args.data]
    from miko_clf.evaluate.analysis.transfer import measure_transfer

    matrix = measure_transfer(
        args.bundles,
        folders,
        args.split,
        choose_cache(args),
        metric=args.metric,
        num_resamples=args.resamples,
        command=line,
    )
    first = args.bundles[0]
    path = (args.out or first.with_name(f"{first.name}.cross")) / "matrix.json"
    manifest.write_json(path, {**matrix.as_json(), "command": line})
    if args.json:
        print(path.read_text(encoding="utf-8"), end="")
    else:
        _print_matrix(matrix)
    print(f"matrix: {path}", file=sys.stderr if args.json else sys.stdout)


def _print_matrix(matrix: Any) -> None:
    from miko_clf.tables import make_text_table, print_table

    sets = {cell.test: f"{cell.test}\n{cell.posts:,} posts" for cell in matrix.cells}
    rows: dict[str, list[str]] = {}
    for cell in matrix.cells:
        value, low, high = cell.value
        figure = f"{value:.3f}{'*' if cell.home else ''} [{low:.3f}, {high:.3f}]"
        rows.setdefault(cell.train, [cell.train]).append(figure)
    title = f"{matrix.metric}, split {matrix.split}"
    print_table(make_text_table(title, ("trained as", *sets.values()), list(rows.values())))
    print("* the data that the system was trained on. In brackets the 95 % interval over posts.")


def _add_sweep_options(parser: Parser) -> None:
    add = parser.add_option
    say = "YAML file or name of a shipped recipe; RECIPE,key=value,... changes keys"
    add("recipe RECIPE", str, say)
    say = (
        "a key and what it may be: fusion.layers=1..4, fusion.dropout=0.0..0.5, "
        "task.optimiser.rate=log:1e-4..1e-2 or task.optimiser.decay=linear,cosine; "
        "give it once for each key"
    )
    add("--range KEY=...", list, say)
    say = "folder of trials, logs and the best; a sweep that was stopped there goes on"
    add("--out DIR", Path, say)
    add("--trials N", PositiveInt, "trials in all, those among them that are done already", 20)
    say = (
        "what validation measures in the kept epoch (default: %(default)s); the best value is "
        "flattered, because validation chose it"
    )
    add("--metric", SWEEP_METRICS, say, "macro_f1")
    say = "seeds that a trial is trained from and its value is the mean of"
    add("--seeds N", PositiveInt, say, 1)
    parser.add_training_options()
    parser.add_json_option()
    parser.add_data_options()


def _run_sweep(args: Namespace, line: str) -> None:
    """Search values of a recipe's keys by validation, which flatters the best it finds.

    Prints the trials, best first, and how much each key mattered; --out holds the best recipe as
    best.yaml and its bundle as best.
    """
    require_options(args, "data", "out", "range")
    from miko_clf import manifest
    from miko_clf.experiment.search_space import parse_ranges
    from miko_clf.experiment.sweep import Sweep, measure_importances, tune_recipe

    plan = Sweep(
        out=args.out,
        recipe=args.recipe,
        ranges=parse_ranges(args.range),
        trials=args.trials,
        metric=args.metric,
        seeds=args.seeds,
        positive=args.positive,
        leaks=args.i_know_it_leaks,
    )
    plan.check_ranges()  # before posts are read
    data, skipped = open_data(args)
    trials = tune_recipe(plan, data, choose_cache(args))
    shares = measure_importances(plan, trials)
    manifest.write_json(plan.out / "importance.json", shares)
    if args.json:
        best: Any = plan.find_best(trials)
        rows = [asdict(trial) for trial in trials]
        facts = {"metric": plan.metric, "trials": rows, "importance": shares, "best": best.number}
        print_json(facts)
    else:
        _print_trials(plan, trials, shares)
        _print_best(plan, trials, f"{shlex.quote(str(args.data))}{format_split_options(args)}")
    write_skipped_posts(skipped, plan.out / "skipped.json")


def _print_trials(plan: Any, trials: Sequence[Any], shares: Mapping[str, float]) -> None:
    from miko_clf.tables import make_text_table, print_table

    keys = [key_range.key for key_range in plan.ranges]
    done = [trial for trial in trials if trial.value is not None]
    rows = [
        (
            str(trial.number),
            _format_value(trial),
            *(_format_param(trial.params[key]) for key in keys),
            f"{trial.seconds:.1f}" if trial.repeats is None else f"as {trial.repeats}",
        )
        for trial in sorted(done, key=lambda trial: -plan.sign * trial.value)
    ]
    columns = ("trial", plan.metric, *keys, "seconds")
    print_table(make_text_table(f"{plan.metric} on val, best first", columns, rows))
    for trial in trials:
        if trial.state == "failed":
            print(f"trial {trial.number} failed: {trial.error}")
    if shares:
        said = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        print(f"importance (PED-ANOVA, rough): {said}")


def _format_value(trial: Any) -> str:
    values = trial.by_seed
    spread = f" [{min(values):.4f}, {max(values):.4f}]" if len(values) > 1 else ""
    return f"{trial.value:.4f}{spread}"


def _format_param(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _print_best(plan: Any, trials: Sequence[Any], data: str) -> None:
    best, count = plan.find_best(trials), sum(trial.value is not None for trial in trials)
    which = " (of its first seed)" if plan.seeds > 1 else ""
    print(f"best:   {plan.out / 'best.yaml'}, bundle {plan.out / 'best'}{which}")
    print(
        f"its {plan.metric} of {best.value:.4f} is flattered: validation chose it among {count} "
        "trials; only posts that no choice was made on can say how good it is"
    )
    bundle = shlex.quote(str(plan.out / "best"))
    print(f"next:   miko-clf evaluate {bundle} --data {data} --split test")


COMPARE_COMMANDS: dict[str, Command] = {
    "sweep": Command(
        "RECIPE --data D --out DIR --range KEY=... [--range KEY=... ...] [options]",
        "tiny --data posts --out runs/sweep --range fusion.layers=1..4 --trials 20",
        _add_sweep_options, _run_sweep, "train,sweep",
    ),
    "compare": Command(
        "RECIPE... --data D --out DIR [--seeds N] [options]",
        "mobilenet-minilm-with --data posts --out runs/does-it-help",
        _add_compare_options, _run_compare, "train",
    ),
    "evaluate": Command(
        "BUNDLE... --data D [--split S] [options]",
        "runs/demo --data runs/world/sarcasm --split test",
        _add_evaluate_options, _run_evaluate, "train",
    ),
    "cross": Command(
        "BUNDLE... --data D1 [--data D2 ...] [--split S] [options]",
        "runs/a runs/b --data data/a --data data/b",
        _add_cross_options, _run_cross, "train",
    ),
}  # fmt: skip
