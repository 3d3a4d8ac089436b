"""Where a system does well and badly: slices, groups, changed posts, other data sets."""

from collections.abc import Sequence
from typing import Any

from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag

_FAIRNESS_TITLES = {
    "subgroup_auroc": "AUROC within",
    "bpsn_auroc": "BPSN AUROC",
    "bnsp_auroc": "BNSP AUROC",
    "false_positive_rate": "false-positive rate",
    "false_positive_gap": "gap, false-positive",
    "false_negative_rate": "false-negative rate",
    "false_negative_gap": "gap, false-negative",
}


def show_over_time(finding: ReportFields, report: ReportFields) -> PageSection:
    """Return how the system does month by month, and whether the last differs from the first."""
    undated = finding.get("undated")
    says = (
        f"{finding.get('words')} Months of few posts are taken together; a change is from the "
        "first row, on the same resamples."
    )
    says += f" Posts without a date: {markup.typeset_count(undated)}." if undated else ""
    table = _make_origin_table(finding.get("rows") or [], "months", report)
    return PageSection("over-time", "Over time", says, table)


def show_by_source(finding: ReportFields, report: ReportFields) -> PageSection:
    """Return how the system does on the posts of each source."""
    few, rows = finding.get("left_out") or {}, finding.get("rows") or []
    left = ", ".join(f"{name} ({markup.typeset_count(posts)})" for name, posts in few.items())
    says = f"Too few posts to say anything: {left}." if few else ""
    table = _make_origin_table(rows, "source", report) if rows else None
    return PageSection("by-source", "By source", says, table)


def _make_origin_table(rows: ReportRows, head: str, report: ReportFields) -> Html:
    """Return each metric of each row, drawn on one scale, and where it has one its change."""
    names = markup.list_metrics(rows)
    scale = svg.fit_unit_scale(markup.read_figures(rows, "metrics", names))
    changes = any(row.get("change") for row in rows)
    columns: list[Any] = [head, "posts", "positive"]
    for name in names:
        columns += [markup.title_metric(report, name), svg.make_track_column(scale)]
        columns += ["change"] if changes else []
    body = []
    for row in rows:
        positives = row.get("positives")
        count = markup.NO_FIGURE if positives is None else markup.typeset_count(positives)
        cells: list[Any] = [str(row.get("value")), markup.typeset_count(row.get("posts")), count]
        for name in names:
            figure = markup.read_figure_of(row, "metrics", name)
            cells += [
                svg.make_figure_cell(figure),
                svg.draw_interval_track(figure, scale, mark=None, signed=False),
            ]
            moved = row.get("change") or {}
            if changes and name in moved:
                change = markup.read_figure_of(row, "change", name)
                cells.append(svg.make_figure_cell(change, signed=True))
            elif changes:
                cells.append(markup.NO_FIGURE)
        body.append(cells)
    return markup.make_table(f"Scores by {head}", columns, body, "bars")


def show_slices(rows: ReportRows, report: ReportFields) -> PageSection | None:
    """Return a metric on each slice as dots with intervals, worst first, and the other metrics."""
    names = markup.list_metrics(rows)
    if not names:
        return None
    main = "macro_f1" if "macro_f1" in names else names[0]
    names.insert(0, names.pop(names.index(main)))
    every = [row for row in rows if row.get("by") == "all"]
    says = f"{markup.title_metric(report, main)} on each slice, the worst first."
    says += " The line is that of all posts together." if every else ""
    small = (report.get("findings") or {}).get("slices_left_out")
    says += f" Slices left out for too few posts: {markup.typeset_count(small)}." if small else ""
    mark = markup.read_figure_of(every[0], "metrics", main).value if every else None
    table = tag("div", _make_slice_table(rows, names, mark, report))
    return PageSection("slices", "Slices", says, table)


def _make_slice_table(
    rows: ReportRows, names: Sequence[str], mark: float | None, report: ReportFields
) -> Html:
    """Return the slices by their worst in the first of the metrics, each kind by itself."""
    figures = [markup.read_figure_of(row, "metrics", names[0]) for row in rows]
    scale = svg.fit_unit_scale(figures, *([] if mark is None else [mark]))
    titles = (markup.title_metric(report, name) for name in names)
    columns: list[Any] = ["slice", "posts", "positive", svg.make_track_column(scale), *titles]
    body: list[Any] = []
    for kind, held in markup.group_by_field(rows, "by").items():
        ordered = sorted(held, key=lambda row: _rank_last(row, names[0]))
        lines: list[Any] = [
            (str(row.get("value")), markup.typeset_count(row.get("posts")),
             markup.typeset_percent(row.get("share_positive"), 0),
             svg.draw_interval_track(
                 markup.read_figure_of(row, "metrics", names[0]), scale, mark=mark, signed=False),
             *(svg.make_figure_cell(markup.read_figure_of(row, "metrics", name)) for name in names))
            for row in ordered
        ]  # fmt: skip
        body += lines if kind == "all" else [markup.RowGroup(kind.replace("_", " "), lines)]
    return markup.make_table("Slices of the posts", columns, body, "bars")


def _rank_last(row: ReportFields, name: str) -> float:
    """Return a metric to sort by, from 0 to 1; one that is undefined comes last."""
    figure = markup.read_figure_of(row, "metrics", name)
    return figure.value if figure.defined else 2.0


