"""What the figures rest on: the data, its audit, who opened the test split, versions, commands."""

import json
from collections.abc import Mapping
from typing import Any

from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.numbers import count, plain
from miko_clf.evaluate.page.section import Report, Section, finding, note, section
from miko_clf.evaluate.page.tables import Cells, Column, Columns, facts, items, table

_SHOWN = frozenset({
    "attribution", "audit", "calibration", "comparison", "curves", "groups", "groups_left_out",
    "lockbox", "matrix",
    "mistakes", "neighbours", "not_installed", "pairs", "ranked", "relations",
    "robustness", "shapley", "slices", "slices_left_out", "suspects", "system", "arm", "training",
})  # fmt: skip


def audit(report: Report) -> Section | None:
    """Return what a quick look at the data found."""
    lines = (finding(report, "audit") or {}).get("lines")
    return section("audit", "Audit of the data", items(lines)) if lines else None


def lockbox(report: Report) -> Section | None:
    """Return how often the test split was opened."""
    found = finding(report, "lockbox")
    if not found:
        return None
    times = found.get("openings") or 0
    of = "once" if times == 1 else f"{count(times)} times"
    says = note(
        f"The test split was opened {of}. Each look at it makes its figures less of a test."
    )
    columns: Columns = [
        "when", Column("split", "words"), Column("fingerprint", "words"),
        Column("command", "words"),
    ]  # fmt: skip
    body: list[Cells] = [
        (str(each.get("when")), str(each.get("split")), _code(str(each.get("fingerprint"))),
         _code(str(each.get("command") or "\N{EN DASH}")))
        for each in found.get("of") or []
    ]  # fmt: skip
    shown = table("Openings of the test split", columns, body) if body else None
    return section("lockbox", "Lockbox", says, shown)


def origin(report: Report) -> Section:
    """Return the data, the versions and the command that made the figures."""
    pairs: list[tuple[str, Child]] = [
        ("data", str(report.get("data"))),
        ("split", str(report.get("split"))),
        ("fingerprint", _code(str(report.get("fingerprint")))),
        ("resamples", count(report.get("num_resamples"))),
        ("took", f"{plain(report.get('seconds'), 1)} s"),
    ]
    absent = finding(report, "not_installed")
    if absent:
        pairs.append(("left out, for want of", ", ".join(map(str, absent))))
    versions = [(name, str(each)) for name, each in (report.get("versions") or {}).items()]
    return section(
        "origin", "How it was made", facts(pairs, "facts long"), tag("h3", "Command"),
        *map(_command, _commands(report)), tag("h3", "Versions"), facts(versions),
    )  # fmt: skip


def further(report: Report) -> Section | None:
    """Return findings that have no drawing of their own, as they stand in the report."""
    findings: Mapping[str, Any] = report.get("findings") or {}
    left = {name: each for name, each in findings.items() if each and name not in _SHOWN}
    if not left:
        return None
    shown = []
    for name, each in left.items():
        text = json.dumps(each, indent=2, ensure_ascii=False)
        shown += [tag("h3", name.replace("_", " ")), _scrolling(text, name)]
    return section("further", "Further findings", *shown)


def _commands(report: Report) -> list[str]:
    found = report.get("command") or ""
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _command(line: str) -> Html:
    """Return a command that breaks between its words and not within, and a button to copy it."""
    words = [tag("span", each) for each in line.split(" ")]
    spaced = [part for each in words for part in (each, " ")][:-1]
    button = tag("button", "Copy", type="button", hidden=True)
    return tag("div", _scrolling(join(spaced), "command"), button, class_="command")


def _scrolling(child: Child, name: str) -> Html:
    return tag("pre", tag("code", child), tabindex=0, role="group", aria_label=name)


def _code(text: str) -> Html:
    return tag("code", text)
