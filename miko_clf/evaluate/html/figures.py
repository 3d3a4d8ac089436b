"""Figures as they come out of JSON, where null is undefined, and how the page writes them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from miko_clf.evaluate import formatting

UNDEFINED_FIGURE = "undefined"


class Figure(NamedTuple):
    """A value and the bounds around it; what is undefined is NaN."""

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether there is a value to draw."""
        return not math.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval to draw."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        if not self.bounded:
            return 0
        return (self.low > 0) - (self.high < 0)


def read_real(value: Any) -> float:
    """Return a number as a float, and anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def read_figure(found: Any) -> Figure:
    """Return what `{value, low, high}` stands for (`mean` also), or a bare number, or null."""
    if not isinstance(found, Mapping):
        return Figure(read_real(found), math.nan, math.nan)
    value = found.get("value", found.get("mean"))
    return Figure(read_real(value), read_real(found.get("low")), read_real(found.get("high")))


def typeset_number(value: Any, places: int | None = 3, *, signed: bool = False) -> str:
    """Return one number with as many decimals and a true minus, or `undefined`."""
    known = read_real(value)
    return (
        UNDEFINED_FIGURE
        if math.isnan(known)
        else typeset_minus(formatting.format_number(known, places, signed=signed))
    )


def typeset_exact(value: Any, *, signed: bool = False) -> str:
    """Return one number with enough decimals that only an exact 0 reads as 0."""
    known = read_real(value)
    return typeset_number(known, formatting.choose_decimals(known), signed=signed)


def typeset_figure(found: Figure, *, signed: bool = False) -> tuple[str, str]:
    """Return the value and, apart, its bounds in brackets, as `words.figures` writes them."""
    value, _, bounds = formatting.format_interval(*found, signed=signed).partition(" ")
    return typeset_minus(value), typeset_minus(bounds)


def typeset_share(part: float, whole: float) -> str:
    """Return a part of a whole in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else UNDEFINED_FIGURE


def typeset_percent(value: Any, places: int = 1) -> str:
    """Return a share in per cent, or `undefined`."""
    known = read_real(value)
    return UNDEFINED_FIGURE if math.isnan(known) else typeset_minus(f"{100 * known:.{places}f} %")


def typeset_p_value(value: Any) -> str:
    """Return a p-value: three decimals, or that it lies below .001."""
    known = read_real(value)
    if math.isnan(known):
        return UNDEFINED_FIGURE
    return "< 0.001" if known < 0.001 else f"{known:.3f}"


def typeset_count(value: Any) -> str:
    """Return a whole number with its thousands apart, or `undefined`."""
    known = read_real(value)
    return UNDEFINED_FIGURE if math.isnan(known) else f"{known:,.0f}"


def typeset_minus(text: str) -> str:
    """Return figures with the minus sign that is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")
