"""How figures and differences are written: one way for every report."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

METRIC_TITLES = {
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
_FEW_GROUPS = 20  # units under which a bootstrap of whole units is too sure of itself


def get_metric_title(metric: str, positive: str | None) -> str:
    """Return what a metric is called; a name that is not known stays, without its underscores."""
    return METRIC_TITLES.get(metric, metric.replace("_", " ")).replace("{positive}", str(positive))


def format_interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """Return `value [low, high]` with enough decimals that only an exact 0 reads as 0."""
    if math.isnan(value):
        return "undefined"
    if math.isnan(low) or math.isnan(high):
        return f"{format_number(value, 3, signed=signed)} [undefined]"
    places = choose_decimals(value, low, high)
    texts = [format_number(figure, places, signed=signed) for figure in (value, low, high)]
    return "{} [{}, {}]".format(*texts)


def choose_decimals(*values: float) -> int | None:
    """Return the fewest decimals, 3 to 9, that round none of `values` onto 0; None if none do."""
    return next(
        (count for count in range(3, 10) if all(round(v, count) for v in values if v)), None
    )


def format_number(value: float, places: int | None, *, signed: bool = False) -> str:
    """Return `value` with that many decimals, or, for None, with a power of ten."""
    form = ".1e" if places is None else f".{places}f"
    return f"{value + 0.0:{'+' if signed and value else ''}{form}}"  # + 0.0 turns -0 into 0


def describe_groups(groups: int) -> str:
    """Return the sentence that resamples draw whole groups of posts, where they do."""
    few = (
        "so few that the intervals are too narrow (where `group` says of whom posts speak, call it "
        "`targets`, and none are drawn together). "
    )
    units = f"Posts of one group are drawn as one, {groups:,} units in all"
    return (f"{units}, {few}" if groups < _FEW_GROUPS else f"{units}. ") if groups else ""


def describe_difference(
    a: str, b: str, metric: str, interval: tuple[float, float, float], positive: str | None
) -> str:
    """Return in words what `metric` of `a` minus that of `b` shows, with its figures."""
    called, (_, low, high) = get_metric_title(metric, positive), interval
    shown = f"{a} - {b} = {format_interval(*interval, signed=True)}"
    if any(map(math.isnan, interval)):
        return f"`{a}` and `{b}` cannot be compared in {called}: the difference is undefined."
    if low <= 0 <= high:
        return (
            f"No evidence that `{a}` and `{b}` differ in {called}: {shown}; the interval "
            "contains 0."
        )
    way = "higher" if low > 0 else "lower"
    return f"`{a}` is {way} than `{b}` in {called}: {shown}; the interval excludes 0."


def format_markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---"
) -> str:
    """Return a Markdown table; the first column is left-aligned, the others as `align` says."""
    lines = [columns, ["---", *[align] * (len(columns) - 1)], *rows]
    safe = ([re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in safe)


def convert_to_json(value: Any) -> Any:
    """Return `value` as JSON holds it: named tuples as objects, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "_asdict"):
        return convert_to_json(value._asdict())
    if isinstance(value, Mapping):
        return {key: convert_to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [convert_to_json(item) for item in value]
    return value
