"""A report as one page that needs nothing else and asks for nothing from anywhere."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

from miko_clf.data.audit.report import PAGE_CSS
from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import analysis, calibration, curves, explain, scores
from miko_clf.evaluate.html.figures import (
    Figure,
    read_figure,
    read_real,
    typeset_count,
    typeset_minus,
    typeset_number,
    typeset_p_value,
    typeset_share,
)
from miko_clf.evaluate.html.markup import (
    Child,
    Html,
    PageSection,
    ReportFields,
    get_finding,
    join,
    make_note,
    make_section,
    mark_names,
    name_level,
    split_shared_system,
    tag,
)
from miko_clf.evaluate.html.tables import (
    RowCells,
    TableColumn,
    TableColumns,
    make_facts,
    make_list,
    make_table,
)

_LONG_VERDICT = 80
"""Characters from which a verdict is set smaller."""


def _name_page(report: ReportFields) -> str:
    """Return what the page is called."""
    data = PurePath(str(report.get("data"))).name
    asked = f", {report['question']}" if report.get("question") else ""
    split = str(report.get("split"))
    return f"{data}{asked}, {split}" + (" split" if " " not in split else "")


def show_headline(report: ReportFields) -> Html:
    """Return the verdict, what it rests on, and the size of things."""
    head, rest = _find_verdict(report)
    return tag(
        "header",
        tag("p", f"Report on {_name_page(report)}", class_="eyebrow"),
        tag("h1", mark_names(head), class_="long" if len(head) > _LONG_VERDICT else None),
        *(tag("p", mark_names(each), class_="lead") for each in rest if each),
        _link_remarks(report),
        make_facts(_list_sizes(report), "numbers"),
    )


def _link_remarks(report: ReportFields) -> Html | None:
    """Return a link to what the audit has to say against the verdict, where there is one."""
    number = len((get_finding(report, "audit") or {}).get("lines") or [])
    if not number:
        return None
    said = f"{number} remark{'s' * (number != 1)} of the audit"
    return tag("p", "Read with it: ", tag("a", said, href="#audit"), ".", class_="lead")


def _find_verdict(report: ReportFields) -> tuple[str, list[str]]:
    """Return the verdict in a line, and what it rests on."""
    comparison = get_finding(report, "comparison") or {}
    found = comparison.get("differences") or report.get("differences") or []
    if not found:
        systems = {row.get("system") for row in report.get("rows") or []}
        return f"{len(systems)} system{'s' * (len(systems) != 1)} on {_name_page(report)}", []
    main = _find_main_difference(found)
    same = [each for each in found if (each.get("a"), each.get("b")) == (main["a"], main["b"])]
    system, a, b = split_shared_system(str(main.get("a")), str(main.get("b")))
    within = f"Within `{system}`, " if system else ""
    lines = "; ".join(_write_difference(each, report) for each in same)
    rest = [f"{within}`{a}` minus `{b}`: {lines}."]
    if comparison:
        return _find_conclusion(str(comparison.get("words") or "")) or _say_difference(
            main, report
        ), rest
    return _say_difference(main, report), [*rest, _count_differences(found, report)]


def _find_main_difference(found: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the difference that the page opens with: in macro F1, of intentions and none."""
    known = [each for each in found if each.get("metric") == "macro_f1"] or found
    wanted = (("with", "without"), ("student", "without"))
    for arms in wanted:
        for each in known:
            if split_shared_system(str(each.get("a")), str(each.get("b")))[1:] == arms:
                return each
    return known[0]


def _find_conclusion(text: str) -> str | None:
    """Return the sentence that draws the conclusion, if one does."""
    drawn = re.search(r"(?:^|\s)So (\w)(.*?)\.(?=\s|$)", text)
    return drawn and drawn[1].upper() + drawn[2]


def _count_differences(found: list[Mapping[str, Any]], report: ReportFields) -> str:
    apart = sum(_read_interval(each).sign != 0 for each in found)
    lie = "lies" if apart < 2 else "lie"
    return (
        f"Of {len(found)} differences, {apart or 'none'} {lie} on one side of 0 with the whole "
        f"{name_level(report)} interval; that is not corrected for their number."
    )


