"""Systems over seeds: metrics, tested differences, and the words on what they show."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from miko_clf.data.controls import CONTROL_MEANINGS, CONTROLS
from miko_clf.evaluate.seeds import (
    SeedDifference,
    SeedMetric,
    SeedPredictions,
    SeedSummary,
    compute_equivalence_p,
    estimate_difference,
    measure_seeds,
    summarise_metric,
)
from miko_clf.evaluate.significance import adjust_holm, compute_mcnemar_p, compute_permutation_p
from miko_clf.intervals import UNDEFINED, Interval, RowGroups, draw_resamples

COMPARED_METRICS = ("macro_f1", "auroc")
_COMPARED_TITLES = {"macro_f1": "macro-F1", "auroc": "AUROC"}
_OTHERS = ("shuffled", "other-post")  # controls that keep the words and change whose they are
_NUM_PERMUTATIONS = 2000
_SIGNIFICANCE_LEVEL = 0.05
_FARTHEST = 1e4  # a share beyond which an interval has no end


@dataclass(frozen=True)
class SeedArm:
    """A system in an arm, trained from several seeds; `seconds` are those of training one."""

    system: str
    arm: str
    seeds: Sequence[SeedPredictions]
    seconds: float | None = None

    @property
    def name(self) -> str:
        """System and arm in one word."""
        return f"{self.system}/{self.arm}"


@dataclass(frozen=True)
class ArmSummary:
    """An arm and its metrics."""

    system: str
    arm: str
    seeds: int
    seconds: float | None
    metrics: Mapping[str, SeedSummary]


@dataclass(frozen=True)
class TestedDifference:
    """A metric of `a` minus that of `b`, and what speaks for its being more than chance.

    `p` is of other rows and other seeds, `p_holm` that among all differences of the metric;
    `permutation_p` is of these trained models on these rows, and `mcnemar` of their decisions, a
    seed each. `p_equal` is of its being as large as the margin of the comparison, either way, or
    larger; None where none was asked for.
    """

    a: str
    b: str
    metric: str
    gap: SeedDifference
    p_holm: float
    permutation_p: float
    mcnemar: Sequence[float]
    p_equal: float | None = None

    @property
    def arms(self) -> tuple[str, str]:
        """The arms of both."""
        return self.a.rpartition("/")[2], self.b.rpartition("/")[2]

    @property
    def system(self) -> str | None:
        """The system that both are arms of, None where they are of two."""
        of_a, of_b = self.a.rpartition("/")[0], self.b.rpartition("/")[0]
        return of_a if of_a == of_b else None

    @property
    def way(self) -> int:
        """1 or -1 where a is higher, or lower, by more than chance, among all that were asked."""
        if math.isnan(self.p_holm) or self.p_holm >= _SIGNIFICANCE_LEVEL:
            return 0
        return 1 if self.gap.value > 0 else -1


@dataclass(frozen=True)
class SeedComparison:
    """All of it. `recovery` is by system and metric; see `estimate_recovery`.

    `looks` is how often these posts were asked with a growing number of seeds, this time included;
    `margin` is the difference below which two count as equal.
    """

    seeds: int
    posts: int
    lines: Sequence[ArmSummary]
    differences: Sequence[TestedDifference]
    recovery: Mapping[str, Mapping[str, Interval]]
    looks: int = 1
    margin: float | None = None


def compare_arms(
    arms: Sequence[SeedArm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    looks: int = 1,
    margin: float | None = None,
) -> SeedComparison:
    """Return what the arms score and where they differ; all see the same resamples of the rows.

    Rows of one of the `groups` are drawn, and in the permutation test swapped, together. `looks`
    widens what is said of differences (`estimate_difference`); `margin` asks of each whether it is
    smaller than that.
    """
    weights = draw_resamples(len(truth), num_resamples, seed, groups)
    measured = {
        arm.name: measure_seeds(arm.seeds, truth, weights, positive=positive) for arm in arms
    }
    differences = [
        tested
        for metric in COMPARED_METRICS
        for tested in _test_differences(
            arms, measured, metric, truth, positive, groups, looks=looks, margin=margin
        )
    ]
    lines = [
        ArmSummary(
            arm.system,
            arm.arm,
            len(arm.seeds),
            arm.seconds,
            {name: summarise_metric(values) for name, values in measured[arm.name].items()},
        )
        for arm in arms
    ]
    recovery = _estimate_recoveries(arms, measured)
    num_seeds = len(arms[0].seeds)
    return SeedComparison(num_seeds, len(truth), lines, differences, recovery, looks, margin)


def _test_differences(
    arms: Sequence[SeedArm],
    measured: Mapping[str, Mapping[str, SeedMetric]],
    metric: str,
    truth: Int[np.ndarray, " row"],
    positive: int | None,
    groups: RowGroups,
    *,
    looks: int,
    margin: float | None,
) -> list[TestedDifference]:
    seeds, pairs = {arm.name: arm.seeds for arm in arms}, _list_pairs(arms)
    apart = [measured[a][metric] - measured[b][metric] for a, b in pairs]
    gaps = [estimate_difference(values, family=len(pairs), looks=looks) for values in apart]
    equal = [None if margin is None else compute_equivalence_p(each, margin) for each in apart]
    held = adjust_holm([gap.p for gap in gaps])
    differences = []
    for (a, b), gap, p_holm, p_equal in zip(pairs, gaps, held, equal, strict=True):
        permutation_p = compute_permutation_p(
            seeds[a],
            seeds[b],
            truth,
            positive=positive,
            metric=metric,
            groups=groups,
            num_permutations=_NUM_PERMUTATIONS,
        )
        mcnemar = [
            compute_mcnemar_p(*(seed.decided(positive) == truth for seed in pair))
            for pair in zip(seeds[a], seeds[b], strict=True)
        ]
        tested = TestedDifference(a, b, metric, gap, p_holm, permutation_p, mcnemar, p_equal)
        differences.append(tested)
    return differences


def _list_pairs(arms: Sequence[SeedArm]) -> list[tuple[str, str]]:
    """Return what is compared: intentions with none and controls, each recipe with the first."""
    pairs, first = [], arms[0]
    for system in dict.fromkeys(arm.system for arm in arms):
        own = {arm.arm: arm.name for arm in arms if arm.system == system}
        main, *others = own
        pairs += [(own[main], own[other]) for other in others if main == "with"]
        if "student" in own and "without" in own:
            pairs.append((own["student"], own["without"]))
        if system != first.system:
            pairs.append((own[main], first.name))
    return pairs


def _estimate_recoveries(
    arms: Sequence[SeedArm], measured: Mapping[str, Mapping[str, SeedMetric]]
) -> dict[str, dict[str, Interval]]:
    shares = {}
    for system in dict.fromkeys(arm.system for arm in arms):
        names = [f"{system}/{arm}" for arm in ("with", "student", "without")]
        if all(name in measured for name in names):
            given, guessed, none = (measured[name] for name in names)
            shares[system] = {
                metric: estimate_recovery(given[metric], guessed[metric], none[metric])
                for metric in COMPARED_METRICS
            }
    return shares


def estimate_recovery(
    given: SeedMetric, guessed: SeedMetric, none: SeedMetric, level: float = 0.95
) -> Interval:
    """Return the share of the gain of `given` over `none` that `guessed` keeps.

    The interval holds each share of which `estimate_difference` cannot say that it is another
    (Fieller, JRSS B 1954). NaN, all of it, where the gain itself may be nothing: a share of nothing
    can be any number.
    """
    gain, kept = given - none, guessed - none
    if not estimate_difference(gain, level).low > 0:
        return UNDEFINED
    share = float(kept.here.mean() / gain.here.mean())

    def reject(tried: float) -> float:
        p = estimate_difference(kept.subtract(gain, tried), level).p
        return -1.0 if np.isnan(p) else (1 - level) - p

    return Interval(share, _find_edge(reject, share, -1), _find_edge(reject, share, 1))


def _find_edge(reject: Callable[[float], float], inside: float, way: int) -> float:
    """Return where `reject` first rises above 0 on one side of a place that is inside."""
    step = 0.01
    while reject(inside + way * step) < 0:
        if step > _FARTHEST:
            return way * float("inf")
        step *= 2
    near, far = inside, inside + way * step
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if reject(middle) < 0 else (near, middle)
    return near


def describe_comparison(comparison: SeedComparison, metric: str = "macro_f1") -> str:
    """Return the verdict on one metric: each system, then those against the first, by lines.

    The last line says what is within the margin, where there is one.
    """
    equal = _describe_equals(comparison, metric)
    return "\n".join([_describe_differences(comparison, metric), *equal])


def _describe_differences(comparison: SeedComparison, metric: str) -> str:
    tested = [difference for difference in comparison.differences if difference.metric == metric]
    between = [difference for difference in tested if difference.system is None]
    paragraphs = []
    for system in dict.fromkeys(line.system for line in comparison.lines):
        own = [difference for difference in tested if difference.system == system]
        paragraphs.append(" ".join(_describe_intentions(system, own, comparison, metric)))
    lines = list(filter(None, paragraphs))
    space = "\n" if len(lines) > 1 or len(between) > 1 else " "
    if len(between) < 2:
        sentences = [f"`{one.a}` {_describe_way(one, f'`{one.b}`')}." for one in between]
        return space.join([_describe_setting(comparison, tested), *lines, *sentences])
    if lines:
        setting = _describe_setting(comparison, tested)
        return space.join([setting, *lines, *_describe_systems(between)])
    first, *rest = _describe_systems(between)
    start = f"{_describe_rows(comparison, metric)}, {first[0].lower()}{first[1:]}"
    return space.join([start, *rest, _conclude_systems(between)])


def _describe_setting(comparison: SeedComparison, tested: Sequence[TestedDifference]) -> str:
    if not tested:
        return f"{comparison.posts:,} posts, {_count_seeds(comparison)}."
    main = next((one for one in tested if one.arms == ("with", "without")), tested[0])
    smallest = main.gap.smallest
    text = f"{_describe_rows(comparison, main.metric)}:"
    if math.isnan(smallest):
        return f"{text} what `{main.a}` and `{main.b}` say does not vary enough to tell more."
    if smallest >= 1:
        return f"{text} so few cannot show any difference between `{main.a}` and `{main.b}`."
    return text + (
        f" a true difference of {smallest:.3f} between `{main.a}` and `{main.b}` would "
        "have been found four times in five, and a smaller one easily goes unseen."
    )


def _describe_rows(comparison: SeedComparison, metric: str) -> str:
    alone = ", which says nothing of how far another would be from it" * (comparison.seeds == 1)
    where = f"on {comparison.posts:,} posts and {_count_seeds(comparison)}{alone}"
    looks = ""
    if comparison.looks > 1:
        looks = (
            f" (look {comparison.looks} at a growing number of seeds, so that p-values are "
            f"{comparison.looks**2} times as large and intervals wider)"
        )
    return f"In {_COMPARED_TITLES[metric]}, {where}{looks}"


def _count_seeds(comparison: SeedComparison) -> str:
    return f"{comparison.seeds} seed{'s' * (comparison.seeds != 1)}"


def _describe_intentions(
    system: str, own: Sequence[TestedDifference], comparison: SeedComparison, metric: str
) -> list[str]:
    by_arms = {difference.arms: difference for difference in own}
    helped, student = by_arms.get(("with", "without")), by_arms.get(("student", "without"))
    controls = [by_arms["with", name] for name in CONTROLS if ("with", name) in by_arms]
    sentences = []
    if helped is not None:
        sentences.append(f"With its intentions `{system}` {_describe_way(helped, 'without them')}.")
    sentences += _describe_controls("It" if helped is not None else f"`{system}`", controls)
    if helped is not None and controls:
        sentences.append(_conclude_intentions(helped, controls, comparison.seeds))
    if student is not None:
        sentences.append(f"Guessing them itself, it {_describe_way(student, 'without them')}.")
    share = comparison.recovery.get(system, {}).get(metric)
    gained = helped is not None and helped.way > 0
    if gained and share is not None and not math.isnan(share.value):
        sentences.append(
            f"The guess keeps {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of the gain."
        )
    return sentences


def _describe_controls(who: str, controls: Sequence[TestedDifference]) -> list[str]:
    """Return a sentence of the controls that it beats, of those that beat it, and of the rest."""
    unseen = "There is no evidence of a difference from"
    if who != "It":
        unseen = f"There is no evidence that {who} differs from"
    starts = {1: f"{who} is higher than", -1: f"{who} is lower than", 0: unseen}
    sentences = []
    for way, start in starts.items():
        names = [
            f"`{control.arms[1]}` ({CONTROL_MEANINGS[control.arms[1]]}): {_format_figures(control)}"
            for control in controls
            if control.way == way
        ]
        sentences += [f"{start} {'; '.join(names)}."] if names else []
    return sentences


def _conclude_intentions(
    helped: TestedDifference, controls: Sequence[TestedDifference], num_seeds: int
) -> str:
    if helped.way and num_seeds == 1:
        return (
            "So in this one training there is a gap; whether the intentions make it, or the seed, "
            "more seeds would tell (--seeds 5)."
        )
    if helped.way > 0 and not any(control.arms[1] in _OTHERS for control in controls):
        return (
            "So there is a gain over no intentions; whether by what they say, only "
            f"{' and '.join(f'`{name}`' for name in _OTHERS)} could tell, which were not run."
        )
    if helped.way > 0 and all(control.way > 0 for control in controls):
        return "So the intentions help, and by what they say of the post they belong to."
    if helped.way > 0:
        rest = ", ".join(control.arms[1] for control in controls if control.way <= 0)
        return (
            "So there is a gain over no intentions, and no evidence that all of it comes from what "
            f"they say of their own post: {rest} may do as well."
        )
    if helped.way < 0:
        return "So the intentions do harm here."
    return "So there is no evidence that the intentions help."


def _describe_systems(between: Sequence[TestedDifference]) -> list[str]:
    """Return a line for each that stands against another, with what could have been seen of it."""
    lines = []
    for other in dict.fromkeys(difference.b for difference in between):
        lines.append(f"Beside `{other}`:")
        for difference in (one for one in between if one.b == other):
            smallest = difference.gap.smallest
            seen = f"; a true difference of {smallest:.3f} would have been found four times in five"
            way = _describe_way(difference, "it")
            lines.append(f"`{difference.a}` {way}{seen if smallest < 1 else ''}.")
    return lines


def _conclude_systems(between: Sequence[TestedDifference]) -> str:
    """Return what is to be concluded of systems that stand against others."""
    title = _COMPARED_TITLES[between[0].metric]
    others = list(dict.fromkeys(difference.b for difference in between))
    parts = [
        f"`{difference.a}` is {'higher' if difference.way > 0 else 'lower'} than `{difference.b}`"
        for difference in between
        if difference.way
    ]
    if not parts and len(others) > 1:
        return f"So there is no evidence of any difference in {title}."
    if not parts:
        return (
            f"So there is no evidence that any of the {len(between)} others differs "
            f"from `{others[0]}` in {title}."
        )
    rest = "; there is no evidence of any other difference" * (len(parts) < len(between))
    return f"So in {title} {', '.join(parts)}{rest}."


def _describe_way(difference: TestedDifference, other: str) -> str:
    title = _COMPARED_TITLES[difference.metric]
    if math.isnan(difference.gap.p):
        return f"cannot be compared in {title} with {other}: the difference is undefined"
    figures = _format_figures(difference)
    if difference.way:
        return (
            f"is {'higher' if difference.way > 0 else 'lower'} in {title} than {other}: {figures}"
        )
    return f"shows no evidence of a difference in {title} from {other}: {figures}"


def _describe_equals(comparison: SeedComparison, metric: str) -> list[str]:
    """Return a sentence on which differences are smaller than the margin, none without one."""
    asked = [
        one
        for one in comparison.differences
        if one.metric == metric and one.p_equal is not None and not math.isnan(one.p_equal)
    ]
    if not asked or comparison.margin is None:
        return []
    parts = [
        f"`{one.a}` and `{one.b}` (p {one.p_equal:.3f})"
        for one in asked
        if one.p_equal is not None and one.p_equal < _SIGNIFICANCE_LEVEL
    ]
    title, margin = _COMPARED_TITLES[metric], f"{comparison.margin:g}"
    if not parts:
        return [f"Of no pair is it shown that they are within {margin} of each other in {title}."]
    return [f"Within {margin} of each other in {title}: {', '.join(parts)}."]


def _format_figures(difference: TestedDifference) -> str:
    value, low, high = difference.gap[:3]
    p = "< 0.001" if difference.p_holm < 0.0005 else f"{difference.p_holm:.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p {p} after Holm"