def show_groups(report: ReportFields) -> PageSection | None:
    """Return how the system treats posts on each group of people."""
    rows = markup.get_finding(report, "groups") or []
    few = markup.get_finding(report, "groups_left_out") or {}
    left = ", ".join(f"{name} ({markup.typeset_count(posts)})" for name, posts in few.items())
    short = f"Too few posts on them, or on all others, to say anything: {left}."
    if not rows:
        return PageSection("groups", "Groups", short) if few else None
    says = (
        "BPSN ranks posts on the group that are not of the positive class against those on others "
        "that are: low where mention of the group alone raises the score. BNSP is the other way "
        "round. A gap is the group's rate minus that of all other posts; drawn is that of false "
        "positives."
    )
    gaps = [markup.read_figure(row.get("false_positive_gap")) for row in rows]
    scale = svg.fit_scale(gaps, 0.0)
    names = [name for name in _FAIRNESS_TITLES if any(name in row for row in rows)]
    titles = (_FAIRNESS_TITLES[name] for name in names)
    columns: list[Any] = ["group", "posts", svg.make_track_column(scale), *titles]
    body: list[Any] = [
        (str(row.get("group")), markup.typeset_count(row.get("posts")),
         svg.draw_interval_track(gap, scale, mark=0.0),
         *(svg.make_figure_cell(markup.read_figure(row.get(name)), signed=name.endswith("gap"))
           for name in names))
        for row, gap in zip(rows, gaps, strict=True)
    ]  # fmt: skip
    table = markup.make_table("Groups of people", columns, body, "bars")
    return PageSection("groups", "Groups", says, table, markup.make_note(short) if few else None)


def show_confounder_pairs(rows: ReportRows, report: ReportFields) -> PageSection:
    """Return on how many pairs that share a part, and differ in label, both posts are right."""
    says = (
        "Pairs of posts that share one part, differ in the other, and carry different labels. What "
        "reads only the shared part is right about both of none of them."
    )
    columns: list[Any] = ["shared", "pairs", svg.make_track_column(svg.UNIT_SCALE), "both right"]
    body = []
    for row in rows:
        share = markup.read_figure(row.get("both_right"))
        track = svg.draw_bar_track(share, svg.UNIT_SCALE)
        count = markup.typeset_count(row.get("pairs"))
        body.append((str(row.get("kind")), count, track, svg.make_figure_cell(share)))
    table = markup.make_table("Confounder pairs", columns, body, "bars")
    return PageSection("pairs", "Pairs", says, table)


def show_robustness(rows: ReportRows, report: ReportFields) -> PageSection:
    """Return how the metrics move under each change of the posts."""
    names = markup.list_metrics(rows)
    scale = svg.fit_scale(markup.read_figures(rows, "difference", names), 0)
    counted = any("changed" in row for row in rows)
    columns: list[Any] = ["change", "posts", *(["changed"] if counted else [])]
    for name in names:
        columns += [markup.title_metric(report, name), svg.make_track_column(scale), "difference"]
    groups = []
    for change, held in markup.group_by_field(rows, "change").items():
        body = []
        for row in held:
            level = row.get("level")
            cells: list[Any] = [markup.NO_FIGURE if level in (None, "") else str(level)]
            cells += map(markup.typeset_count, map(row.get, ("posts", "changed")[: 1 + counted]))
            for name in names:
                moved = markup.read_figure_of(row, "difference", name)
                cells += [
                    svg.make_figure_cell(markup.read_figure_of(row, "metrics", name)),
                    svg.draw_interval_track(moved, scale, mark=0.0),
                    svg.make_figure_cell(moved, signed=True),
                ]
            body.append(cells)
        title = "the posts as they are" if change == "none" else change.replace("_", " ")
        groups.append(markup.RowGroup(title, body))
    says = "The difference is the metric on changed posts minus that on the posts as they are."
    table = markup.make_table("Changed posts", columns, groups, "bars")
    return PageSection("robustness", "Robustness", says, table)


def show_transfer(matrix: ReportFields, report: ReportFields) -> PageSection | None:
    """Return what a system that learned from one set scores on another."""

    cells = {(str(cell["train"]), str(cell["test"])): cell for cell in matrix.get("cells") or ()}
    if not cells:
        return None
    figures = [markup.read_figure(cell.get("value")) for cell in cells.values()]
    values = [figure.value for figure in figures if figure.defined] or [0.0, 1.0]
    tests = list(dict.fromkeys(test for _, test in cells))
    body = [
        (train, *(_make_transfer_cell(cells.get((train, test)), values) for test in tests))
        for train in dict.fromkeys(train for train, _ in cells)
    ]
    title = markup.title_metric(report, str(matrix.get("metric")))
    says = f"{title}: a row learned from one set, a column is the set it was measured on."
    columns = ["learned from", *(f"on {test}" for test in tests)]
    table = markup.make_table(f"{title} across data sets", columns, body, "heat")
    return PageSection("matrix", "Across data sets", says, table)


def _make_transfer_cell(cell: ReportFields | None, values: Sequence[float]) -> markup.Child:
    """Return a figure, shaded by where it lies among the values of all cells."""
    if cell is None:
        return markup.NO_FIGURE
    figure, low, high = markup.read_figure(cell.get("value")), min(values), max(values)
    part = (figure.value - low) / (high - low) if figure.defined and high > low else 0.0
    posts = tag("small", f"{markup.typeset_count(cell.get('posts'))} posts")
    return svg.shade_cell(tag("span", svg.make_figure_cell(figure), posts), part)