def _read_interval(each: Mapping[str, Any]) -> Figure:
    """Return the figure of a difference, of one system each or over seeds."""
    return read_figure(each.get("interval", each))


def _say_difference(each: Mapping[str, Any], report: ReportFields) -> str:
    _, a, b = split_shared_system(str(each.get("a")), str(each.get("b")))
    found, called = (
        _read_interval(each),
        formatting.get_metric_title(str(each.get("metric")), report.get("positive")),
    )
    if not (found.defined and found.bounded):
        return f"`{a}` and `{b}` cannot be compared in {called}"
    unlikely = read_real(each["p_holm"]) < 0.05 if "p_holm" in each else bool(found.sign)
    if not unlikely:
        return f"No evidence that `{a}` and `{b}` differ in {called}"
    return f"`{a}` is {'higher' if found.value > 0 else 'lower'} than `{b}` in {called}"


def _write_difference(each: Mapping[str, Any], report: ReportFields) -> str:
    called = formatting.get_metric_title(str(each.get("metric")), report.get("positive"))
    holm = f", p {typeset_p_value(each['p_holm'])} after Holm" if "p_holm" in each else ""
    return f"{called} {typeset_minus(formatting.format_interval(*_read_interval(each), signed=True))}{holm}"


def _list_sizes(report: ReportFields) -> list[tuple[str, Child]]:
    counts = report.get("counts") or {}
    rows = max((row.get("rows") or 0 for row in report.get("rows") or []), default=0)
    seeds = (get_finding(report, "comparison") or {}).get("seeds")
    opened = get_finding(report, "lockbox")
    many = len(seeds) if isinstance(seeds, list) else seeds
    found: list[tuple[str, Child]] = [("posts", typeset_count(rows))]
    found += [
        (label, join((typeset_count(each), tag("small", f" {typeset_share(each, rows)}"))))
        for label, each in counts.items()
    ]
    found += [("seeds", typeset_count(many))] if many else []
    found += [("openings of test", typeset_count(opened.get("openings")))] if opened else []
    return found


_DRAWN_FINDINGS = frozenset({
    "attribution", "audit", "calibration", "comparison", "curves", "groups", "groups_left_out",
    "lockbox", "matrix",
    "mistakes", "neighbours", "not_installed", "pairs", "ranked", "relations",
    "robustness", "shapley", "slices", "slices_left_out", "suspects", "system", "arm", "training",
})  # fmt: skip


def show_audit_remarks(report: ReportFields) -> PageSection | None:
    """Return what a quick look at the data found."""
    lines = (get_finding(report, "audit") or {}).get("lines")
    return make_section("audit", "Audit of the data", make_list(lines)) if lines else None


def show_lockbox(report: ReportFields) -> PageSection | None:
    """Return how often the test split was opened."""
    found = get_finding(report, "lockbox")
    if not found:
        return None
    times = found.get("openings") or 0
    of = "once" if times == 1 else f"{typeset_count(times)} times"
    says = make_note(
        f"The test split was opened {of}. Each look at it makes its figures less of a test."
    )
    columns: TableColumns = [
        "when", TableColumn("split", "words"), TableColumn("fingerprint", "words"),
        TableColumn("command", "words"),
    ]  # fmt: skip
    body: list[RowCells] = [
        (str(each.get("when")), str(each.get("split")), _mark_code(str(each.get("fingerprint"))),
         _mark_code(str(each.get("command") or "\N{EN DASH}")))
        for each in found.get("of") or []
    ]  # fmt: skip
    shown = make_table("Openings of the test split", columns, body) if body else None
    return make_section("lockbox", "Lockbox", says, shown)


