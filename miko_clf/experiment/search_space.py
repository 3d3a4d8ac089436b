"""The ranges in which a sweep searches a recipe's keys, as the command line writes them."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from miko_clf.errors import RecipeError

SearchValue = bool | int | float | str | None

_SPAN = re.compile(r"(log:)?(.+?)\.\.(.+)")
_WORDS: dict[str, SearchValue] = {"true": True, "false": False, "null": None}
_SHAPES = "KEY=1..4, KEY=0.0..0.5, KEY=log:1e-4..1e-2 or KEY=one,other is needed"
_INSIDE = 0.618  # a place in a span of floats that is hardly ever a whole number


class NumberRange(NamedTuple):
    """All numbers from `low` to `high`, whole ones where both ends are; `log` evens out factors."""

    key: str
    low: int | float
    high: int | float
    log: bool

    @property
    def whole(self) -> bool:
        """Whether whole numbers alone are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def probes(self) -> tuple[SearchValue, ...]:
        """Both ends and a number between, for a recipe to accept or refuse beforehand."""
        inside = self.low + 1 if self.whole else self.low * (1 - _INSIDE) + self.high * _INSIDE
        return tuple(dict.fromkeys((self.low, inside, self.high)))

    @property
    def distribution(self) -> Any:
        """What optuna draws from."""
        kind = IntDistribution if self.whole else FloatDistribution
        return kind(self.low, self.high, log=self.log)


class ValueChoice(NamedTuple):
    """One of some values."""

    key: str
    values: tuple[SearchValue, ...]

    @property
    def probes(self) -> tuple[SearchValue, ...]:
        """Every value."""
        return self.values

    @property
    def distribution(self) -> Any:
        """What optuna draws from."""
        return CategoricalDistribution(self.values)


SearchRange = NumberRange | ValueChoice


def parse_ranges(texts: Sequence[str]) -> tuple[SearchRange, ...]:
    """Return the ranges, each of another key; raises `RecipeError`."""
    ranges = tuple(map(parse_range, texts))
    keys = [span.key for span in ranges]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"--range {key} was given twice; give it once")
    if "seed" in keys:
        raise RecipeError("--range seed: a seed is no choice to search; --seeds N averages over N")
    return ranges


def parse_range(text: str) -> SearchRange:
    """Return the range of `KEY=...`; raises `RecipeError` where it is none."""
    key, _, said = (part.strip() for part in text.partition("="))
    if not key or not said:
        raise RecipeError(f"--range {text}: {_SHAPES}")
    span = _SPAN.fullmatch(said)
    low, high = (_parse_number(span[2]), _parse_number(span[3])) if span else (None, None)
    if span and low is not None and high is not None:
        if low >= high:
            raise RecipeError(f"--range {text}: the lower end comes first, and they differ")
        if span[1] and low <= 0:
            raise RecipeError(f"--range {text}: log: needs a lower end above 0")
        return NumberRange(key, low, high, log=bool(span[1]))
    values = tuple(dict.fromkeys(_parse_value(part.strip()) for part in said.split(",")))
    if len(values) < 2 or "" in values or said.startswith("log:"):
        raise RecipeError(f"--range {text}: {_SHAPES}")
    return ValueChoice(key, values)


def _parse_value(text: str) -> SearchValue:
    number = _parse_number(text)
    return _WORDS.get(text, text) if number is None else number


def _parse_number(text: str) -> int | float | None:
    """Return a whole or finite number, none where the text is neither."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if isinstance(number, int) or math.isfinite(number) else None
    return None
