"""The comparison over seeds: means, differences with their tests, and what could have been seen."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page.markup import Child, Html, tag
from miko_clf.evaluate.page.numbers import Figure, chance, count, exact, figure, real
from miko_clf.evaluate.page.scale import Scale, within
from miko_clf.evaluate.page.section import (
    Report,
    Section,
    by,
    finding,
    level,
    note,
    prose,
    section,
)
from miko_clf.evaluate.page.systems import forest, named
from miko_clf.evaluate.page.tables import Cells, Group, figure_cell, table

_TESTS = ("p", "p after Holm", "permutation p", "McNemar p, by seed", "smallest that shows")


def comparison(report: Report) -> Section | None:
    """Return what systems score over seeds and how they differ."""
    found = finding(report, "comparison")
    if not found:
        return None
    rows, differences = found.get("rows") or [], found.get("differences") or []
    read = (
        f"Means over seeds. The {level(report)} interval covers other posts of the kind "
        "and other seeds; `±` is the standard deviation over seeds. "
        f"{words.together(report.get('groups') or 0)}"
    )
    return section(
        "seeds", "Over seeds", *_paragraphs(str(found.get("words") or "")),
        note(read) if rows else None, _table(rows, report) if rows else None,
        *_recovery(found, report), *_forests(differences, report),
    )  # fmt: skip


def _paragraphs(text: str) -> list[Html]:
    """Return the words, a paragraph for each line."""
    return [tag("p", prose(part), class_="words") for part in text.splitlines() if part]


def _recovery(found: Mapping[str, Any], report: Report) -> list[Html]:
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
    columns = ["system", *(words.title(name, report.get("positive")) for name in names)]
    body = [
        (system or "all", *(figure_cell(figure(each.get(name))) for name in names))
        for system, each in shares.items()
    ]
    return [tag("h3", "Recovery"), note(says), table("Recovery", columns, body, "narrow")]


def _table(rows: list[Mapping[str, Any]], report: Report) -> Html:
    names = [name for name in words.TITLES if any(name in row["metrics"] for row in rows)]
    scales = {
        name: within([figure(row["metrics"].get(name)) for row in rows], 0.0, 1.0) for name in names
    }
    columns = ["arm", "seeds", *(words.title(name, report.get("positive")) for name in names)]
    body = [
        Group(system, [_cells(row, scales) for row in held])
        for system, held in by(rows, "system").items()
    ]
    return table("Means over seeds of each system in each arm", columns, body, "systems")


def _cells(row: Mapping[str, Any], scales: Mapping[str, Scale]) -> Cells:
    found = row["metrics"]
    seeds = row.get("seeds")
    many = len(seeds) if isinstance(seeds, list) else seeds
    return (
        str(row.get("arm")),
        count(many),
        *(_spread(found[name], scale) if name in found else "" for name, scale in scales.items()),
    )


def _spread(found: Mapping[str, Any], scale: Scale) -> Html:
    return figure_cell(figure(found), scale, spread=real(found.get("deviation")))


def _forests(found: list[Mapping[str, Any]], report: Report) -> list[Html]:
    if not found:
        return []
    says = (
        "A full dot: the interval lies on one side of 0, which is not corrected for the number of "
        "differences; p after Holm is, and the words above go by it. The permutation test swaps "
        "what two systems say of a post; McNemar's (mid-p) asks of one seed whether the posts that "
        "only one of the two gets right lean to one side. The smallest that shows is the true "
        "difference that would have been found four times in five, with as many asked about."
    )
    shown = [note(says)]
    for metric, each in by(found, "metric").items():
        called = words.title(metric, report.get("positive"))
        rows: list[tuple[str, Child, Figure]] = []
        for one in each:
            rows.append((*named(str(one.get("a")), str(one.get("b"))), figure(one)))
        cells = [_tests(one) for one in each]
        caption = f"Differences in {called} over seeds"
        shown += [tag("h3", called), forest(caption, rows, _TESTS, cells)]
    return shown


def _tests(one: Mapping[str, Any]) -> Cells:
    seeds = one.get("mcnemar") or []
    return (
        chance(one.get("p")),
        chance(one.get("p_holm")),
        chance(one.get("permutation_p")),
        tag("span", *_listed(map(chance, seeds)), class_="several") if seeds else "\N{EN DASH}",
        exact(one.get("smallest")),
    )


def _listed(texts: Iterable[str]) -> Iterator[Child]:
    """Yield texts with commas between them, none of which breaks within."""
    for index, text in enumerate(texts):
        yield ", " if index else None
        yield tag("span", text)
