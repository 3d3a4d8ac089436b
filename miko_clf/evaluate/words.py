"""How figures are written and what a difference is said to show: one way for every report."""

import math

TITLES = {
    "accuracy": "accuracy",
    "subset_accuracy": "subset accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "positive_f1": "F1 ({positive})",
    "auroc": "AUROC",
    "average_precision": "AP",
    "ece": "ECE",
}
"""What each metric is called, in the order of columns."""


def title(metric: str, positive: str | None) -> str:
    """Return what a metric is called; a name that is not known stays, without its underscores."""
    return TITLES.get(metric, metric.replace("_", " ")).replace("{positive}", str(positive))


def figures(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """Return `value [low, high]` with enough decimals that only an exact 0 reads as 0."""
    if math.isnan(value):
        return "undefined"
    if math.isnan(low) or math.isnan(high):
        return f"{number(value, 3, signed=signed)} [undefined]"
    parts = (value, low, high)
    places = decimals(*parts)
    value_text, low_text, high_text = (number(each, places, signed=signed) for each in parts)
    return f"{value_text} [{low_text}, {high_text}]"


def decimals(*values: float) -> int | None:
    """Return the fewest decimals, 3 to 9, that round none of `values` onto 0; None if none do."""
    return next(
        (count for count in range(3, 10) if all(round(each, count) for each in values if each)),
        None,
    )


def number(value: float, places: int | None, *, signed: bool = False) -> str:
    """Return `value` with that many decimals, or, for None, with a power of ten."""
    form = ".1e" if places is None else f".{places}f"
    return f"{value + 0.0:{'+' if signed and value else ''}{form}}"  # + 0.0 turns -0 into 0


def together(groups: int) -> str:
    """Return the sentence that resamples draw whole groups of posts, where they do."""
    return f"Posts of one group are drawn as one, {groups:,} units in all. " if groups else ""


def verdict(
    a: str, b: str, metric: str, interval: tuple[float, float, float], positive: str | None
) -> str:
    """Return in words what `metric` of `a` minus that of `b` shows, with its figures."""
    called, (_, low, high) = title(metric, positive), interval
    shown = f"{a} - {b} = {figures(*interval, signed=True)}"
    if any(map(math.isnan, interval)):
        return f"`{a}` and `{b}` cannot be compared in {called}: the difference is undefined."
    if low <= 0 <= high:
        return (
            f"No evidence that `{a}` and `{b}` differ in {called}: {shown}; the interval "
            "contains 0."
        )
    way = "higher" if low > 0 else "lower"
    return f"`{a}` is {way} than `{b}` in {called}: {shown}; the interval excludes 0."
