"""The commands that measure systems: their options and what they call."""

from collections.abc import Callable, Mapping
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
    find_cache_folder,
    open_data,
    parse_label_map,
    require_options,
    write_skipped_posts,
)

# options of `evaluate` for bundles, which a comparison of recipes has no use for or has settled
_BUNDLE_OPTIONS = (
    "images",
    "robustness",
    "attribution",
    "groups",
    "label_map",
    "split_seed",
    "task",
)


def _add_compare_options(parser: Parser) -> None:
    add = parser.add_argument
    say = "YAML files or names of shipped recipes; RECIPE,key=value,... changes keys"
    add("recipes", type=str, nargs="+", metavar="RECIPE", help=say)
    add_data_options(parser)
    say = (
        "folder of trials and report; a comparison that was stopped there goes on, and one that "
        "is done takes further recipes and seeds"
    )
    add("--out", type=Path, metavar="DIR", help=say)
    add("--seeds", type=PositiveInt, default=5, metavar="N", help="(default: %(default)s)")
    say = (
        "arms to train: with, student, without, shuffled, other-post, empty, noise "
        "(default: all that a recipe has)"
    )
    add("--arms", type=str, metavar="A,B", help=say)
    say = "cross-validate over all posts but test, in grouped folds drawn anew for each seed"
    add("--folds", type=PositiveInt, metavar="K", help=say)
    say = "trials at a time (default: one a core, one on a GPU)"
    add("--jobs", type=PositiveInt, metavar="N", help=say)
    say = "positive class of two (default: the rarer)"
    add("--positive", type=str, metavar="NAME", help=say)
    say = "read a description, intentions or a rationale that give the label away all the same"
    add("--i-know-it-leaks", action="store_true", help=say)
    _add_resamples_option(parser)


def _add_evaluate_options(parser: Parser) -> None:
    add = parser.add_argument
    say = "bundles that fit has written, or one folder that compare has"
    add("bundles", type=Path, nargs="+", metavar="BUNDLE", help=say)
    add_data_options(parser)
    say = "rows; opening test is counted (default: %(default)s)"
    add("--split", type=str, default="test", metavar="S", help=say)
    say = "folder of the report (default: the first bundle's path + .report)"
    add("--out", type=Path, metavar="DIR", help=say)
    add("--quick", action="store_true", help="the table alone: no curves, slices, explanations")
    say = "small pictures of the worst mistakes in the report, blurred until clicked"
    add("--images", action="store_true", help=say)
    say = "score the posts again with missing inputs, typos, JPEG, rescaling and noise: minutes"
    add("--robustness", action="store_true", help=say)
    say = "which words and patches the worst mistakes hang on; needs captum"
    add("--attribution", action="store_true", help=say)
    say = 'JSON or YAML file of words by group, {"women": ["woman"]}, to look for bias'
    add("--groups", type=Path, metavar="FILE", help=say)
    say = "trials of a comparison at a time (default: one a core, one on a GPU)"
    add("--jobs", type=PositiveInt, metavar="N", help=say)
    _add_resamples_option(parser)


def _add_resamples_option(parser: Parser) -> None:
    say = "bootstrap resamples behind each interval (default: %(default)s)"
    parser.add_argument("--resamples", type=PositiveInt, default=1000, metavar="N", help=say)


def _run_compare(given: Namespace, line: str) -> None:
    require_options(given, "data", "out")
    if given.folds == 1:
        raise UsageError("--folds 1 leaves nothing to learn from; give 2 or more")
    from miko_clf.experiment import compare
    from miko_clf.experiment.design import Experiment, PostSource

    source = PostSource(
        path=str(given.data),
        label_map=tuple(sorted(parse_label_map(given.label_map).items())),
        split_seed=given.split_seed,
        task=given.task,
        skip_bad=given.skip_bad,
    )
    experiment = Experiment(
        recipes=tuple(given.recipes),
        source=source,
        seeds=given.seeds,
        arms=tuple(given.arms.split(",")) if given.arms else (),
        folds=given.folds,
        positive=given.positive,
        leaks=given.i_know_it_leaks,
    )
    found = compare.run_comparison(
        given.out,
        experiment,
        cache=choose_cache(given),
        jobs=given.jobs,
        num_resamples=given.resamples,
        command=line,
    )
    _show_report(found, given.out / "report")
    if given.skip_bad:
        from miko_clf.experiment.folds import OUT_OF_FOLD, list_skipped_posts

        read = ("train", "val") if given.folds is None else (OUT_OF_FOLD,)
        write_skipped_posts(list_skipped_posts(source, read), given.out / "skipped.json")


def _run_evaluate(given: Namespace, line: str) -> None:
    require_options(given, "data")
    from miko_clf.experiment import compare, design

    if any(map(design.is_experiment, given.bundles)):
        if len(given.bundles) > 1:
            raise UsageError("a comparison is evaluated alone; name one folder")
        _run_evaluate_comparison(given, line, compare.evaluate_comparison)
        return
    from miko_clf.data.splits import is_test_split
    from miko_clf.evaluate.analysis.slices import read_target_groups
    from miko_clf.evaluate.evaluator import AnalysisOptions
    from miko_clf.evaluate.evaluator import compare as compared
    from miko_clf.evaluate.model_card import add_test_results

    data, skipped = open_data(given)
    wanted = AnalysisOptions(
        few=given.quick,
        images=given.images,
        robustness=given.robustness,
        attribution=given.attribution,
        groups=None if given.groups is None else read_target_groups(given.groups),
    )
    found = compared(
        given.bundles,
        data,
        given.split,
        cache=choose_cache(given),
        num_resamples=given.resamples,
        command=line,
        wanted=wanted,
    )
    out = _choose_report_folder(given)
    _show_report(found, out)
    if is_test_split(given.split):
        for path in given.bundles:
            add_test_results(path, found)
    write_skipped_posts(skipped, out / "skipped.json")


