"""Cells that are the darker the more they hold."""

from miko_clf.evaluate.page.markup import Child, Html, tag

_SHADES = 7


def shade(child: Child, part: float) -> Html:
    """Return what a cell holds on a ground of one of seven shades; `part` is from 0 to 1."""
    step = min(_SHADES - 1, max(0, int(part * _SHADES)))
    return tag("span", child, class_=f"shade s{step}")
