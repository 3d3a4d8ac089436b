"""The top of the page: what was found, in words and in a few numbers."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.numbers import Figure, chance, count, figure, minus, real, share
from miko_clf.evaluate.page.section import Report, finding, level, pair, prose
from miko_clf.evaluate.page.tables import facts

_LONG = 80
"""Characters from which a verdict is set smaller."""


def name(report: Report) -> str:
    """Return what the page is called."""
    data = PurePath(str(report.get("data"))).name
    asked = f", {report['question']}" if report.get("question") else ""
    split = str(report.get("split"))
    return f"{data}{asked}, {split}" + (" split" if " " not in split else "")


def headline(report: Report) -> Html:
    """Return the verdict, what it rests on, and the size of things."""
    head, rest = _verdict(report)
    return tag(
        "header",
        tag("p", f"Report on {name(report)}", class_="eyebrow"),
        tag("h1", prose(head), class_="long" if len(head) > _LONG else None),
        *(tag("p", prose(each), class_="lead") for each in rest if each),
        _remarks(report),
        facts(_facts(report), "numbers"),
    )


def _remarks(report: Report) -> Html | None:
    """Return a link to what the audit has to say against the verdict, where there is one."""
    number = len((finding(report, "audit") or {}).get("lines") or [])
    if not number:
        return None
    said = f"{number} remark{'s' * (number != 1)} of the audit"
    return tag("p", "Read with it: ", tag("a", said, href="#audit"), ".", class_="lead")


def _verdict(report: Report) -> tuple[str, list[str]]:
    """Return the verdict in a line, and what it rests on."""
    comparison = finding(report, "comparison") or {}
    found = comparison.get("differences") or report.get("differences") or []
    if not found:
        systems = {row.get("system") for row in report.get("rows") or []}
        return f"{len(systems)} system{'s' * (len(systems) != 1)} on {name(report)}", []
    main = _main(found)
    same = [each for each in found if (each.get("a"), each.get("b")) == (main["a"], main["b"])]
    system, a, b = pair(str(main.get("a")), str(main.get("b")))
    within = f"Within `{system}`, " if system else ""
    lines = "; ".join(_line(each, report) for each in same)
    rest = [f"{within}`{a}` minus `{b}`: {lines}."]
    if comparison:
        return _conclusion(str(comparison.get("words") or "")) or _says(main, report), rest
    return _says(main, report), [*rest, _others(found, report)]


def _main(found: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the difference that the page opens with: in macro F1, of intentions and none."""
    known = [each for each in found if each.get("metric") == "macro_f1"] or found
    wanted = (("with", "without"), ("student", "without"))
    for arms in wanted:
        for each in known:
            if pair(str(each.get("a")), str(each.get("b")))[1:] == arms:
                return each
    return known[0]


def _conclusion(text: str) -> str | None:
    """Return the sentence that draws the conclusion, if one does."""
    drawn = re.search(r"(?:^|\s)So (\w)(.*?)\.(?=\s|$)", text)
    return drawn and drawn[1].upper() + drawn[2]


def _others(found: list[Mapping[str, Any]], report: Report) -> str:
    apart = sum(_interval(each).sign != 0 for each in found)
    lie = "lies" if apart < 2 else "lie"
    return (
        f"Of {len(found)} differences, {apart or 'none'} {lie} on one side of 0 with the whole "
        f"{level(report)} interval; that is not corrected for their number."
    )


def _interval(each: Mapping[str, Any]) -> Figure:
    """Return the figure of a difference, of one system each or over seeds."""
    return figure(each.get("interval", each))


def _says(each: Mapping[str, Any], report: Report) -> str:
    _, a, b = pair(str(each.get("a")), str(each.get("b")))
    found, called = _interval(each), words.title(str(each.get("metric")), report.get("positive"))
    if not (found.defined and found.bounded):
        return f"`{a}` and `{b}` cannot be compared in {called}"
    unlikely = real(each["p_holm"]) < 0.05 if "p_holm" in each else bool(found.sign)
    if not unlikely:
        return f"No evidence that `{a}` and `{b}` differ in {called}"
    return f"`{a}` is {'higher' if found.value > 0 else 'lower'} than `{b}` in {called}"


def _line(each: Mapping[str, Any], report: Report) -> str:
    called = words.title(str(each.get("metric")), report.get("positive"))
    holm = f", p {chance(each['p_holm'])} after Holm" if "p_holm" in each else ""
    return f"{called} {minus(words.figures(*_interval(each), signed=True))}{holm}"


def _facts(report: Report) -> list[tuple[str, Child]]:
    counts = report.get("counts") or {}
    rows = max((row.get("rows") or 0 for row in report.get("rows") or []), default=0)
    seeds = (finding(report, "comparison") or {}).get("seeds")
    opened = finding(report, "lockbox")
    many = len(seeds) if isinstance(seeds, list) else seeds
    found: list[tuple[str, Child]] = [("posts", count(rows))]
    found += [
        (label, join((count(each), tag("small", f" {share(each, rows)}"))))
        for label, each in counts.items()
    ]
    found += [("seeds", count(many))] if many else []
    found += [("openings of test", count(opened.get("openings")))] if opened else []
    return found
