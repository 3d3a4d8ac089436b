"""Systems and arms with their metrics, and the differences between them."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import tracks
from miko_clf.evaluate.page.markup import Child, Html, tag
from miko_clf.evaluate.page.numbers import UNDEFINED, Figure, count, figure, plain
from miko_clf.evaluate.page.scale import Scale, around, within
from miko_clf.evaluate.page.section import Report, Section, by, finding, level, note, section
from miko_clf.evaluate.page.tables import Cells, Column, Group, figure_cell, items, table

_ECE = {
    "one": "of the confidence of the most probable class",
    "many": "of the probability of a label, the mean over labels",
}


def systems(report: Report) -> Section | None:
    """Return the table of systems and arms."""
    rows = report.get("rows") or []
    if not rows or _told(rows, report, "rows", ("system", "arm")):
        return None
    remarks = [
        f"{each['system']}, {each['arm']}: {each['note']}" for each in rows if each.get("note")
    ]
    return section(
        "systems", "Systems and arms", note(_meaning(report)), _table(report), items(remarks)
        if remarks else None,
    )  # fmt: skip


def differences(report: Report) -> Section | None:
    """Return the forest of differences, a stretch of line for each metric."""
    found = report.get("differences") or []
    if not found or _told(found, report, "differences", ("a", "b", "metric")):
        return None
    says = (
        "Each line is one arm or system minus another on the same rows of every resample. A "
        f"full dot: the {level(report)} interval lies on one side of 0. A hollow one: it holds 0, "
        "which is no evidence of a difference, nor that there is none."
    )
    return section("differences", "Differences", note(says), *_forests(found, report))


def questions(report: Report) -> list[Section]:
    """Return, for each further question that the systems answer, its table and its forest."""
    return [
        section(
            f"question-{number}",
            f"Question {each.get('question')}",
            note(_meaning(each)),
            _table(each),
            *_forests(each.get("differences") or [], each),
        )
        for number, each in enumerate(report.get("others") or [], start=2)
    ]


def forest(
    caption: str,
    rows: Sequence[tuple[str, Child, Figure]],
    more: Sequence[str] = (),
    cells: Sequence[Cells] = (),
) -> Html:
    """Return differences (group, name, figure) around a line at 0; `cells` are further columns."""
    scale = around([each for _, _, each in rows], 0.0)
    columns = [
        Column("a \N{MINUS SIGN} b"), Column(tracks.axis(scale), "plot"), Column("difference"),
        *map(Column, more),
    ]  # fmt: skip
    further = cells or [()] * len(rows)
    lines = [
        (
            group,
            (name, tracks.interval(each, scale, mark=0.0), figure_cell(each, signed=True), *rest),
        )
        for (group, name, each), rest in zip(rows, further, strict=True)
    ]
    names = dict.fromkeys(group for group, _ in lines)
    body: list[Cells | Group] = [line for group, line in lines if not group]
    body += [
        Group(name, [line for group, line in lines if group == name]) for name in names if name
    ]
    return table(caption, columns, body, "forest tests" if more else "forest")


def named(a: str, b: str) -> tuple[str, Child]:
    """Return the head that `a − b` stands under, its systems, and the name of its row, the arms."""
    (one, _, left), (two, _, right) = a.partition("/"), b.partition("/")
    if not (left and right):
        return "", _minus(a, b)
    head = one if one == two else f"{one} \N{MINUS SIGN} {two}"
    return head, left if left == right else _minus(left, right)


def _minus(a: str, b: str) -> Html:
    """Return `a − b`, each on a line of its own where both do not fit one."""
    return tag("span", tag("span", a), " \N{MINUS SIGN} ", tag("span", b), class_="minus")


def _told(
    rows: Sequence[Mapping[str, Any]], report: Report, name: str, keys: Sequence[str]
) -> bool:
    """Say whether all rows are those of the comparison over seeds, which tells more of them."""
    over_seeds = (finding(report, "comparison") or {}).get(name) or []
    known = {tuple(each.get(key) for key in keys) for each in over_seeds}
    return all(tuple(each.get(key) for key in keys) in known for each in rows)


def _forests(found: Sequence[Mapping[str, Any]], report: Report) -> list[Html]:
    shown = []
    for metric, each in by(found, "metric").items():
        called = words.title(metric, report.get("positive"))
        rows: list[tuple[str, Child, Figure]] = []
        for one in each:
            rows.append((*named(str(one.get("a")), str(one.get("b"))), figure(one.get("interval"))))
        shown += [tag("h3", called), forest(f"Differences in {called}", rows)]
    return shown


def _table(report: Report) -> Html:
    rows = report.get("rows") or []
    metrics = [name for name in words.TITLES if any(name in row["metrics"] for row in rows)]
    metrics += [name for row in rows for name in row["metrics"] if name not in words.TITLES]
    metrics = list(dict.fromkeys(metrics))
    scales = {
        name: within([figure(row["metrics"].get(name)) for row in rows], 0.0, 1.0)
        for name in metrics
    }
    columns = [
        "arm", *(words.title(name, report.get("positive")) for name in metrics), "threshold",
    ]  # fmt: skip
    body = [
        Group(system, [_cells(row, scales) for row in held])
        for system, held in by(rows, "system").items()
    ]
    return table("Metrics of each system in each arm", columns, body, "systems")


def _cells(row: Mapping[str, Any], scales: Mapping[str, Scale]) -> Cells:
    figures = [
        figure_cell(figure(row["metrics"][name]), scale) if name in row["metrics"] else ""
        for name, scale in scales.items()
    ]
    return (_arm(row), *figures, _threshold(row.get("threshold")))


def _arm(row: Mapping[str, Any]) -> str:
    """Return the arm; a baseline has none."""
    found = str(row.get("arm"))
    return "\N{EN DASH}" if found == "-" else found


def _threshold(found: Any) -> str:
    if isinstance(found, Mapping):
        return ", ".join(f"{label} {plain(each)}" for label, each in found.items()) or UNDEFINED
    return "\N{EN DASH}" if found is None else plain(found)


def _meaning(report: Report) -> str:
    rows = max((row.get("rows") or 0 for row in report.get("rows") or []), default=0)
    return (
        f"Each figure is the metric on {count(rows)} posts; below it the {level(report)} "
        f"percentile interval of {count(report.get('num_resamples'))} bootstrap resamples of "
        "them: the chance in which posts were drawn, not the chance in training. "
        f"{words.together(report.get('groups') or 0)}ECE is "
        f"{_ECE[report.get('kind', 'one')]}; on resamples it comes out a little high."
    )
