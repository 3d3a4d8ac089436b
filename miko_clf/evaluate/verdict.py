"""What a comparison says, in a paragraph whose every clause follows from a number."""

import math
from collections.abc import Sequence

from miko_clf.data.controls import CONTROLS, SAYS
from miko_clf.evaluate.comparison import Comparison, Tested

LEVEL = 0.05
_OTHERS = ("shuffled", "other-post")  # controls that keep the words and change whose they are
TITLES = {"macro_f1": "macro-F1", "auroc": "AUROC"}


def paragraph(found: Comparison, metric: str = "macro_f1") -> str:
    """Return the verdict on one metric: each system, then systems against the first.

    Where several systems have differences of their own, or several stand against one, each has a
    line of its own.
    """
    known = [each for each in found.differences if each.metric == metric]
    beside = [each for each in known if _system(each.a) != _system(each.b)]
    said = []
    for system in dict.fromkeys(line.system for line in found.lines):
        own = [each for each in known if _system(each.a) == _system(each.b) == system]
        said.append(" ".join(_intentions(system, own, found, metric)))
    lines = list(filter(None, said))
    apart = "\n" if len(lines) > 1 or len(beside) > 1 else " "
    if len(beside) < 2:
        return apart.join([_set(found, known), *lines, *map(_beside, beside)])
    if lines:
        return apart.join([_set(found, known), *lines, *_many(beside)])
    first, *rest = _many(beside)
    start = f"{_asked(found, metric)}, {first[0].lower()}{first[1:]}"
    return apart.join([start, *rest, _drawn(beside)])


def holds(each: Tested) -> bool:
    """Say whether a difference is more than chance, among all that were asked about."""
    return not math.isnan(each.p_holm) and each.p_holm < LEVEL


def _set(found: Comparison, known: Sequence[Tested]) -> str:
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


def _asked(found: Comparison, metric: str) -> str:
    alone = ", which says nothing of how far another would be from it" * (found.seeds == 1)
    return f"In {TITLES[metric]}, on {found.posts:,} posts and {_seeds(found)}{alone}"


def _seeds(found: Comparison) -> str:
    return f"{found.seeds} seed{'s' * (found.seeds != 1)}"


def _intentions(system: str, known: Sequence[Tested], found: Comparison, metric: str) -> list[str]:
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
    gained = helped is not None and holds(helped) and helped.gap.value > 0
    if gained and share is not None and not math.isnan(share.value):
        sentences.append(
            f"The guess keeps {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of the gain."
        )
    return sentences


def _controls(who: str, controls: Sequence[Tested]) -> list[str]:
    """Return a sentence of the controls that it beats, of those that beat it, and of the rest."""
    higher = [each for each in controls if holds(each) and each.gap.value > 0]
    lower = [each for each in controls if holds(each) and each.gap.value < 0]
    rest = [each for each in controls if each not in higher and each not in lower]
    unseen = "There is no evidence of a difference from"
    if who != "It":
        unseen = f"There is no evidence that {who} differs from"
    parts = ((f"{who} is higher than", higher), (f"{who} is lower than", lower), (unseen, rest))
    return [f"{start} {'; '.join(_named(each) for each in some)}." for start, some in parts if some]


def _named(each: Tested) -> str:
    name = _arm(each.b)
    return f"`{name}` ({SAYS[name]}): {_figures(each)}"


def _conclusion(helped: Tested, controls: Sequence[Tested]) -> str:
    gained = holds(helped) and helped.gap.value > 0
    beaten = [each for each in controls if holds(each) and each.gap.value > 0]
    told = [each for each in controls if _arm(each.b) in _OTHERS]
    if gained and not told:
        return (
            "So there is a gain over no intentions; whether by what they say, only "
            f"{' and '.join(f'`{name}`' for name in _OTHERS)} could tell, which were not run."
        )
    if gained and len(beaten) == len(controls):
        return "So the intentions help, and by what they say of the post they belong to."
    if gained:
        rest = ", ".join(_arm(each.b) for each in controls if each not in beaten)
        return (
            "So there is a gain over no intentions, and no evidence that all of it comes from what "
            f"they say of their own post: {rest} may do as well."
        )
    if holds(helped):
        return "So the intentions do harm here."
    return "So there is no evidence that the intentions help."


def _beside(each: Tested) -> str:
    return f"`{each.a}` {_way(each, f'`{each.b}`')}."


def _many(beside: Sequence[Tested]) -> list[str]:
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


def _drawn(beside: Sequence[Tested]) -> str:
    """Return what is to be concluded of systems that stand against others."""
    title, others = TITLES[beside[0].metric], list(dict.fromkeys(each.b for each in beside))
    told = [each for each in beside if holds(each)]
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


def _way(each: Tested, other: str) -> str:
    title = TITLES[each.metric]
    if math.isnan(each.gap.p):
        return f"cannot be compared in {title} with {other}: the difference is undefined"
    if holds(each):
        way = "higher" if each.gap.value > 0 else "lower"
        return f"is {way} in {title} than {other}: {_figures(each)}"
    return f"shows no evidence of a difference in {title} from {other}: {_figures(each)}"


def _figures(each: Tested) -> str:
    value, low, high = each.gap[:3]
    p = "< 0.001" if each.p_holm < 0.0005 else f"{each.p_holm:.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p {p} after Holm"


def _arms(each: Tested) -> tuple[str, str]:
    return _arm(each.a), _arm(each.b)


def _system(name: str) -> str:
    return name.rpartition("/")[0]


def _arm(name: str) -> str:
    return name.rpartition("/")[2]
