"""HTML and SVG as values: what is no markup yet is escaped on its way in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

_VOID = frozenset({"br", "img", "input", "meta"})
_SHAPES = frozenset({"circle", "line", "path", "rect"})
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Html:
    """Text that is markup already."""

    text: str

    def __str__(self) -> str:
        return self.text


Child = Html | str | int | None


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Return an element; text among its children and values of its attributes are escaped.

    `class_` and `for_` stand for `class` and `for`, `aria_label` for `aria-label`. An attribute
    that is None or False is left out, and one that is True stands bare.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _SHAPES and not children:
        return Html(f"<{name}{said}/>")
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def join(parts: Iterable[Child]) -> Html:
    """Return parts one after another; None is nothing."""
    return Html("".join(_inside(part) for part in parts if part is not None))


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_safe(_short(value))}"'


def _inside(part: Child) -> str:
    return part.text if isinstance(part, Html) else _safe(str(part))


def _short(value: str | int | float) -> str:
    """Return a coordinate with two decimals at most, so that drawings stay small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    """Return text with no markup in it, and with a mark for what no page may hold."""
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)
