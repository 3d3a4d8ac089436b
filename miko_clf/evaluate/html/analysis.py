"""Where a system does well and badly: slices, groups, changed posts, other data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import Figure, read_figure, typeset_count, typeset_percent
from miko_clf.evaluate.html.markup import (
    Child,
    Html,
    PageSection,
    ReportFields,
    get_finding,
    group_by_field,
    make_note,
    make_section,
    tag,
)
from miko_clf.evaluate.html.svg import Scale, fit_scale, fit_scale_within, shade_cell
from miko_clf.evaluate.html.tables import (
    RowCells,
    RowGroup,
    TableColumn,
    TableColumns,
    make_figure_cell,
    make_table,
)

_FindingRows = Sequence[Mapping[str, Any]]
_FAIRNESS_TITLES = {
    "subgroup_auroc": "AUROC within",
    "bpsn_auroc": "BPSN AUROC",
    "bnsp_auroc": "BNSP AUROC",
    "false_positive_rate": "false-positive rate",
    "false_positive_gap": "gap, false-positive",
    "false_negative_rate": "false-negative rate",
    "false_negative_gap": "gap, false-negative",
}


def show_slices(report: ReportFields) -> PageSection | None:
    """Return a metric on each slice as dots with intervals, worst first, and the other metrics."""
    rows = get_finding(report, "slices")
    if not rows:
        return None
    every = list(dict.fromkeys(name for each in rows for name in each.get("metrics") or {}))
    if not every:
        return None
    main = "macro_f1" if "macro_f1" in every else every[0]
    whole = next((_read_metric(each, main).value for each in rows if each.get("by") == "all"), None)
    called = formatting.get_metric_title(main, report.get("positive"))
    says = f"{called} on each slice, the worst first." + (
        " The line is that of all posts together." if whole is not None else ""
    )
    small = (report.get("findings") or {}).get("slices_left_out")
    left = f" Slices left out for too few posts: {typeset_count(small)}." if small else ""
    return make_section(
        "slices",
        "Slices",
        make_note(says + left),
        _make_slice_table(rows, main, every, whole, report),
    )


def show_groups(report: ReportFields) -> PageSection | None:
    """Return how the system treats posts on each group of people."""
    rows, few = get_finding(report, "groups") or [], get_finding(report, "groups_left_out") or {}
    if not rows and not few:
        return None
    left = ", ".join(f"{name} ({typeset_count(posts)})" for name, posts in few.items())
    short = make_note(f"Too few posts on them, or on all others, to say anything: {left}.")
    if not rows:
        return make_section("groups", "Groups", short)
    says = (
        "BPSN ranks posts on the group that are not of the positive class against those on others "
        "that are: low where mention of the group alone raises the score. BNSP is the other way "
        "round. A gap is the group's rate minus that of all other posts; drawn is that of false "
        "positives."
    )
    gaps = fit_scale([read_figure(each.get("false_positive_gap")) for each in rows], 0.0)
    known = [name for name in _FAIRNESS_TITLES if any(name in each for each in rows)]
    columns: TableColumns = [
        "group", "posts", TableColumn(svg.draw_track_axis(gaps), "plot"), *(_FAIRNESS_TITLES[name] for name in known),
    ]  # fmt: skip
    body: list[RowCells] = [
        (str(each.get("group")), typeset_count(each.get("posts")),
         svg.draw_interval_track(read_figure(each.get("false_positive_gap")), gaps, mark=0.0),
         *(make_figure_cell(read_figure(each.get(name)), signed=name.endswith("gap")) for name in known))
        for each in rows
    ]  # fmt: skip
    shown = make_table("Groups of people", columns, body, "bars")
    return make_section("groups", "Groups", make_note(says), shown, short if few else None)


def show_confounder_pairs(report: ReportFields) -> PageSection | None:
    """Return on how many pairs that share a part, and differ in label, both posts are right."""
    rows = get_finding(report, "pairs")
    if not rows:
        return None
    says = (
        "Pairs of posts that share one part, differ in the other, and carry different labels. What "
        "reads only the shared part is right about both of none of them."
    )
    scale = Scale(0.0, 1.0)
    columns: TableColumns = [
        "shared",
        "pairs",
        TableColumn(svg.draw_track_axis(scale), "plot"),
        "both right",
    ]
    body: list[RowCells] = [
        (str(each.get("kind")), typeset_count(each.get("pairs")),
         svg.draw_bar_track(read_figure(each.get("both_right")), scale),
         make_figure_cell(read_figure(each.get("both_right"))))
        for each in rows
    ]  # fmt: skip
    return make_section(
        "pairs", "Pairs", make_note(says), make_table("Confounder pairs", columns, body, "bars")
    )


def _make_slice_table(
    rows: _FindingRows, main: str, every: Sequence[str], whole: float | None, report: ReportFields
) -> Html:
    scale = fit_scale_within(
        [_read_metric(each, main) for each in rows], 0.0, 1.0, *([] if whole is None else [whole])
    )
    others = [name for name in every if name != main]
    columns: TableColumns = [
        "slice", "posts", "positive", TableColumn(svg.draw_track_axis(scale), "plot"),
        *(formatting.get_metric_title(name, report.get("positive")) for name in (main, *others)),
    ]  # fmt: skip
    body: list[RowCells | RowGroup] = []
    for kind, held in group_by_field(rows, "by").items():
        ordered = sorted(
            held, key=lambda each: _sort_undefined_last(_read_metric(each, main).value)
        )
        lines: list[RowCells] = [
            (str(each.get("value")), typeset_count(each.get("posts")),
             typeset_percent(each.get("share_positive"), 0),
             svg.draw_interval_track(_read_metric(each, main), scale, mark=whole, signed=False),
             *(make_figure_cell(_read_metric(each, name)) for name in (main, *others)))
            for each in ordered
        ]  # fmt: skip
        body += lines if kind == "all" else [RowGroup(kind.replace("_", " "), lines)]
    return tag("div", make_table("Slices of the posts", columns, body, "bars"))


def _read_metric(each: Mapping[str, Any], name: str) -> Figure:
    return read_figure((each.get("metrics") or {}).get(name))


def _sort_undefined_last(value: float) -> float:
    return value if value == value else 2.0


def show_robustness(report: ReportFields) -> PageSection | None:
    """Return how the metrics move under each change of the posts."""
    rows = get_finding(report, "robustness")
    if not rows:
        return None
    names = list(dict.fromkeys(name for each in rows for name in each.get("metrics") or {}))
    scale = fit_scale([_read_difference(each, name) for each in rows for name in names], 0.0)
    told = any("changed" in each for each in rows)
    columns: list[TableColumn | str] = ["change", "posts", *(["changed"] if told else [])]
    for name in names:
        called = formatting.get_metric_title(name, report.get("positive"))
        columns += [
            called,
            TableColumn(svg.draw_track_axis(scale), "plot"),
            TableColumn("difference"),
        ]
    body = [
        RowGroup(
            _name_change(change), [_make_change_cells(each, names, scale, told) for each in held]
        )
        for change, held in group_by_field(rows, "change").items()
    ]
    says = "The difference is the metric on changed posts minus that on the posts as they are."
    return make_section(
        "robustness",
        "Robustness",
        make_note(says),
        make_table("Changed posts", columns, body, "bars"),
    )


def show_transfer(report: ReportFields) -> PageSection | None:
    """Return what a system that learned from one set scores on another."""
    found = get_finding(report, "matrix")
    if not found or not found.get("cells"):
        return None
    cells = {(str(c["train"]), str(c["test"])): c for c in found["cells"]}
    tests = list(dict.fromkeys(test for _, test in cells))
    known = [read_figure(cell.get("value")).value for cell in cells.values()]
    known = [each for each in known if each == each]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    body = [
        (train, *(_make_transfer_cell(cells.get((train, test)), low, high) for test in tests))
        for train in dict.fromkeys(train for train, _ in cells)
    ]
    called = formatting.get_metric_title(str(found.get("metric")), report.get("positive"))
    says = f"{called}: a row learned from one set, a column is the set it was measured on."
    columns = ["learned from", *(f"on {test}" for test in tests)]
    shown = make_table(f"{called} across data sets", columns, body, "heat")
    return make_section("matrix", "Across data sets", make_note(says), shown)


def _make_change_cells(
    each: Mapping[str, Any], names: Sequence[str], scale: Scale, told: bool
) -> Sequence[Child]:
    cells: list[Child] = [_name_change_level(each.get("level")), typeset_count(each.get("posts"))]
    cells += [typeset_count(each.get("changed"))] if told else []
    for name in names:
        moved = _read_difference(each, name)
        cells += [
            make_figure_cell(read_figure((each.get("metrics") or {}).get(name))),
            svg.draw_interval_track(moved, scale, mark=0.0),
            make_figure_cell(moved, signed=True),
        ]
    return cells


def _name_change(name: str) -> str:
    return "the posts as they are" if name == "none" else name.replace("_", " ")


def _name_change_level(found: Any) -> str:
    return "\N{EN DASH}" if found is None or found == "" else str(found)


def _read_difference(each: Mapping[str, Any], name: str) -> Figure:
    return read_figure((each.get("difference") or {}).get(name))


def _make_transfer_cell(cell: Mapping[str, Any] | None, low: float, high: float) -> Child:
    if cell is None:
        return "\N{EN DASH}"
    found = read_figure(cell.get("value"))
    part = (found.value - low) / (high - low) if found.defined and high > low else 0.0
    posts = tag("small", f"{typeset_count(cell.get('posts'))} posts")
    return shade_cell(tag("span", make_figure_cell(found), posts), part)
