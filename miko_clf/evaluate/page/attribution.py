"""Which words and which patches of the image speak for the decision, and which against it."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.page.markup import Html, join, tag
from miko_clf.evaluate.page.numbers import plain, real
from miko_clf.evaluate.page.section import Report, finding
from miko_clf.evaluate.page.tables import folded, table

_SIDE = 16
_STEPS = 4


def read(number: int, each: Mapping[str, Any], report: Report) -> Html | None:
    """Return a post's words and patches with their weights, or None where it has none."""
    tokens, patches = each.get("tokens") or [], each.get("patches") or []
    if not tokens and not patches:
        return None
    found = finding(report, "attribution") or {}
    towards = found.get("of") or report.get("positive") or "the decided label"
    says = tag(
        "p", tag("span", "for", class_="w p3"), " and ", tag("span", "against", class_="w m3"),
        f" {towards}", class_="said",
    )  # fmt: skip
    return folded(
        "What it reads in this post", says, _words(tokens) if tokens else None,
        _patches(number, patches) if patches else None, folded(
            "As numbers", _word_table(tokens) if tokens else None,
            _patch_table(patches) if patches else None,
        ),
    )  # fmt: skip


def _word_table(tokens: Sequence[Sequence[Any]]) -> Html:
    body = [(str(word), plain(weight, 4, signed=True)) for word, weight in tokens]
    return table("Weight of each word", ["word", "weight"], body)


def _patch_table(grid: Sequence[Sequence[Any]]) -> Html:
    """Return the weights of patches, top row first; rows that are short end in dashes."""
    wide = max(len(row) for row in grid)
    body = [
        (str(line), *(plain(each, 3, signed=True) for each in row),
         *["\N{EN DASH}"] * (wide - len(row)))
        for line, row in enumerate(grid, start=1)
    ]  # fmt: skip
    return table("Weight of each patch", ["row", *map(str, range(1, wide + 1))], body)


def _words(tokens: Sequence[Sequence[Any]]) -> Html:
    most = max(
        (abs(real(weight)) for _, weight in tokens if real(weight) == real(weight)), default=0
    )
    shown = (
        join((tag("span", str(word), class_=_kind(real(weight), most)), " "))
        for word, weight in tokens
    )
    return tag("p", *shown, class_="tokens", dir="auto")


def _patches(number: int, grid: Sequence[Sequence[Any]]) -> Html:
    weights = [[real(each) for each in row] for row in grid]
    most = max((abs(each) for row in weights for each in row if each == each), default=0.0)
    squares = [
        tag("rect", class_=_kind(each, most), x=_SIDE * column, y=_SIDE * line, width=_SIDE,
            height=_SIDE)
        for line, row in enumerate(weights)
        for column, each in enumerate(row)
    ]  # fmt: skip
    wide = _SIDE * max(len(row) for row in weights)
    return tag(
        "svg", tag("title", "Weight of each patch of the image", id=f"patches-{number}"), *squares,
        class_="patches", role="img", viewBox=f"0 0 {wide} {_SIDE * len(weights)}",
        aria_labelledby=f"patches-{number}",
    )  # fmt: skip


def _kind(weight: float, most: float) -> str:
    if weight != weight or not most:
        return "w"
    step = min(_STEPS, round(_STEPS * abs(weight) / most))
    return f"w {'p' if weight > 0 else 'm'}{step}" if step else "w"