def _run_evaluate_comparison(given: Namespace, line: str, evaluate: Callable[..., Any]) -> None:
    given_too = [name for name in _BUNDLE_OPTIONS if getattr(given, name)]
    if given_too:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given_too)
        raise UsageError(f"{options} is not for a comparison; its bundles lie in its trials/")
    found = evaluate(
        given.bundles[0],
        given.data,
        given.split,
        cache=choose_cache(given),
        jobs=given.jobs,
        num_resamples=given.resamples,
        command=line,
    )
    _show_report(found, _choose_report_folder(given))


def _choose_report_folder(given: Namespace) -> Path:
    first: Path = given.bundles[0]
    first = first if first.name else first.resolve()
    return given.out or first.with_name(f"{first.name}.report")


def _show_report(report: Any, out: Path) -> None:
    from miko_clf.evaluate.report import print_report, write_report

    print_report(report)
    write_report(report, out)
    print(f"report: {out / 'report.html'}, {out / 'report.md'} and {out / 'report.json'}")


COMPARE_COMMANDS: Mapping[str, Command] = {
    "compare": Command(
        "Train recipes, their arms and controls from several seeds, and test every difference",
        "RECIPE... --data D --out DIR [--seeds N] [options]",
        "mobilenet-minilm-with --data posts --out runs/does-it-help",
        _add_compare_options,
        "train",
    ),
    "evaluate": Command(
        "Evaluate bundles, or a comparison, on a split: table, curves, slices, explanations",
        "BUNDLE... --data D [--split S] [options]",
        "runs/demo --data runs/world/sarcasm --split test",
        _add_evaluate_options,
        "train",
    ),
}
COMPARE_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "compare": _run_compare,
    "evaluate": _run_evaluate,
}


def _add_cross_options(parser: Parser) -> None:
    add = parser.add_argument
    add("bundles", type=Path, nargs="+", metavar="BUNDLE", help="bundles that fit has written")
    say = "folder or file of posts to try every bundle on; give it once for each"
    add("--data", action="append", default=[], metavar="D", help=say)
    say = "rows; every look at test is counted in the bundles (default: %(default)s)"
    add("--split", type=str, default="val", metavar="S", help=say)
    say = "what is measured (default: %(default)s)"
    add("--metric", choices=("macro_f1", "auroc", "accuracy"), default="macro_f1", help=say)
    say = "folder of matrix.json (default: the first bundle's path + .cross)"
    add("--out", type=Path, metavar="DIR", help=say)
    say = "rename or merge labels as posts are read"
    add("--label-map", type=str, metavar="A=B,C=B", help=say)
    say = "bootstrap resamples behind each interval (default: %(default)s)"
    add("--resamples", type=PositiveInt, default=1000, metavar="N", help=say)
    say = "folder for features of frozen towers (default: $MIKO_CACHE, here %(default)s)"
    add("--cache", type=Path, default=find_cache_folder(), metavar="DIR", help=say)
    add("--no-cache", action="store_true", help="run frozen towers again for every bundle")


def _run_cross(given: Namespace, line: str) -> None:
    if not given.data:
        raise UsageError("the following arguments are required: --data")
    from miko_clf import manifest
    from miko_clf.data.dataset import open_folder

    renamed = parse_label_map(given.label_map)
    folders = [open_folder(Path(path), label_map=renamed) for path in given.data]
    from miko_clf.evaluate.analysis.transfer import measure_transfer

    found = measure_transfer(
        given.bundles,
        folders,
        given.split,
        None if given.no_cache else given.cache,
        metric=given.metric,
        num_resamples=given.resamples,
        command=line,
    )
    _show_matrix(found)
    first = given.bundles[0]
    out = given.out or first.with_name(f"{first.name}.cross")
    manifest.write_json(out / "matrix.json", {**found.as_json(), "command": line})
    print(f"matrix: {out / 'matrix.json'}")


def _show_matrix(found: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    columns = {cell.test: cell.posts for cell in found.cells}
    table = Table(box=box.SIMPLE_HEAD, title=f"{found.metric}, split {found.split}")
    table.add_column("trained as")
    for name, posts in columns.items():
        table.add_column(f"{escape(name)}\n{posts:,} posts", justify="right")
    for system in dict.fromkeys(cell.train for cell in found.cells):
        cells = [cell for cell in found.cells if cell.train == system]
        table.add_row(escape(system), *(escape(_format_matrix_cell(cell)) for cell in cells))
    console = Console()
    console.print(table)
    say = "* the data that the system was trained on. In brackets the 95 % interval over posts."
    console.print(say, highlight=False)


def _format_matrix_cell(cell: Any) -> str:
    value, low, high = cell.value
    return f"{value:.3f}{'*' if cell.home else ''} [{low:.3f}, {high:.3f}]"


CROSS_COMMANDS: Mapping[str, Command] = {
    "cross": Command(
        "Try bundles on data that they were not trained on, each figure with its interval",
        "BUNDLE... --data D1 [--data D2 ...] [--split S] [options]",
        "runs/a runs/b --data data/a --data data/b",
        _add_cross_options,
        "train",
    )
}
CROSS_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"cross": _run_cross}
