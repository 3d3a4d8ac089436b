"""The words of the commands that measure systems, and what they call."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.cli import options
from miko_clf.cli.classify import cache, opened, tell_skipped
from miko_clf.cli.parser import Command, Parser, UsageError, label_map, needed

# options of `evaluate` for bundles, which a comparison of recipes has no use for or has settled
_OF_ONE = ("images", "robustness", "attribution", "groups", "label_map", "split_seed", "task")


def _compare_words(parser: Parser) -> None:
    add = parser.add_argument
    say = "YAML files or names of shipped recipes; RECIPE,key=value,... changes keys"
    add("recipes", type=str, nargs="+", metavar="RECIPE", help=say)
    options.data(parser)
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
    _resamples(parser)


def _evaluate_words(parser: Parser) -> None:
    add = parser.add_argument
    say = "bundles that fit has written, or one folder that compare has"
    add("bundles", type=Path, nargs="+", metavar="BUNDLE", help=say)
    options.data(parser)
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
    _resamples(parser)


def _resamples(parser: Parser) -> None:
    say = "bootstrap resamples behind each interval (default: %(default)s)"
    parser.add_argument("--resamples", type=PositiveInt, default=1000, metavar="N", help=say)


def _compare(given: Namespace, line: str) -> None:
    needed(given, "data", "out")
    if given.folds == 1:
        raise UsageError("--folds 1 leaves nothing to learn from; give 2 or more")
    from miko_clf.experiment import compare
    from miko_clf.experiment.plan import Experiment, Source

    source = Source(
        path=str(given.data),
        label_map=tuple(sorted(label_map(given.label_map).items())),
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
    found = compare.compare(
        given.out,
        experiment,
        cache=cache(given),
        jobs=given.jobs,
        num_resamples=given.resamples,
        command=line,
    )
    _show(found, given.out / "report")
    if given.skip_bad:
        from miko_clf.experiment.sides import OUT_OF_FOLD, passed_over

        read = ("train", "val") if given.folds is None else (OUT_OF_FOLD,)
        tell_skipped(passed_over(source, read), given.out / "skipped.json")


def _evaluate(given: Namespace, line: str) -> None:
    needed(given, "data")
    from miko_clf.experiment import compare, plan

    if any(map(plan.is_one, given.bundles)):
        if len(given.bundles) > 1:
            raise UsageError("a comparison is evaluated alone; name one folder")
        _evaluate_comparison(given, line, compare.evaluate)
        return
    from miko_clf.data.split import is_test
    from miko_clf.evaluate.analyses import Wanted
    from miko_clf.evaluate.compare import compare as compared
    from miko_clf.evaluate.errors.members import read_groups
    from miko_clf.evaluate.tested import enter

    data, skipped = opened(given)
    wanted = Wanted(
        few=given.quick,
        images=given.images,
        robustness=given.robustness,
        attribution=given.attribution,
        groups=None if given.groups is None else read_groups(given.groups),
    )
    found = compared(
        given.bundles,
        data,
        given.split,
        cache=cache(given),
        num_resamples=given.resamples,
        command=line,
        wanted=wanted,
    )
    out = _out(given)
    _show(found, out)
    if is_test(given.split):
        for path in given.bundles:
            enter(path, found)
    tell_skipped(skipped, out / "skipped.json")


def _evaluate_comparison(given: Namespace, line: str, evaluate: Callable[..., Any]) -> None:
    given_too = [name for name in _OF_ONE if getattr(given, name)]
    if given_too:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given_too)
        raise UsageError(f"{options} is not for a comparison; its bundles lie in its trials/")
    found = evaluate(
        given.bundles[0],
        given.data,
        given.split,
        cache=cache(given),
        jobs=given.jobs,
        num_resamples=given.resamples,
        command=line,
    )
    _show(found, _out(given))


def _out(given: Namespace) -> Path:
    first: Path = given.bundles[0]
    first = first if first.name else first.resolve()
    return given.out or first.with_name(f"{first.name}.report")


def _show(report: Any, out: Path) -> None:
    from miko_clf.evaluate.report import print_table, write

    print_table(report)
    write(report, out)
    print(f"report: {out / 'report.html'}, {out / 'report.md'} and {out / 'report.json'}")


COMMANDS: Mapping[str, Command] = {
    "compare": Command(
        "Train recipes, their arms and controls from several seeds, and test every difference",
        "RECIPE... --data D --out DIR [--seeds N] [options]",
        "mobilenet-minilm-with --data posts --out runs/does-it-help",
        _compare_words,
        "train",
    ),
    "evaluate": Command(
        "Evaluate bundles, or a comparison, on a split: table, curves, slices, explanations",
        "BUNDLE... --data D [--split S] [options]",
        "runs/demo --data runs/world/sarcasm --split test",
        _evaluate_words,
        "train",
    ),
}
ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "compare": _compare,
    "evaluate": _evaluate,
}