def show_provenance(report: ReportFields) -> PageSection:
    """Return the data, the versions and the command that made the figures."""
    pairs: list[tuple[str, Child]] = [
        ("data", str(report.get("data"))),
        ("split", str(report.get("split"))),
        ("fingerprint", _mark_code(str(report.get("fingerprint")))),
        ("resamples", typeset_count(report.get("num_resamples"))),
        ("took", f"{typeset_number(report.get('seconds'), 1)} s"),
    ]
    absent = get_finding(report, "not_installed")
    if absent:
        pairs.append(("left out, for want of", ", ".join(map(str, absent))))
    versions = [(name, str(each)) for name, each in (report.get("versions") or {}).items()]
    return make_section(
        "origin", "How it was made", make_facts(pairs, "facts long"), tag("h3", "Command"),
        *map(_show_command, _list_commands(report)), tag("h3", "Versions"), make_facts(versions),
    )  # fmt: skip


def show_other_findings(report: ReportFields) -> PageSection | None:
    """Return findings that have no drawing of their own, as they stand in the report."""
    findings: Mapping[str, Any] = report.get("findings") or {}
    left = {name: each for name, each in findings.items() if each and name not in _DRAWN_FINDINGS}
    if not left:
        return None
    shown = []
    for name, each in left.items():
        text = json.dumps(each, indent=2, ensure_ascii=False)
        shown += [tag("h3", name.replace("_", " ")), _make_scrolling(text, name)]
    return make_section("further", "Further findings", *shown)


def _list_commands(report: ReportFields) -> list[str]:
    found = report.get("command") or ""
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _show_command(line: str) -> Html:
    """Return a command that breaks between its words and not within, and a button to copy it."""
    words = [tag("span", each) for each in line.split(" ")]
    spaced = [part for each in words for part in (each, " ")][:-1]
    button = tag("button", "Copy", type="button", hidden=True)
    return tag("div", _make_scrolling(join(spaced), "command"), button, class_="command")


def _make_scrolling(child: Child, name: str) -> Html:
    return tag("pre", tag("code", child), tabindex=0, role="group", aria_label=name)


def _mark_code(text: str) -> Html:
    return tag("code", text)


_SECTIONS: tuple[Callable[[ReportFields], PageSection | None], ...] = (
    scores.show_seed_comparison, scores.show_systems, scores.show_differences, curves.show_seed_ranking,
    curves.show_ranking, curves.show_confusion,
    calibration.show_calibration, explain.show_shapley, explain.show_relations, analysis.show_slices, analysis.show_groups,
    analysis.show_confounder_pairs, analysis.show_robustness, analysis.show_transfer, explain.show_mistakes, explain.show_suspect_labels,
    curves.show_training, curves.show_seed_training, show_audit_remarks, show_lockbox, show_other_findings,
)  # fmt: skip
_FILES = resources.files("miko_clf.evaluate.html")
_STYLE = PAGE_CSS + _FILES.joinpath("style.css").read_text(encoding="utf-8")
_SCRIPT = _FILES.joinpath("script.js").read_text(encoding="utf-8")


def render_report(report: ReportFields) -> str:
    """Return the page of a report: the object of `report.json`, where null is undefined.

    The page asks for nothing but itself: its policy refuses everything except its own style, its
    own few lines of script and images that it holds.
    """
    found = [part(report) for part in _SECTIONS]
    sections = [each for each in found if each is not None]
    sections += [*scores.show_questions(report), show_provenance(report)]
    body = tag(
        "body",
        tag("a", "Skip to the figures", href="#figures", class_="skip"),
        show_headline(report),
        _list_contents(sections),
        tag("main", *(each.html() for each in sections), id="figures", tabindex=-1),
        tag("script", Html(_SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', _make_page_head(report), body, lang='en')}\n"


def _make_page_head(report: ReportFields) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_write_policy()),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"Report on {_name_page(report)}"),
        tag("style", Html(_STYLE)),
    )


def _write_policy() -> str:
    return (
        f"default-src 'none'; style-src '{_hash_source(_STYLE)}'; script-src '{_hash_source(_SCRIPT)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash_source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _list_contents(sections: list[PageSection]) -> Html:
    links = (tag("li", tag("a", each.title, href=f"#{each.name}")) for each in sections)
    return tag("nav", tag("ul", *links), aria_label="Contents")
