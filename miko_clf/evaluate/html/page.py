"""A report as one page that needs nothing else and asks for nothing from anywhere."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import PurePath
from typing import Any

from miko_clf.data.audit.report import PAGE_CSS
from miko_clf.evaluate.html import analysis, calibration, curves, explain, markup, scores, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag

_LONG_VERDICT = 80  # characters from which a verdict is set smaller
_MAIN_ARMS = tuple((arm, none) for arm in ("with", "student") for none in ("without", "masked"))
_FILES = resources.files("miko_clf.evaluate.html")
_STYLE = PAGE_CSS + _FILES.joinpath("style.css").read_text(encoding="utf-8")
_SCRIPT = _FILES.joinpath("script.js").read_text(encoding="utf-8")


def render_report(report: ReportFields) -> str:
    """Return the page of a report: the object of `report.json`, where null is undefined.

    The page asks for nothing but itself: its policy refuses everything except its own style, its
    own few lines of script and images that it holds.
    """
    sections = []
    for name, show in _SECTIONS:
        finding = markup.get_finding(report, name)
        section = show(finding, report) if finding else None if name else show(report)
        sections += [section] if section else []
    sections += [*scores.show_questions(report), show_provenance(report)]
    links = (tag("li", tag("a", each.title, href=f"#{each.name}")) for each in sections)
    body = tag(
        "body",
        tag("a", "Skip to the figures", href="#figures", class_="skip"),
        show_headline(report),
        tag("nav", tag("ul", *links), aria_label="Contents"),
        tag("main", *(each.html() for each in sections), id="figures", tabindex=-1),
        tag("script", Html(_SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', _make_page_head(report), body, lang='en')}\n"


def _make_page_head(report: ReportFields) -> Html:
    policy = (
        f"default-src 'none'; style-src '{_hash_source(_STYLE)}'; "
        f"script-src '{_hash_source(_SCRIPT)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"Report on {_name_page(report)}"),
        tag("style", Html(_STYLE)),
    )


def _hash_source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _name_page(report: ReportFields) -> str:
    """Return what the page is called."""
    data = PurePath(str(report.get("data"))).name
    question = f", {report['question']}" if report.get("question") else ""
    split = str(report.get("split"))
    return f"{data}{question}, {split}" + (" split" if " " not in split else "")


def show_headline(report: ReportFields) -> Html:
    """Return the verdict, what it rests on, and the size of things."""
    verdict, *grounds = _find_verdict(report)
    long = len(verdict) > _LONG_VERDICT
    return tag(
        "header",
        tag("p", f"Report on {_name_page(report)}", class_="eyebrow"),
        tag("h1", markup.mark_names(verdict), class_="long" if long else None),
        *(tag("p", markup.mark_names(ground), class_="lead") for ground in grounds),
        _link_remarks(report),
        markup.make_facts(_list_sizes(report), "numbers"),
    )


def _link_remarks(report: ReportFields) -> Html | None:
    """Return a link to what the audit has to say against the verdict, where there is one."""
    number = len((markup.get_finding(report, "audit") or {}).get("lines") or [])
    if not number:
        return None
    link = tag("a", f"{number} remark{'s' * (number != 1)} of the audit", href="#audit")
    return tag("p", "Read with it: ", link, ".", class_="lead")


def _find_verdict(report: ReportFields) -> list[str]:
    """Return the verdict in a line, and what it rests on."""
    comparison = markup.get_finding(report, "comparison") or {}
    differences = comparison.get("differences") or report.get("differences") or []
    if not differences:
        systems = {row.get("system") for row in report.get("rows") or []}
        return [f"{len(systems)} system{'s' * (len(systems) != 1)} on {_name_page(report)}"]
    main = _find_main_difference(differences)
    same = [row for row in differences if (row.get("a"), row.get("b")) == (main["a"], main["b"])]
    system, a, b = markup.split_shared_system(str(main.get("a")), str(main.get("b")))
    within = f"Within `{system}`, " if system else ""
    figures = "; ".join(_write_difference(row, report) for row in same)
    ground = f"{within}`{a}` minus `{b}`: {figures}."
    if comparison:
        drawn = re.search(r"(?:^|\s)So (\w)(.*?)\.(?=\s|$)", str(comparison.get("words") or ""))
        return [
            drawn[1].upper() + drawn[2] if drawn else _describe_difference(main, report),
            ground,
        ]
    return [_describe_difference(main, report), ground, _count_differences(differences, report)]


def _find_main_difference(differences: ReportRows) -> ReportFields:
    """Return the difference that the page opens with: in macro F1, of intentions and none."""
    rows = [row for row in differences if row.get("metric") == "macro_f1"] or differences
    arms = [markup.split_shared_system(str(row.get("a")), str(row.get("b")))[1:] for row in rows]
    main = next((pair for pair in _MAIN_ARMS if pair in arms), arms[0])
    return rows[arms.index(main)]


def _count_differences(differences: ReportRows, report: ReportFields) -> str:
    apart = sum(markup.read_difference(row).sign != 0 for row in differences)
    lie = "lies" if apart < 2 else "lie"
    return (
        f"Of {len(differences)} differences, {apart or 'none'} {lie} on one side of 0 with the "
        f"whole {markup.name_level(report)} interval; that is not corrected for their number."
    )


def _describe_difference(row: ReportFields, report: ReportFields) -> str:
    _, a, b = markup.split_shared_system(str(row.get("a")), str(row.get("b")))
    figure, title = markup.read_difference(row), markup.title_metric(report, str(row.get("metric")))
    if not (figure.defined and figure.bounded):
        return f"`{a}` and `{b}` cannot be compared in {title}"
    unlikely = markup.read_real(row["p_holm"]) < 0.05 if "p_holm" in row else figure.sign
    if not unlikely:
        return f"No evidence that `{a}` and `{b}` differ in {title}"
    return f"`{a}` is {'higher' if figure.value > 0 else 'lower'} than `{b}` in {title}"


def _write_difference(row: ReportFields, report: ReportFields) -> str:
    shown = " ".join(filter(None, markup.typeset_figure(markup.read_difference(row), signed=True)))
    holm = f", p {markup.typeset_p_value(row['p_holm'])} after Holm" if "p_holm" in row else ""
    return f"{markup.title_metric(report, str(row.get('metric')))} {shown}{holm}"


def _list_sizes(report: ReportFields) -> list[tuple[str, markup.Child]]:
    posts, lockbox = markup.count_posts(report), markup.get_finding(report, "lockbox")
    seeds = markup.count_seeds(markup.get_finding(report, "comparison") or {})
    sizes: list[tuple[str, markup.Child]] = [("posts", markup.typeset_count(posts))]
    for label, count in (report.get("counts") or {}).items():
        share = tag("small", f" {markup.typeset_share(count, posts)}")
        sizes.append((label, markup.join((markup.typeset_count(count), share))))
    if seeds:
        sizes.append(("seeds", markup.typeset_count(seeds)))
    if lockbox:
        sizes.append(("openings of test", markup.typeset_count(lockbox.get("openings"))))
    return sizes


def show_audit_remarks(audit: ReportFields, report: ReportFields) -> PageSection | None:
    """Return what a quick look at the data found."""
    lines = audit.get("lines")
    return PageSection("audit", "Audit of the data", "", markup.make_list(lines)) if lines else None


def show_lockbox(lockbox: ReportFields, report: ReportFields) -> PageSection:
    """Return how often the test split was opened."""
    times = lockbox.get("openings") or 0
    often = "once" if times == 1 else f"{markup.typeset_count(times)} times"
    says = f"The test split was opened {often}. Each look at it makes its figures less of a test."
    user = lockbox.get("by_user") or {}
    if user:
        opened, trained = (markup.typeset_count(user[key]) for key in ("openings", "bundles"))
        says += (
            f" On this machine these very posts were opened {opened} times in all, by {trained} "
            "different trainings."
        )
    names = ("split", "fingerprint", "command")
    columns: list[Any] = ["when", *(markup.TableColumn(name, "words") for name in names)]
    body = [
        (str(row.get("when")), str(row.get("split")), tag("code", str(row.get("fingerprint"))),
         tag("code", str(row.get("command") or markup.NO_FIGURE)))
        for row in lockbox.get("of") or []
    ]  # fmt: skip
    table = markup.make_table("Openings of the test split", columns, body) if body else None
    return PageSection("lockbox", "Lockbox", says, table)


def show_overlap(overlap: ReportFields, report: ReportFields) -> PageSection:
    """Return what the system scores on the posts that it was not fitted on."""
    shown, of, text, image = (
        markup.typeset_count(overlap.get(key)) for key in ("posts", "of", "same_text", "same_image")
    )
    says = (
        f"{shown} of the {of} posts stand among those that the system was fitted on, text and "
        f"image alike ({', '.join(overlap.get('examples') or ())}); the figures elsewhere on this "
        f"page count them. The text is known of {text}, and the image of {image}."
    )
    sides = (("all posts", "with"), ("without those", "without"))
    names = list(overlap.get("with") or {})
    body: list[Any] = [
        (
            title,
            *(svg.make_figure_cell(markup.read_figure_of(overlap, key, name)) for name in names),
        )
        for title, key in sides
    ]
    heads = ["posts", *(markup.title_metric(report, name) for name in names)]
    return PageSection(
        "overlap", "Posts it knew", says, markup.make_table("Both ways", heads, body)
    )


def show_provenance(report: ReportFields) -> PageSection:
    """Return the data, the versions and the command that made the figures."""
    facts: list[tuple[str, markup.Child]] = [
        ("data", str(report.get("data"))),
        ("split", str(report.get("split"))),
        ("fingerprint", tag("code", str(report.get("fingerprint")))),
        ("resamples", markup.typeset_count(report.get("num_resamples"))),
        ("took", f"{markup.typeset_number(report.get('seconds'), 1)} s"),
    ]
    absent = markup.get_finding(report, "not_installed")
    if absent:
        facts.append(("left out, for want of", ", ".join(map(str, absent))))
    commands = report.get("command") or ""
    versions = [(name, str(version)) for name, version in (report.get("versions") or {}).items()]
    return PageSection(
        "origin",
        "How it was made",
        "",
        markup.make_facts(facts, "facts long"),
        tag("h3", "Command"),
        *map(_show_command, commands if isinstance(commands, list) else [commands]),
        tag("h3", "Versions"),
        markup.make_facts(versions),
    )


def show_other_findings(report: ReportFields) -> PageSection | None:
    """Return findings that have no drawing of their own, as they stand in the report."""
    parts = []
    for name, finding in (report.get("findings") or {}).items():
        if finding and name not in _DRAWN_FINDINGS:
            text = json.dumps(finding, indent=2, ensure_ascii=False)
            parts += [tag("h3", name.replace("_", " ")), _make_scrolling(text, name)]
    return PageSection("further", "Further findings", "", *parts) if parts else None


def _show_command(line: Any) -> Html:
    """Return a command that breaks between its words and not within, and a button to copy it."""
    words = [tag("span", word) for word in str(line).split(" ")]
    spaced = [part for word in words for part in (word, " ")][:-1]
    button = tag("button", "Copy", type="button", hidden=True)
    return tag("div", _make_scrolling(markup.join(spaced), "command"), button, class_="command")


def _make_scrolling(child: markup.Child, name: str) -> Html:
    return tag("pre", tag("code", child), tabindex=0, role="group", aria_label=name)


# In the order of the page, each with the finding that it needs; one without looks for its own.
_SECTIONS: tuple[tuple[str, Callable[..., PageSection | None]], ...] = (
    ("comparison", scores.show_seed_comparison),
    ("", scores.show_systems),
    ("", scores.show_differences),
    ("ranked", curves.show_seed_ranking),
    ("overlap", show_overlap),
    ("curves", curves.show_ranking),
    ("curves", calibration.show_confusion),
    ("calibration", calibration.show_calibration),
    ("review_desk", calibration.show_review_desk),
    ("shapley", explain.show_shapley),
    ("relations", explain.show_relations),
    ("over_time", analysis.show_over_time),
    ("by_source", analysis.show_by_source),
    ("slices", analysis.show_slices),
    ("", analysis.show_groups),
    ("pairs", analysis.show_confounder_pairs),
    ("robustness", analysis.show_robustness),
    ("matrix", analysis.show_transfer),
    ("", explain.show_mistakes),
    ("suspects", explain.show_suspect_labels),
    ("curves", curves.show_training),
    ("training", curves.show_seed_training),
    ("audit", show_audit_remarks),
    ("lockbox", show_lockbox),
    ("", show_other_findings),
)
_DRAWN_FINDINGS = {name for name, _ in _SECTIONS} | {
    "arm", "attribution", "groups", "groups_left_out", "mistakes", "neighbours", "not_installed",
    "slices_left_out", "system",
}  # fmt: skip
