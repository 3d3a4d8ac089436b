"""What decides: the share of each input, and of each relation that the reader looks at."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import tracks
from miko_clf.evaluate.page.markup import Child, Html, tag
from miko_clf.evaluate.page.numbers import Figure, count, figure, real
from miko_clf.evaluate.page.scale import Scale, around
from miko_clf.evaluate.page.section import Report, Section, finding, note, section
from miko_clf.evaluate.page.tables import Cells, Column, Columns, figure_cell, table

_GRAINS = 300
Rows = Sequence[Mapping[str, Any]]


def shapley(report: Report) -> Section | None:
    """Return how much each input moves the decision."""
    found = finding(report, "shapley")
    if not found:
        return None
    says = (
        f"Exact Shapley values of {found.get('of', 'the logit')}: what an input adds, averaged "
        "over the orders in which inputs can be given; those of a post add up to what all inputs "
        "move together. The bar is the mean size over posts; each dot to its right is a post."
        + (f" {found['note']}" if found.get("note") else "")
    )
    players = list(found.get("players") or found.get("mean_absolute") or [])
    return section("shapley", "What each input adds", note(says), _players(found, players))


def relations(report: Report) -> Section | None:
    """Return how much of its attention the reader gives each relation, and what it is worth."""
    rows = finding(report, "relations")
    if not rows:
        return None
    says = (
        "How a metric moves where a relation is left out, on the same resamples: below 0 it was "
        "of use."
    )
    if _attends(rows):
        says += (
            " Attention is the share of the reader's that goes to a relation, and to `none` "
            "what falls on no relation."
        )
    rows = sorted(rows, key=lambda each: (each.get("relation") == "none", -_attention(each)))
    return section("relations", "Relations", note(says), _relations(rows, report))


def _players(found: Mapping[str, Any], players: Sequence[str]) -> Html:
    sizes = {name: figure((found.get("mean_absolute") or {}).get(name)) for name in players}
    means = {name: figure((found.get("mean") or {}).get(name)) for name in players}
    posts = {name: _values(found.get("rows") or [], name) for name in players}
    long = Scale(0.0, around(sizes.values(), 0.0).high)
    wide = around([Figure(min(each), max(each), max(each)) for each in posts.values() if each], 0.0)
    columns: Columns = [
        "input", Column(tracks.axis(long), "plot"), "mean size", "mean",
        *([Column(tracks.axis(wide), "plot")] if any(posts.values()) else []),
    ]  # fmt: skip
    body: list[Cells] = [
        (name, tracks.bar(sizes[name], long), figure_cell(sizes[name]),
         figure_cell(means[name], signed=True),
         *([tracks.strip(_sample(posts[name]), wide)] if any(posts.values()) else []))
        for name in players
    ]  # fmt: skip
    return table("Shapley values of each input", columns, body, "bars")


def _values(rows: Rows, name: str) -> list[float]:
    found = [real((each.get("values") or {}).get(name)) for each in rows]
    return sorted(each for each in found if each == each)


def _sample(values: Sequence[float]) -> Sequence[float]:
    """Return sorted values, thinned evenly where they are many."""
    if len(values) <= _GRAINS:
        return values
    step = (len(values) - 1) / (_GRAINS - 1)
    return [values[round(index * step)] for index in range(_GRAINS)]


def _relations(rows: Rows, report: Report) -> Html:
    metrics = list(dict.fromkeys(name for each in rows for name in each.get("left_out") or {}))
    long = Scale(0.0, around([figure(each.get("attention")) for each in rows], 0.0).high)
    wide = around([_left(each, name) for each in rows for name in metrics], 0.0)
    attends = _attends(rows)
    columns: list[Column | str] = ["relation", "posts"]
    if attends:
        columns += [Column(tracks.axis(long), "plot"), "attention"]
    for name in metrics:
        called = words.title(name, report.get("positive"))
        columns += [Column(tracks.axis(wide), "plot"), Column(f"{called} without it")]
    body: list[Cells] = []
    for each in rows:
        found = figure(each.get("attention"))
        cells: list[Child] = [str(each.get("relation")), count(each.get("posts"))]
        if attends:
            cells += [tracks.bar(found, long), figure_cell(found)]
        for name in metrics:
            left = _left(each, name)
            known = left.value == left.value  # what is read in nobody's stead is not left out
            cells += [
                tracks.interval(left, wide, mark=0.0) if known else "",
                figure_cell(left, signed=True) if known else "\N{EN DASH}",
            ]
        body.append(tuple(cells))
    caption = "Relations by attention" if attends else "Relations left out"
    return tag("div", table(caption, columns, body, "bars"))


def _attends(rows: Rows) -> bool:
    """Say whether the system has an attention to tell of."""
    return any(_attention(each) >= 0 for each in rows)


def _left(each: Mapping[str, Any], name: str) -> Figure:
    return figure((each.get("left_out") or {}).get(name))


def _attention(each: Mapping[str, Any]) -> float:
    value = figure(each.get("attention")).value
    return value if value == value else -1.0
