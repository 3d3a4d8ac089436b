"""Systems and arms with their metrics and their differences, of one seed and over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag

_ECE_MEANINGS = {
    "one": "of the confidence of the most probable class",
    "many": "of the probability of a label, the mean over labels",
}
_TEST_COLUMNS = ("p", "p after Holm", "permutation p", "McNemar p, by seed", "smallest that shows")


def show_seed_comparison(comparison: ReportFields, report: ReportFields) -> PageSection:
    """Return what systems score over seeds and how they differ."""
    lines = str(comparison.get("words") or "").splitlines()
    parts = [tag("p", markup.mark_names(line), class_="words") for line in lines if line]
    rows = comparison.get("rows") or []
    if rows:
        says = (
            f"Means over seeds. The {markup.name_level(report)} interval covers other posts of the "
            "kind and other seeds; `±` is the standard deviation over seeds. "
            f"{formatting.describe_groups(report.get('groups') or 0)}"
        )
        parts += [markup.make_note(says), _make_metrics_table(rows, report, over_seeds=True)]
    parts += _show_recovery(comparison, report)
    differences = comparison.get("differences") or []
    if differences:
        says = (
            "A full dot: the interval lies on one side of 0, which is not corrected for the number "
            "of differences; p after Holm is, and the words above go by it. The permutation test "
            "swaps what two systems say of a post; McNemar's (mid-p) asks of one seed whether the "
            "posts that only one of the two gets right lean to one side. The smallest that shows "
            "is the true difference that would have been found four times in five, with as many "
            "asked about."
        )
        parts += [markup.make_note(says), *_draw_forests(differences, report, over_seeds=True)]
    return PageSection("seeds", "Over seeds", "", *parts)


def show_systems(report: ReportFields) -> PageSection | None:
    """Return the table of systems and arms."""
    rows = report.get("rows") or []
    if not rows or _stand_over_seeds(rows, report, "rows", ("system", "arm")):
        return None
    remarks = [f"{row['system']}, {row['arm']}: {row['note']}" for row in rows if row.get("note")]
    says, table = _explain_figures(report), _make_metrics_table(rows, report)
    notes = markup.make_list(remarks) if remarks else None
    return PageSection("systems", "Systems and arms", says, table, notes)


def show_differences(report: ReportFields) -> PageSection | None:
    """Return the forest of differences, a stretch of line for each metric."""
    rows = report.get("differences") or []
    if not rows or _stand_over_seeds(rows, report, "differences", ("a", "b", "metric")):
        return None
    says = (
        "Each line is one arm or system minus another on the same rows of every resample. A full "
        f"dot: the {markup.name_level(report)} interval lies on one side of 0. A hollow one: it "
        "holds 0, which is no evidence of a difference, nor that there is none."
    )
    return PageSection("differences", "Differences", says, *_draw_forests(rows, report))


def show_questions(report: ReportFields) -> list[PageSection]:
    """Return, for each further question that the systems answer, its table and its forest."""
    return [
        PageSection(
            f"question-{number}",
            f"Question {other.get('question')}",
            _explain_figures(other),
            _make_metrics_table(other.get("rows") or [], other),
            *_draw_forests(other.get("differences") or [], other),
        )
        for number, other in enumerate(report.get("others") or [], start=2)
    ]


def _stand_over_seeds(
    rows: ReportRows, report: ReportFields, name: str, keys: Sequence[str]
) -> bool:
    """Say whether all rows are those of the comparison over seeds, which tells more of them."""
    over_seeds = (markup.get_finding(report, "comparison") or {}).get(name) or []
    known = {tuple(row.get(key) for key in keys) for row in over_seeds}
    return all(tuple(row.get(key) for key in keys) in known for row in rows)


def _explain_figures(report: ReportFields) -> str:
    posts, draws = markup.count_posts(report), markup.typeset_count(report.get("num_resamples"))
    says = (
        f"Each figure is the metric on {markup.typeset_count(posts)} posts; below it the "
        f"{markup.name_level(report)} percentile interval of {draws} bootstrap resamples of "
        "them: the chance in which posts were drawn, not the chance in training. "
        f"{formatting.describe_groups(report.get('groups') or 0)}ECE is "
        f"{_ECE_MEANINGS[report.get('kind', 'one')]}; on resamples it comes out a little high."
    )
    if any(str(row.get("arm")).startswith("masked") for row in report.get("rows") or []):
        says += (
            " `masked` is the same model asked once more with its intentions hidden; one that "
            "never learned from any would be called `without`."
        )
    return says


def _make_metrics_table(
    rows: ReportRows, report: ReportFields, *, over_seeds: bool = False
) -> Html:
    names = markup.list_metrics(rows)
    names.sort(key=lambda name: [*formatting.METRIC_TITLES, name].index(name))
    scales = {
        name: svg.fit_unit_scale([markup.read_figure(row["metrics"].get(name)) for row in rows])
        for name in names
    }
    columns = ["arm", *(markup.title_metric(report, name) for name in names)]
    columns.insert(1 if over_seeds else len(columns), "seeds" if over_seeds else "threshold")
    body = [
        markup.RowGroup(system, [_make_metrics_cells(row, scales, over_seeds) for row in of_system])
        for system, of_system in markup.group_by_field(rows, "system").items()
    ]
    means = "Means over seeds" if over_seeds else "Metrics"
    return markup.make_table(f"{means} of each system in each arm", columns, body, "systems")


def _make_metrics_cells(
    row: ReportFields, scales: Mapping[str, svg.Scale], over_seeds: bool
) -> markup.RowCells:
    metrics, arm = row["metrics"], str(row.get("arm"))
    cells: list[Any] = [markup.NO_FIGURE if arm == "-" else arm]  # a baseline has none
    if over_seeds:
        cells.append(markup.typeset_count(markup.count_seeds(row)))
    for name, scale in scales.items():
        figure = metrics.get(name)
        spread = markup.read_real(figure.get("deviation")) if over_seeds and figure else None
        shown = svg.make_figure_cell(markup.read_figure(figure), scale, spread=spread)
        cells.append(shown if name in metrics else "")
    return cells if over_seeds else [*cells, _write_threshold(row.get("threshold"))]


def _write_threshold(threshold: Any) -> str:
    if isinstance(threshold, Mapping):
        limits = (f"{label} {markup.typeset_number(limit)}" for label, limit in threshold.items())
        return ", ".join(limits) or markup.UNDEFINED_FIGURE
    return markup.NO_FIGURE if threshold is None else markup.typeset_number(threshold)


def _show_recovery(comparison: ReportFields, report: ReportFields) -> list[Html]:
    """Return the share of a gain that is kept, by system and metric where there are several."""
    shares = comparison.get("recovery_by_system") or {}
    if not shares and comparison.get("recovery"):
        shares = {"": {"macro_f1": comparison["recovery"]}}
    if not shares:
        return []
    names = list(dict.fromkeys(name for by_metric in shares.values() for name in by_metric))
    says = (
        "The share of the gain of `with` over `without` that `student` keeps without any LLM; "
        "undefined where the gain itself may be nothing."
    )
    columns = ["system", *(markup.title_metric(report, name) for name in names)]
    body = []
    for system, share in shares.items():
        figures = (markup.read_figure(share.get(name)) for name in names)
        body.append((system or "all", *map(svg.make_figure_cell, figures)))
    table = markup.make_table("Recovery", columns, body, "narrow")
    return [tag("h3", "Recovery"), markup.make_note(says), table]


def _draw_forests(
    differences: ReportRows, report: ReportFields, *, over_seeds: bool = False
) -> list[Html]:
    """Draw differences around a line at 0, a table for each metric."""
    parts = []
    for metric, rows in markup.group_by_field(differences, "metric").items():
        title = markup.title_metric(report, metric)
        figures = [markup.read_difference(row) for row in rows]
        scale = svg.fit_scale(figures, 0.0)
        columns: list[Any] = ["a \N{MINUS SIGN} b", svg.make_track_column(scale), "difference"]
        groups: dict[str, list[Any]] = {}
        for row, figure in zip(rows, figures, strict=True):
            group, name = _name_difference(str(row.get("a")), str(row.get("b")))
            drawn = svg.draw_interval_track(figure, scale, mark=0.0)
            cells = [name, drawn, svg.make_figure_cell(figure, signed=True)]
            cells += _make_test_cells(row) if over_seeds else ()
            groups.setdefault(group, []).append(cells)
        body: list[Any] = [*groups.pop("", [])]
        body += [markup.RowGroup(name, held) for name, held in groups.items()]
        caption = f"Differences in {title}" + " over seeds" * over_seeds
        kind = "forest tests" if over_seeds else "forest"
        columns += _TEST_COLUMNS if over_seeds else ()
        parts += [tag("h3", title), markup.make_table(caption, columns, body, kind)]
    return parts


def _make_test_cells(row: ReportFields) -> markup.RowCells:
    by_seed, smallest = row.get("mcnemar") or [], markup.read_real(row.get("smallest"))
    several: list[Any] = []
    for p in by_seed:  # each is a span, which does not break within
        several += [", " if several else None, tag("span", markup.typeset_p_value(p))]
    return (
        *(markup.typeset_p_value(row.get(key)) for key in ("p", "p_holm", "permutation_p")),
        tag("span", *several, class_="several") if by_seed else markup.NO_FIGURE,
        markup.typeset_number(smallest, formatting.choose_decimals(smallest)),
    )


def _name_difference(a: str, b: str) -> tuple[str, markup.Child]:
    """Return the head that `a - b` stands under, its systems, and the name of its row, the arms."""
    (system, _, left), (other, _, right) = a.partition("/"), b.partition("/")
    if not (left and right):
        return "", _write_minus(a, b)
    head = system if system == other else f"{system} \N{MINUS SIGN} {other}"
    return head, left if left == right else _write_minus(left, right)


def _write_minus(a: str, b: str) -> Html:
    """Return `a - b`, each on a line of its own where both do not fit one."""
    return tag("span", tag("span", a), " \N{MINUS SIGN} ", tag("span", b), class_="minus")
