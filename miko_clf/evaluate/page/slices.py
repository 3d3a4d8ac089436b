"""Where the system does well and where badly: slices of the posts, and groups of people."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import tracks
from miko_clf.evaluate.page.markup import Html, tag
from miko_clf.evaluate.page.numbers import Figure, count, figure, percent
from miko_clf.evaluate.page.scale import Scale, around, within
from miko_clf.evaluate.page.section import Report, Section, by, finding, note, section
from miko_clf.evaluate.page.tables import Cells, Column, Columns, Group, figure_cell, table

Rows = Sequence[Mapping[str, Any]]
_GROUP = {
    "subgroup_auroc": "AUROC within",
    "bpsn_auroc": "BPSN AUROC",
    "bnsp_auroc": "BNSP AUROC",
    "false_positive_rate": "false-positive rate",
    "false_positive_gap": "gap, false-positive",
    "false_negative_rate": "false-negative rate",
    "false_negative_gap": "gap, false-negative",
}


def slices(report: Report) -> Section | None:
    """Return a metric on each slice as dots with intervals, worst first, and the other metrics."""
    rows = finding(report, "slices")
    if not rows:
        return None
    every = list(dict.fromkeys(name for each in rows for name in each.get("metrics") or {}))
    if not every:
        return None
    main = "macro_f1" if "macro_f1" in every else every[0]
    whole = next((_of(each, main).value for each in rows if each.get("by") == "all"), None)
    called = words.title(main, report.get("positive"))
    says = f"{called} on each slice, the worst first." + (
        " The line is that of all posts together." if whole is not None else ""
    )
    small = (report.get("findings") or {}).get("slices_left_out")
    left = f" Slices left out for too few posts: {count(small)}." if small else ""
    return section("slices", "Slices", note(says + left), _slices(rows, main, every, whole, report))


def groups(report: Report) -> Section | None:
    """Return how the system treats posts on each group of people."""
    rows, few = finding(report, "groups") or [], finding(report, "groups_left_out") or {}
    if not rows and not few:
        return None
    left = ", ".join(f"{name} ({count(posts)})" for name, posts in few.items())
    short = note(f"Too few posts on them, or on all others, to say anything: {left}.")
    if not rows:
        return section("groups", "Groups", short)
    says = (
        "BPSN ranks posts on the group that are not of the positive class against those on others "
        "that are: low where mention of the group alone raises the score. BNSP is the other way "
        "round. A gap is the group's rate minus that of all other posts; drawn is that of false "
        "positives."
    )
    gaps = around([figure(each.get("false_positive_gap")) for each in rows], 0.0)
    known = [name for name in _GROUP if any(name in each for each in rows)]
    columns: Columns = [
        "group", "posts", Column(tracks.axis(gaps), "plot"), *(_GROUP[name] for name in known),
    ]  # fmt: skip
    body: list[Cells] = [
        (str(each.get("group")), count(each.get("posts")),
         tracks.interval(figure(each.get("false_positive_gap")), gaps, mark=0.0),
         *(figure_cell(figure(each.get(name)), signed=name.endswith("gap")) for name in known))
        for each in rows
    ]  # fmt: skip
    shown = table("Groups of people", columns, body, "bars")
    return section("groups", "Groups", note(says), shown, short if few else None)


def pairs(report: Report) -> Section | None:
    """Return on how many pairs that share a part, and differ in label, both posts are right."""
    rows = finding(report, "pairs")
    if not rows:
        return None
    says = (
        "Pairs of posts that share one part, differ in the other, and carry different labels. What "
        "reads only the shared part is right about both of none of them."
    )
    scale = Scale(0.0, 1.0)
    columns: Columns = ["shared", "pairs", Column(tracks.axis(scale), "plot"), "both right"]
    body: list[Cells] = [
        (str(each.get("kind")), count(each.get("pairs")),
         tracks.bar(figure(each.get("both_right")), scale),
         figure_cell(figure(each.get("both_right"))))
        for each in rows
    ]  # fmt: skip
    return section("pairs", "Pairs", note(says), table("Confounder pairs", columns, body, "bars"))


def _slices(
    rows: Rows, main: str, every: Sequence[str], whole: float | None, report: Report
) -> Html:
    scale = within(
        [_of(each, main) for each in rows], 0.0, 1.0, *([] if whole is None else [whole])
    )
    others = [name for name in every if name != main]
    columns: Columns = [
        "slice", "posts", "positive", Column(tracks.axis(scale), "plot"),
        *(words.title(name, report.get("positive")) for name in (main, *others)),
    ]  # fmt: skip
    body: list[Cells | Group] = []
    for kind, held in by(rows, "by").items():
        ordered = sorted(held, key=lambda each: _sortable(_of(each, main).value))
        lines: list[Cells] = [
            (str(each.get("value")), count(each.get("posts")),
             percent(each.get("share_positive"), 0),
             tracks.interval(_of(each, main), scale, mark=whole, signed=False),
             *(figure_cell(_of(each, name)) for name in (main, *others)))
            for each in ordered
        ]  # fmt: skip
        body += lines if kind == "all" else [Group(kind.replace("_", " "), lines)]
    return tag("div", table("Slices of the posts", columns, body, "bars"))


def _of(each: Mapping[str, Any], name: str) -> Figure:
    return figure((each.get("metrics") or {}).get(name))


def _sortable(value: float) -> float:
    return value if value == value else 2.0
