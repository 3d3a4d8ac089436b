"""Systems over seeds: metrics, tested differences, and the words on what they show."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from miko_clf.data.controls import CONTROL_MEANINGS, CONTROLS
from miko_clf.evaluate import significance
from miko_clf.evaluate.seeds import (
    SeedDifference,
    SeedMetric,
    SeedPredictions,
    SeedSummary,
    estimate_difference,
    measure_seeds,
    summarise_metric,
)
from miko_clf.intervals import Interval, draw_resamples

COMPARED_METRICS = ("macro_f1", "auroc")
_NUM_PERMUTATIONS = 2000
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
    seed each.
    """

    a: str
    b: str
    metric: str
    gap: SeedDifference
    p_holm: float
    permutation_p: float
    mcnemar: Sequence[float]


@dataclass(frozen=True)
class SeedComparison:
    """All of it. `recovery` is by system and metric; see `recovered`."""

    seeds: int
    posts: int
    lines: Sequence[ArmSummary]
    differences: Sequence[TestedDifference]
    recovery: Mapping[str, Mapping[str, Interval]]


def compare_arms(
    arms: Sequence[SeedArm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: Int[np.ndarray, " row"] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> SeedComparison:
    """Return what the arms score and where they differ; all see the same resamples of the rows.

    Rows of one of the `groups` are drawn, and in the permutation test swapped, together.
    """
    weights = draw_resamples(len(truth), num_resamples, seed, groups)
    found = {arm.name: measure_seeds(arm.seeds, truth, weights, positive=positive) for arm in arms}
    by_name = {arm.name: arm for arm in arms}
    pairs = _list_pairs(arms)
    differences: list[TestedDifference] = []
    for metric in COMPARED_METRICS:
        gaps = [
            estimate_difference(found[a][metric] - found[b][metric], family=len(pairs))
            for a, b in pairs
        ]
        holm = significance.adjust_holm([each.p for each in gaps])
        for (a, b), each, p_holm in zip(pairs, gaps, holm, strict=True):
            both = by_name[a].seeds, by_name[b].seeds
            permuted = significance.compute_permutation_p(
                *both, truth, positive=positive, metric=metric, groups=groups,
                num_permutations=_NUM_PERMUTATIONS,
            )  # fmt: skip
            mcnemar = [
                significance.compute_mcnemar_p(*(one.decided(positive) == truth for one in pair))
                for pair in zip(*both, strict=True)
            ]
            differences.append(TestedDifference(a, b, metric, each, p_holm, permuted, mcnemar))
    lines = [
        ArmSummary(
            arm.system,
            arm.arm,
            len(arm.seeds),
            arm.seconds,
            {name: summarise_metric(each) for name, each in found[arm.name].items()},
        )
        for arm in arms
    ]
    return SeedComparison(
        len(arms[0].seeds), len(truth), lines, differences, _estimate_recoveries(arms, found)
    )


def estimate_recovery(
    given: SeedMetric, guessed: SeedMetric, none: SeedMetric, level: float = 0.95
) -> Interval:
    """Return the share of the gain of `given` over `none` that `guessed` keeps.

    The interval holds each share of which `gap` cannot say that it is another (Fieller, JRSS B
    1954). NaN, all of it, where the gain itself may be nothing: a share of nothing can be any
    number.
    """
    gain, kept = given - none, guessed - none
    if not estimate_difference(gain, level).low > 0:
        return Interval(np.nan, np.nan, np.nan)
    share = float(kept.here.mean() / gain.here.mean())

    def outside(tried: float) -> float:
        left = SeedMetric(kept.here - tried * gain.here, kept.resampled - tried * gain.resampled)
        found = estimate_difference(left, level)
        return -1.0 if np.isnan(found.p) else (1 - level) - found.p

    return Interval(share, _edge(outside, share, -1), _edge(outside, share, 1))


def _edge(outside: Callable[[float], float], inside: float, way: int) -> float:
    """Return where `outside` first rises above 0 on one side of a place that is inside."""
    step = 0.01
    while outside(inside + way * step) < 0:
        if step > _FARTHEST:
            return way * float("inf")
        step *= 2
    near, far = inside, inside + way * step
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if outside(middle) < 0 else (near, middle)
    return near


def _list_pairs(arms: Sequence[SeedArm]) -> list[tuple[str, str]]:
    """Return what is compared: intentions with none and controls, each recipe with the first."""
    found, first = [], arms[0]
    for system in dict.fromkeys(arm.system for arm in arms):
        own = {arm.arm: arm.name for arm in arms if arm.system == system}
        main, *others = own
        found += [(own[main], own[other]) for other in others if main == "with"]
        if "student" in own and "without" in own:
            found.append((own["student"], own["without"]))
        if system != first.system:
            found.append((own[main], first.name))
    return found


def _estimate_recoveries(
    arms: Sequence[SeedArm], found: Mapping[str, Mapping[str, SeedMetric]]
) -> dict[str, dict[str, Interval]]:
    shares = {}
    for system in dict.fromkeys(arm.system for arm in arms):
        names = [f"{system}/{arm}" for arm in ("with", "student", "without")]
        if all(name in found for name in names):
            given, guessed, none = (found[name] for name in names)
            shares[system] = {
                metric: estimate_recovery(given[metric], guessed[metric], none[metric])
                for metric in COMPARED_METRICS
            }
    return shares


_SIGNIFICANCE_LEVEL = 0.05
_OTHERS = ("shuffled", "other-post")  # controls that keep the words and change whose they are
_COMPARED_TITLES = {"macro_f1": "macro-F1", "auroc": "AUROC"}


def describe_comparison(found: SeedComparison, metric: str = "macro_f1") -> str:
    """Return the verdict on one metric: each system, then systems against the first.

    Where several systems have differences of their own, or several stand against one, each has a
    line of its own.
    """
    known = [each for each in found.differences if each.metric == metric]
    beside = [each for each in known if _system_of(each.a) != _system_of(each.b)]
    said = []
    for system in dict.fromkeys(line.system for line in found.lines):
        own = [each for each in known if _system_of(each.a) == _system_of(each.b) == system]
        said.append(" ".join(_intentions(system, own, found, metric)))
    lines = list(filter(None, said))
    apart = "\n" if len(lines) > 1 or len(beside) > 1 else " "
    if len(beside) < 2:
        return apart.join([_describe_setting(found, known), *lines, *map(_beside, beside)])
    if lines:
        return apart.join([_describe_setting(found, known), *lines, *_many(beside)])
    first, *rest = _many(beside)
    start = f"{_asked(found, metric)}, {first[0].lower()}{first[1:]}"
    return apart.join([start, *rest, _conclude_systems(beside)])


def is_significant(each: TestedDifference) -> bool:
    """Say whether a difference is more than chance, among all that were asked about."""
    return not math.isnan(each.p_holm) and each.p_holm < _SIGNIFICANCE_LEVEL


def _describe_setting(found: SeedComparison, known: Sequence[TestedDifference]) -> str:
    if not known:
        return f"{found.posts:,} posts, {_seeds(found)}."
    asked = next((each for each in known if _arms(each) == ("with", "without")), known[0])
    smallest = asked.gap.smallest
    text = f"{_asked(found, asked.metric)}:"
    if math.isnan(smallest):
        return f"{text} what `{asked.a}` and `{asked.b}` say does not vary enough to tell more."
    if smallest >= 1:
        return f"{text} so few cannot show any difference between `{asked.a}` and `{asked.b}`."
    return text + (
        f" a true difference of {smallest:.3f} between `{asked.a}` and `{asked.b}` would "
        "have been found four times in five, and a smaller one easily goes unseen."
    )


def _asked(found: SeedComparison, metric: str) -> str:
    alone = ", which says nothing of how far another would be from it" * (found.seeds == 1)
    return f"In {_COMPARED_TITLES[metric]}, on {found.posts:,} posts and {_seeds(found)}{alone}"


def _seeds(found: SeedComparison) -> str:
    return f"{found.seeds} seed{'s' * (found.seeds != 1)}"


def _intentions(
    system: str, known: Sequence[TestedDifference], found: SeedComparison, metric: str
) -> list[str]:
    by_arms = {_arms(each): each for each in known}
    helped = by_arms.get(("with", "without"))
    controls = [by_arms["with", name] for name in CONTROLS if ("with", name) in by_arms]
    sentences = []
    if helped is not None:
        sentences.append(f"With its intentions `{system}` {_way(helped, 'without them')}.")
    sentences += _controls("It" if helped is not None else f"`{system}`", controls)
    if helped is not None and controls:
        sentences.append(_conclusion(helped, controls))
    student = by_arms.get(("student", "without"))
    if student is not None:
        sentences.append(f"Guessing them itself, it {_way(student, 'without them')}.")
    share = found.recovery.get(system, {}).get(metric)
    gained = helped is not None and is_significant(helped) and helped.gap.value > 0
    if gained and share is not None and not math.isnan(share.value):
        sentences.append(
            f"The guess keeps {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of the gain."
        )
    return sentences


def _controls(who: str, controls: Sequence[TestedDifference]) -> list[str]:
    """Return a sentence of the controls that it beats, of those that beat it, and of the rest."""
    higher = [each for each in controls if is_significant(each) and each.gap.value > 0]
    lower = [each for each in controls if is_significant(each) and each.gap.value < 0]
    rest = [each for each in controls if each not in higher and each not in lower]
    unseen = "There is no evidence of a difference from"
    if who != "It":
        unseen = f"There is no evidence that {who} differs from"
    parts = ((f"{who} is higher than", higher), (f"{who} is lower than", lower), (unseen, rest))
    return [f"{start} {'; '.join(_named(each) for each in some)}." for start, some in parts if some]


def _named(each: TestedDifference) -> str:
    name = _arm_of(each.b)
    return f"`{name}` ({CONTROL_MEANINGS[name]}): {_figures(each)}"


def _conclusion(helped: TestedDifference, controls: Sequence[TestedDifference]) -> str:
    gained = is_significant(helped) and helped.gap.value > 0
    beaten = [each for each in controls if is_significant(each) and each.gap.value > 0]
    told = [each for each in controls if _arm_of(each.b) in _OTHERS]
    if gained and not told:
        return (
            "So there is a gain over no intentions; whether by what they say, only "
            f"{' and '.join(f'`{name}`' for name in _OTHERS)} could tell, which were not run."
        )
    if gained and len(beaten) == len(controls):
        return "So the intentions help, and by what they say of the post they belong to."
    if gained:
        rest = ", ".join(_arm_of(each.b) for each in controls if each not in beaten)
        return (
            "So there is a gain over no intentions, and no evidence that all of it comes from what "
            f"they say of their own post: {rest} may do as well."
        )
    if is_significant(helped):
        return "So the intentions do harm here."
    return "So there is no evidence that the intentions help."


def _beside(each: TestedDifference) -> str:
    return f"`{each.a}` {_way(each, f'`{each.b}`')}."


def _many(beside: Sequence[TestedDifference]) -> list[str]:
    """Return a line for each that stands against another, with what could have been seen of it."""
    lines = []
    for other in dict.fromkeys(each.b for each in beside):
        lines.append(f"Beside `{other}`:")
        lines += [
            f"`{each.a}` {_way(each, 'it')}{_seen(each.gap.smallest)}."
            for each in beside
            if each.b == other
        ]
    return lines


def _seen(smallest: float) -> str:
    if math.isnan(smallest) or smallest >= 1:
        return ""
    return f"; a true difference of {smallest:.3f} would have been found four times in five"


def _conclude_systems(beside: Sequence[TestedDifference]) -> str:
    """Return what is to be concluded of systems that stand against others."""
    title, others = (
        _COMPARED_TITLES[beside[0].metric],
        list(dict.fromkeys(each.b for each in beside)),
    )
    told = [each for each in beside if is_significant(each)]
    if not told and len(others) > 1:
        return f"So there is no evidence of any difference in {title}."
    if not told:
        return (
            f"So there is no evidence that any of the {len(beside)} others differs "
            f"from `{others[0]}` in {title}."
        )
    parts = [
        f"`{each.a}` is {'higher' if each.gap.value > 0 else 'lower'} than `{each.b}`"
        for each in told
    ]
    rest = "; there is no evidence of any other difference" * (len(told) < len(beside))
    return f"So in {title} {', '.join(parts)}{rest}."


def _way(each: TestedDifference, other: str) -> str:
    title = _COMPARED_TITLES[each.metric]
    if math.isnan(each.gap.p):
        return f"cannot be compared in {title} with {other}: the difference is undefined"
    if is_significant(each):
        way = "higher" if each.gap.value > 0 else "lower"
        return f"is {way} in {title} than {other}: {_figures(each)}"
    return f"shows no evidence of a difference in {title} from {other}: {_figures(each)}"


def _figures(each: TestedDifference) -> str:
    value, low, high = each.gap[:3]
    p = "< 0.001" if each.p_holm < 0.0005 else f"{each.p_holm:.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p {p} after Holm"


def _arms(each: TestedDifference) -> tuple[str, str]:
    return _arm_of(each.a), _arm_of(each.b)


def _system_of(name: str) -> str:
    return name.rpartition("/")[0]


def _arm_of(name: str) -> str:
    return name.rpartition("/")[2]
