"""A report as one page that needs nothing else and asks for nothing from anywhere."""

import base64
import hashlib
from collections.abc import Callable
from importlib import resources

from miko_clf.data.audit.style import STYLE
from miko_clf.evaluate.page import (
    cases,
    changes,
    curves,
    decisions,
    learning,
    origin,
    overlaid,
    reading,
    seeds,
    slices,
    systems,
)
from miko_clf.evaluate.page.headline import headline, name
from miko_clf.evaluate.page.markup import Html, tag
from miko_clf.evaluate.page.section import Report, Section

_PARTS: tuple[Callable[[Report], Section | None], ...] = (
    seeds.comparison, systems.systems, systems.differences, overlaid.ranking,
    curves.ranking, curves.confusion,
    decisions.calibration, reading.shapley, reading.relations, slices.slices, slices.groups,
    slices.pairs, changes.robustness, changes.matrix, cases.gallery, cases.suspects,
    learning.learning, overlaid.training, origin.audit, origin.lockbox, origin.further,
)  # fmt: skip
_FILES = resources.files("miko_clf.evaluate.page")
_STYLE = STYLE + _FILES.joinpath("style.css").read_text(encoding="utf-8")
_SCRIPT = _FILES.joinpath("script.js").read_text(encoding="utf-8")


def page(report: Report) -> str:
    """Return the page of a report: the object of `report.json`, where null is undefined.

    The page asks for nothing but itself: its policy refuses everything except its own style, its
    own few lines of script and images that it holds.
    """
    found = [part(report) for part in _PARTS]
    sections = [each for each in found if each is not None]
    sections += [*systems.questions(report), origin.origin(report)]
    body = tag(
        "body",
        tag("a", "Skip to the figures", href="#figures", class_="skip"),
        headline(report),
        _contents(sections),
        tag("main", *(each.html() for each in sections), id="figures", tabindex=-1),
        tag("script", Html(_SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', _head(report), body, lang='en')}\n"


def _head(report: Report) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"Report on {name(report)}"),
        tag("style", Html(_STYLE)),
    )


def _policy() -> str:
    return (
        f"default-src 'none'; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _contents(sections: list[Section]) -> Html:
    links = (tag("li", tag("a", each.title, href=f"#{each.name}")) for each in sections)
    return tag("nav", tag("ul", *links), aria_label="Contents")
