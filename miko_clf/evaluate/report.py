"""What an evaluation found: as JSON, as a page, and as a table on the screen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from miko_clf import manifest, tables
from miko_clf.evaluate.analysis.origins import list_origin_cells
from miko_clf.evaluate.bootstrap import MetricDifference
from miko_clf.evaluate.formatting import (
    METRIC_TITLES,
    convert_to_json,
    describe_difference,
    describe_groups,
    format_interval,
    format_markdown_table,
    get_metric_title,
)
from miko_clf.evaluate.html.page import render_report
from miko_clf.intervals import Interval

_WIDE = 190  # columns that a table with each interval beside its value takes
_ECE = {
    "one": "of the confidence of the most probable class",
    "many": "of the probability of a label, the mean over labels",
}


@dataclass(frozen=True)
class ReportRow:
    """One system on one arm: `with`, `student`, `masked`, `without`, or a control."""

    system: str
    arm: str
    rows: int
    metrics: Mapping[str, Interval]
    threshold: float | Mapping[str, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Rows of one split of one data set, the differences between them, and how they came about.

    `others` are the reports on further `question`s that the same systems answer; `kind` is
    whether one label holds or any number of them. `findings` are what was looked into besides,
    by name; the page draws those that it knows. `groups` are the units that resamples draw, a
    group or a row without one; 0 where each row is drawn by itself.
    """

    rows: Sequence[ReportRow]
    data: str
    fingerprint: str
    split: str
    counts: Mapping[str, int]  # rows of each class
    positive: str | None
    versions: Mapping[str, str]
    command: str
    seconds: float
    differences: Sequence[MetricDifference] = field(default=())
    num_resamples: int = 1000
    groups: int = 0
    level: float = 0.95
    question: str = ""
    kind: Literal["one", "many"] = "one"
    others: Sequence["Report"] = ()
    findings: Mapping[str, Any] = field(default_factory=dict)


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json` (undefined is null), `report.md` and `report.html`, each whole or not.

    Raises `BundleError` where the folder cannot be written.
    """
    fields = convert_to_json(_list_fields(report))
    manifest.write_json(folder / "report.json", fields)
    pages = [_write_page(page) for page in (report, *report.others)]
    manifest.write_text(folder / "report.md", "\n".join(pages))
    manifest.write_text(folder / "report.html", render_report(fields))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the rows, then in words what the differences show, question by question.

    Below 190 columns intervals stand under their values, in as many tables as it takes.
    """
    console = console or Console()
    for part in (report, *report.others):
        if part.question:
            console.print(f"Question {part.question}", markup=False, highlight=False)
        _print_rows(part, console)


def _print_rows(report: Report, console: Console) -> None:
    metrics = _list_metrics(report)
    stacked = console.width < _WIDE
    lead = 9 + max(len(name) for row in report.rows for name in (row.system, row.arm))
    fit = max(1, (console.width - lead) // 13) if stacked else len(metrics)
    for start in range(0, len(metrics), fit):
        console.print(_build_table(report, metrics[start : start + fit], stacked=stacked))
    remarks = [f"{row.system} {row.arm}: {row.note}" for row in report.rows if row.note]
    for line in [*remarks, *_list_verdicts(report), _explain_figures(report)]:
        console.print(line, markup=False, highlight=False)
    for title, words, (heads, cells) in _list_origins(report):
        tables.print_table(tables.make_text_table(escape(title), heads, cells), console)
        if words:
            console.print(words, markup=False, highlight=False)


def _list_origins(report: Report) -> Iterator[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    """Yield the title, the words, and titles and cells of the tables by month and by source."""
    for name, title in (("over_time", "by month"), ("by_source", "by source")):
        finding = report.findings.get(name) or {}
        if rows := finding.get("rows"):
            system = f"{report.findings['system']}, {report.findings['arm']}"
            words = finding.get("words") or ""
            yield f"{system}: {title}", words, list_origin_cells(rows, report.positive)


def _list_verdicts(report: Report) -> list[str]:
    """Return what the differences show; of a comparison over seeds, the paragraphs on it."""
    if "comparison" in report.findings:
        return list(report.findings["comparison"]["words"].splitlines())
    return [describe_difference(*difference, report.positive) for difference in report.differences]


def _list_metrics(report: Report) -> list[str]:
    return [name for name in METRIC_TITLES if any(name in row.metrics for row in report.rows)]


def _list_titles(report: Report, metrics: Sequence[str]) -> list[str]:
    return [get_metric_title(name, report.positive) for name in metrics]


def _format_threshold(row: ReportRow) -> str:
    if isinstance(row.threshold, Mapping):
        return "by label"
    return "" if row.threshold is None else f"{row.threshold:.3f}"


def _build_table(report: Report, metrics: Sequence[str], *, stacked: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if stacked else 1, 0, 0))
    first = "system\narm" if stacked else "system"
    table.add_column(first, overflow="fold", no_wrap=not stacked)
    if not stacked:
        table.add_column("arm", no_wrap=True)
    for title in ["rows\nthresh."] if stacked else ["rows", "threshold"]:
        table.add_column(title, justify="right", no_wrap=True)
    for title in _list_titles(report, metrics):
        table.add_column(escape(title.replace(" ", "\n", 1)), justify="right", no_wrap=True)
    for row in report.rows:
        cells = [_format_compact(row.metrics.get(name), stacked) for name in metrics]
        lead = [escape(row.system), escape(row.arm), str(row.rows), _format_threshold(row)]
        if stacked:
            lead = ["\n".join(lead[:2]), "\n".join(lead[2:])]
        table.add_row(*lead, *cells)
    return table


def _format_compact(interval: Interval | None, stacked: bool) -> str:
    if interval is None:
        return ""
    figures = re.sub(r"\b0\.", ".", format_interval(*interval))
    value, _, bounds = figures.partition(" ")
    return escape(f"{value}\n{bounds}" if stacked else figures)


def _explain_figures(report: Report) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    rows = f"Rows: split {report.split} of {report.data} ({counts}). "
    if "comparison" in report.findings:
        seeds = report.findings["comparison"]["seeds"]
        what = f"the mean over {seeds} seeds" if seeds > 1 else "that of one seed"
        over = "other rows and other seeds" if seeds > 1 else "other rows alone"
        return rows + (
            f"Each figure is {what} and, in brackets, its {100 * report.level:g} % interval over "
            f"{over}. {describe_groups(report.groups)}ECE is {_ECE[report.kind]}."
        )
    return rows + (
        "Each figure is the metric on "
        f"those rows and, in brackets, the {100 * report.level:g} % percentile interval of "
        f"{report.num_resamples} bootstrap resamples of them: the chance in which rows were drawn, "
        f"not the chance in training. {describe_groups(report.groups)}ECE is "
        f"{_ECE[report.kind]}; on resamples it comes out a little high."
    )


def _write_page(report: Report) -> str:
    metrics = _list_metrics(report)
    columns = ["system", "arm", "rows", *_list_titles(report, metrics), "threshold", "note"]
    rows = []
    for row in report.rows:
        known = (row.metrics.get(name) for name in metrics)
        figures = ["" if interval is None else format_interval(*interval) for interval in known]
        threshold = _format_threshold(row)
        rows.append([row.system, row.arm, str(row.rows), *figures, threshold, row.note])
    asked = f", question {report.question}" if report.question else ""
    facts = {
        "data": f"{report.data}, fingerprint `{report.fingerprint}`",
        "command": f"`{report.command}`",
        "seconds": f"{report.seconds:.1f}",
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    parts = [
        f"# Report on {report.data}, split {report.split}{asked}",
        format_markdown_table(columns, rows),
        _explain_figures(report),
        "\n".join(f"- {line}" for line in _list_verdicts(report)),
        *(
            f"## {title}\n\n{format_markdown_table(heads, cells)}\n\n{words}".rstrip()
            for title, words, (heads, cells) in _list_origins(report)
        ),
        "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _list_fields(report: Report) -> dict[str, Any]:
    """Return the report as an object; what most reports have no use for is there where it is."""
    fields = asdict(report) | {"others": [_list_fields(other) for other in report.others]}
    bare = {"question": "", "kind": "one", "others": [], "findings": {}}
    return {key: value for key, value in fields.items() if key not in bare or value != bare[key]}
