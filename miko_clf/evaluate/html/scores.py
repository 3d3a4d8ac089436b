"""Systems and arms with their metrics, their differences, and the comparison over seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import (
    UNDEFINED_FIGURE,
    Figure,
    read_figure,
    read_real,
    typeset_count,
    typeset_exact,
    typeset_number,
    typeset_p_value,
)
from miko_clf.evaluate.html.markup import (
    Child,
    Html,
    PageSection,
    ReportFields,
    get_finding,
    group_by_field,
    make_note,
    make_section,
    mark_names,
    name_level,
    tag,
)
from miko_clf.evaluate.html.svg import Scale, fit_scale, fit_scale_within
from miko_clf.evaluate.html.tables import (
    RowCells,
    RowGroup,
    TableColumn,
    make_figure_cell,
    make_list,
    make_table,
)

_ECE_MEANINGS = {
    "one": "of the confidence of the most probable class",
    "many": "of the probability of a label, the mean over labels",
}


def show_systems(report: ReportFields) -> PageSection | None:
    """Return the table of systems and arms."""
    rows = report.get("rows") or []
    if not rows or _stands_over_seeds(rows, report, "rows", ("system", "arm")):
        return None
    remarks = [
        f"{each['system']}, {each['arm']}: {each['note']}" for each in rows if each.get("note")
    ]
    return make_section(
        "systems", "Systems and arms", make_note(_explain_figures(report)), _make_systems_table(report), make_list(remarks)
        if remarks else None,
    )  # fmt: skip


def show_differences(report: ReportFields) -> PageSection | None:
    """Return the forest of differences, a stretch of line for each metric."""
    found = report.get("differences") or []
    if not found or _stands_over_seeds(found, report, "differences", ("a", "b", "metric")):
        return None
    says = (
        "Each line is one arm or system minus another on the same rows of every resample. A "
        f"full dot: the {name_level(report)} interval lies on one side of 0. A hollow one: it holds 0, "
        "which is no evidence of a difference, nor that there is none."
    )
    return make_section(
        "differences", "Differences", make_note(says), *_draw_forests(found, report)
    )


def show_questions(report: ReportFields) -> list[PageSection]:
    """Return, for each further question that the systems answer, its table and its forest."""
    return [
        make_section(
            f"question-{number}",
            f"Question {each.get('question')}",
            make_note(_explain_figures(each)),
            _make_systems_table(each),
            *_draw_forests(each.get("differences") or [], each),
        )
        for number, each in enumerate(report.get("others") or [], start=2)
    ]


def _draw_forest(
    caption: str,
    rows: Sequence[tuple[str, Child, Figure]],
    more: Sequence[str] = (),
    cells: Sequence[RowCells] = (),
) -> Html:
    """Return differences (group, name, figure) around a line at 0; `cells` are further columns."""
    scale = fit_scale([each for _, _, each in rows], 0.0)
    columns = [
        TableColumn("a \N{MINUS SIGN} b"), TableColumn(svg.draw_track_axis(scale), "plot"), TableColumn("difference"),
        *map(TableColumn, more),
    ]  # fmt: skip
    further = cells or [()] * len(rows)
    lines = [
        (
            group,
            (
                name,
                svg.draw_interval_track(each, scale, mark=0.0),
                make_figure_cell(each, signed=True),
                *rest,
            ),
        )
        for (group, name, each), rest in zip(rows, further, strict=True)
    ]
    names = dict.fromkeys(group for group, _ in lines)
    body: list[RowCells | RowGroup] = [line for group, line in lines if not group]
    body += [
        RowGroup(name, [line for group, line in lines if group == name]) for name in names if name
    ]
    return make_table(caption, columns, body, "forest tests" if more else "forest")


def _name_difference(a: str, b: str) -> tuple[str, Child]:
    """Return the head that `a − b` stands under, its systems, and the name of its row, the arms."""
    (one, _, left), (two, _, right) = a.partition("/"), b.partition("/")
    if not (left and right):
        return "", _write_minus(a, b)
    head = one if one == two else f"{one} \N{MINUS SIGN} {two}"
    return head, left if left == right else _write_minus(left, right)


def _write_minus(a: str, b: str) -> Html:
    """Return `a − b`, each on a line of its own where both do not fit one."""
    return tag("span", tag("span", a), " \N{MINUS SIGN} ", tag("span", b), class_="minus")


def _stands_over_seeds(
    rows: Sequence[Mapping[str, Any]], report: ReportFields, name: str, keys: Sequence[str]
) -> bool:
    """Say whether all rows are those of the comparison over seeds, which tells more of them."""
    over_seeds = (get_finding(report, "comparison") or {}).get(name) or []
    known = {tuple(each.get(key) for key in keys) for each in over_seeds}
    return all(tuple(each.get(key) for key in keys) in known for each in rows)


def _draw_forests(found: Sequence[Mapping[str, Any]], report: ReportFields) -> list[Html]:
    shown = []
    for metric, each in group_by_field(found, "metric").items():
        called = formatting.get_metric_title(metric, report.get("positive"))
        rows: list[tuple[str, Child, Figure]] = []
        for one in each:
            rows.append(
                (
                    *_name_difference(str(one.get("a")), str(one.get("b"))),
                    read_figure(one.get("interval")),
                )
            )
        shown += [tag("h3", called), _draw_forest(f"Differences in {called}", rows)]
    return shown


def _make_systems_table(report: ReportFields) -> Html:
    rows = report.get("rows") or []
    metrics = [
        name for name in formatting.METRIC_TITLES if any(name in row["metrics"] for row in rows)
    ]
    metrics += [
        name for row in rows for name in row["metrics"] if name not in formatting.METRIC_TITLES
    ]
    metrics = list(dict.fromkeys(metrics))
    scales = {
        name: fit_scale_within([read_figure(row["metrics"].get(name)) for row in rows], 0.0, 1.0)
        for name in metrics
    }
    columns = [
        "arm", *(formatting.get_metric_title(name, report.get("positive")) for name in metrics), "threshold",
    ]  # fmt: skip
    body = [
        RowGroup(system, [_make_system_cells(row, scales) for row in held])
        for system, held in group_by_field(rows, "system").items()
    ]
    return make_table("Metrics of each system in each arm", columns, body, "systems")


def _make_system_cells(row: Mapping[str, Any], scales: Mapping[str, Scale]) -> RowCells:
    figures = [
        make_figure_cell(read_figure(row["metrics"][name]), scale) if name in row["metrics"] else ""
        for name, scale in scales.items()
    ]
    return (_name_arm(row), *figures, _write_threshold(row.get("threshold")))


def _name_arm(row: Mapping[str, Any]) -> str:
    """Return the arm; a baseline has none."""
    found = str(row.get("arm"))
    return "\N{EN DASH}" if found == "-" else found


def _write_threshold(found: Any) -> str:
    if isinstance(found, Mapping):
        return (
            ", ".join(f"{label} {typeset_number(each)}" for label, each in found.items())
            or UNDEFINED_FIGURE
        )
    return "\N{EN DASH}" if found is None else typeset_number(found)


def _explain_figures(report: ReportFields) -> str:
    rows = max((row.get("rows") or 0 for row in report.get("rows") or []), default=0)
    return (
        f"Each figure is the metric on {typeset_count(rows)} posts; below it the {name_level(report)} "
        f"percentile interval of {typeset_count(report.get('num_resamples'))} bootstrap resamples of "
        "them: the chance in which posts were drawn, not the chance in training. "
        f"{formatting.describe_groups(report.get('groups') or 0)}ECE is "
        f"{_ECE_MEANINGS[report.get('kind', 'one')]}; on resamples it comes out a little high."
    )


_TEST_COLUMNS = ("p", "p after Holm", "permutation p", "McNemar p, by seed", "smallest that shows")


def show_seed_comparison(report: ReportFields) -> PageSection | None:
    """Return what systems score over seeds and how they differ."""
    found = get_finding(report, "comparison")
    if not found:
        return None
    rows, differences = found.get("rows") or [], found.get("differences") or []
    read = (
        f"Means over seeds. The {name_level(report)} interval covers other posts of the kind "
        "and other seeds; `±` is the standard deviation over seeds. "
        f"{formatting.describe_groups(report.get('groups') or 0)}"
    )
    return make_section(
        "seeds", "Over seeds", *_make_paragraphs(str(found.get("words") or "")),
        make_note(read) if rows else None, _make_seeds_table(rows, report) if rows else None,
        *_show_recovery(found, report), *_draw_seeds_forests(differences, report),
    )  # fmt: skip


def _make_paragraphs(text: str) -> list[Html]:
    """Return the words, a paragraph for each line."""
    return [tag("p", mark_names(part), class_="words") for part in text.splitlines() if part]


def _show_recovery(found: Mapping[str, Any], report: ReportFields) -> list[Html]:
    """Return the share of a gain that is kept, by system and metric where there are several."""
    shares = found.get("recovery_by_system") or {}
    if not shares and found.get("recovery"):
        shares = {"": {"macro_f1": found["recovery"]}}
    if not shares:
        return []
    names = list(dict.fromkeys(name for each in shares.values() for name in each))
    says = (
        "The share of the gain of `with` over `without` that `student` keeps without any LLM; "
        "undefined where the gain itself may be nothing."
    )
    columns = [
        "system",
        *(formatting.get_metric_title(name, report.get("positive")) for name in names),
    ]
    body = [
        (system or "all", *(make_figure_cell(read_figure(each.get(name))) for name in names))
        for system, each in shares.items()
    ]
    return [tag("h3", "Recovery"), make_note(says), make_table("Recovery", columns, body, "narrow")]


def _make_seeds_table(rows: list[Mapping[str, Any]], report: ReportFields) -> Html:
    names = [
        name for name in formatting.METRIC_TITLES if any(name in row["metrics"] for row in rows)
    ]
    scales = {
        name: fit_scale_within([read_figure(row["metrics"].get(name)) for row in rows], 0.0, 1.0)
        for name in names
    }
    columns = [
        "arm",
        "seeds",
        *(formatting.get_metric_title(name, report.get("positive")) for name in names),
    ]
    body = [
        RowGroup(system, [_make_seeds_cells(row, scales) for row in held])
        for system, held in group_by_field(rows, "system").items()
    ]
    return make_table("Means over seeds of each system in each arm", columns, body, "systems")


def _make_seeds_cells(row: Mapping[str, Any], scales: Mapping[str, Scale]) -> RowCells:
    found = row["metrics"]
    seeds = row.get("seeds")
    many = len(seeds) if isinstance(seeds, list) else seeds
    return (
        str(row.get("arm")),
        typeset_count(many),
        *(
            _make_spread_cell(found[name], scale) if name in found else ""
            for name, scale in scales.items()
        ),
    )


def _make_spread_cell(found: Mapping[str, Any], scale: Scale) -> Html:
    return make_figure_cell(read_figure(found), scale, spread=read_real(found.get("deviation")))


def _draw_seeds_forests(found: list[Mapping[str, Any]], report: ReportFields) -> list[Html]:
    if not found:
        return []
    says = (
        "A full dot: the interval lies on one side of 0, which is not corrected for the number of "
        "differences; p after Holm is, and the words above go by it. The permutation test swaps "
        "what two systems say of a post; McNemar's (mid-p) asks of one seed whether the posts that "
        "only one of the two gets right lean to one side. The smallest that shows is the true "
        "difference that would have been found four times in five, with as many asked about."
    )
    shown = [make_note(says)]
    for metric, each in group_by_field(found, "metric").items():
        called = formatting.get_metric_title(metric, report.get("positive"))
        rows: list[tuple[str, Child, Figure]] = []
        for one in each:
            rows.append((*_name_difference(str(one.get("a")), str(one.get("b"))), read_figure(one)))
        cells = [_make_test_cells(one) for one in each]
        caption = f"Differences in {called} over seeds"
        shown += [tag("h3", called), _draw_forest(caption, rows, _TEST_COLUMNS, cells)]
    return shown


def _make_test_cells(one: Mapping[str, Any]) -> RowCells:
    seeds = one.get("mcnemar") or []
    return (
        typeset_p_value(one.get("p")),
        typeset_p_value(one.get("p_holm")),
        typeset_p_value(one.get("permutation_p")),
        tag("span", *_separate_by_commas(map(typeset_p_value, seeds)), class_="several")
        if seeds
        else "\N{EN DASH}",
        typeset_exact(one.get("smallest")),
    )


def _separate_by_commas(texts: Iterable[str]) -> Iterator[Child]:
    """Yield texts with commas between them, none of which breaks within."""
    for index, text in enumerate(texts):
        yield ", " if index else None
        yield tag("span", text)
