"""Systems over seeds: every metric with its interval, every difference with its tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from miko_clf.evaluate import paired
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.seeds import Drawn, Gap, Scores, Spread, drawn, gap, resamples, spread

COMPARED = ("macro_f1", "auroc")
NUM_PERMUTATIONS = 2000
_FARTHEST = 1e4  # a share beyond which an interval has no end


@dataclass(frozen=True)
class Arm:
    """A system in an arm, trained from several seeds; `seconds` are those of training one."""

    system: str
    arm: str
    seeds: Sequence[Scores]
    seconds: float | None = None

    @property
    def name(self) -> str:
        """System and arm in one word."""
        return f"{self.system}/{self.arm}"


@dataclass(frozen=True)
class Line:
    """An arm and its metrics."""

    system: str
    arm: str
    seeds: int
    seconds: float | None
    metrics: Mapping[str, Spread]


@dataclass(frozen=True)
class Tested:
    """A metric of `a` minus that of `b`, and what speaks for its being more than chance.

    `p` is of other rows and other seeds, `p_holm` that among all differences of the metric;
    `permutation_p` is of these trained models on these rows, and `mcnemar` of their decisions, a
    seed each.
    """

    a: str
    b: str
    metric: str
    gap: Gap
    p_holm: float
    permutation_p: float
    mcnemar: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """All of it. `recovery` is by system and metric; see `recovered`."""

    seeds: int
    posts: int
    lines: Sequence[Line]
    differences: Sequence[Tested]
    recovery: Mapping[str, Mapping[str, Interval]]


def compared(
    arms: Sequence[Arm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: Int[np.ndarray, " row"] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Return what the arms score and where they differ; all see the same resamples of the rows.

    Rows of one of the `groups` are drawn, and in the permutation test swapped, together.
    """
    weights = resamples(len(truth), num_resamples, seed, groups)
    found = {arm.name: drawn(arm.seeds, truth, weights, positive=positive) for arm in arms}
    by_name = {arm.name: arm for arm in arms}
    pairs = _pairs(arms)
    differences: list[Tested] = []
    for metric in COMPARED:
        gaps = [gap(found[a][metric] - found[b][metric], family=len(pairs)) for a, b in pairs]
        holm = paired.holm([each.p for each in gaps])
        for (a, b), each, p_holm in zip(pairs, gaps, holm, strict=True):
            both = by_name[a].seeds, by_name[b].seeds
            permuted = paired.permuted(
                *both, truth, positive=positive, metric=metric, groups=groups,
                num_permutations=NUM_PERMUTATIONS,
            )  # fmt: skip
            mcnemar = [
                paired.mcnemar(*(one.decided(positive) == truth for one in pair))
                for pair in zip(*both, strict=True)
            ]
            differences.append(Tested(a, b, metric, each, p_holm, permuted, mcnemar))
    lines = [
        Line(
            arm.system,
            arm.arm,
            len(arm.seeds),
            arm.seconds,
            {name: spread(each) for name, each in found[arm.name].items()},
        )
        for arm in arms
    ]
    return Comparison(len(arms[0].seeds), len(truth), lines, differences, _recovery(arms, found))


def recovered(given: Drawn, guessed: Drawn, none: Drawn, level: float = 0.95) -> Interval:
    """Return the share of the gain of `given` over `none` that `guessed` keeps.

    The interval holds each share of which `gap` cannot say that it is another (Fieller, JRSS B
    1954). NaN, all of it, where the gain itself may be nothing: a share of nothing can be any
    number.
    """
    gain, kept = given - none, guessed - none
    if not gap(gain, level).low > 0:
        return Interval(np.nan, np.nan, np.nan)
    share = float(kept.here.mean() / gain.here.mean())

    def outside(tried: float) -> float:
        left = Drawn(kept.here - tried * gain.here, kept.resampled - tried * gain.resampled)
        found = gap(left, level)
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


def _pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
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


def _recovery(
    arms: Sequence[Arm], found: Mapping[str, Mapping[str, Drawn]]
) -> dict[str, dict[str, Interval]]:
    shares = {}
    for system in dict.fromkeys(arm.system for arm in arms):
        names = [f"{system}/{arm}" for arm in ("with", "student", "without")]
        if all(name in found for name in names):
            given, guessed, none = (found[name] for name in names)
            shares[system] = {
                metric: recovered(given[metric], guessed[metric], none[metric])
                for metric in COMPARED
            }
    return shares
