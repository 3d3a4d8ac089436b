"""What decides: each input, each relation, and single posts with their words and patches."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import (
    Figure,
    read_figure,
    read_real,
    typeset_count,
    typeset_number,
    typeset_percent,
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
    tag,
)
from miko_clf.evaluate.html.svg import Scale, fit_scale
from miko_clf.evaluate.html.tables import (
    RowCells,
    TableColumn,
    TableColumns,
    make_details,
    make_facts,
    make_figure_cell,
    make_table,
)

_MAX_DOTS = 300
_ExplainRows = Sequence[Mapping[str, Any]]


def show_shapley(report: ReportFields) -> PageSection | None:
    """Return how much each input moves the decision."""
    found = get_finding(report, "shapley")
    if not found:
        return None
    says = (
        f"Exact Shapley values of {found.get('of', 'the logit')}: what an input adds, averaged "
        "over the orders in which inputs can be given; those of a post add up to what all inputs "
        "move together. The bar is the mean size over posts; each dot to its right is a post."
        + (f" {found['note']}" if found.get("note") else "")
    )
    players = list(found.get("players") or found.get("mean_absolute") or [])
    return make_section(
        "shapley", "What each input adds", make_note(says), _make_player_table(found, players)
    )


def show_relations(report: ReportFields) -> PageSection | None:
    """Return how much of its attention the reader gives each relation, and what it is worth."""
    rows = get_finding(report, "relations")
    if not rows:
        return None
    says = (
        "How a metric moves where a relation is left out, on the same resamples: below 0 it was "
        "of use."
    )
    if _has_attention(rows):
        says += (
            " Attention is the share of the reader's that goes to a relation, and to `none` "
            "what falls on no relation."
        )
    rows = sorted(rows, key=lambda each: (each.get("relation") == "none", -_read_attention(each)))
    return make_section(
        "relations", "Relations", make_note(says), _make_relation_table(rows, report)
    )


def _make_player_table(found: Mapping[str, Any], players: Sequence[str]) -> Html:
    sizes = {name: read_figure((found.get("mean_absolute") or {}).get(name)) for name in players}
    means = {name: read_figure((found.get("mean") or {}).get(name)) for name in players}
    posts = {name: _read_player_values(found.get("rows") or [], name) for name in players}
    long = Scale(0.0, fit_scale(sizes.values(), 0.0).high)
    wide = fit_scale(
        [Figure(min(each), max(each), max(each)) for each in posts.values() if each], 0.0
    )
    columns: TableColumns = [
        "input", TableColumn(svg.draw_track_axis(long), "plot"), "mean size", "mean",
        *([TableColumn(svg.draw_track_axis(wide), "plot")] if any(posts.values()) else []),
    ]  # fmt: skip
    body: list[RowCells] = [
        (name, svg.draw_bar_track(sizes[name], long), make_figure_cell(sizes[name]),
         make_figure_cell(means[name], signed=True),
         *([svg.draw_dot_track(_thin_evenly(posts[name]), wide)] if any(posts.values()) else []))
        for name in players
    ]  # fmt: skip
    return make_table("Shapley values of each input", columns, body, "bars")


def _read_player_values(rows: _ExplainRows, name: str) -> list[float]:
    found = [read_real((each.get("values") or {}).get(name)) for each in rows]
    return sorted(each for each in found if each == each)


def _thin_evenly(values: Sequence[float]) -> Sequence[float]:
    """Return sorted values, thinned evenly where they are many."""
    if len(values) <= _MAX_DOTS:
        return values
    step = (len(values) - 1) / (_MAX_DOTS - 1)
    return [values[round(index * step)] for index in range(_MAX_DOTS)]


def _make_relation_table(rows: _ExplainRows, report: ReportFields) -> Html:
    metrics = list(dict.fromkeys(name for each in rows for name in each.get("left_out") or {}))
    long = Scale(0.0, fit_scale([read_figure(each.get("attention")) for each in rows], 0.0).high)
    wide = fit_scale([_read_left_out(each, name) for each in rows for name in metrics], 0.0)
    attends = _has_attention(rows)
    columns: list[TableColumn | str] = ["relation", "posts"]
    if attends:
        columns += [TableColumn(svg.draw_track_axis(long), "plot"), "attention"]
    for name in metrics:
        called = formatting.get_metric_title(name, report.get("positive"))
        columns += [
            TableColumn(svg.draw_track_axis(wide), "plot"),
            TableColumn(f"{called} without it"),
        ]
    body: list[RowCells] = []
    for each in rows:
        found = read_figure(each.get("attention"))
        cells: list[Child] = [str(each.get("relation")), typeset_count(each.get("posts"))]
        if attends:
            cells += [svg.draw_bar_track(found, long), make_figure_cell(found)]
        for name in metrics:
            left = _read_left_out(each, name)
            known = left.value == left.value  # what is read in nobody's stead is not left out
            cells += [
                svg.draw_interval_track(left, wide, mark=0.0) if known else "",
                make_figure_cell(left, signed=True) if known else "\N{EN DASH}",
            ]
        body.append(tuple(cells))
    caption = "Relations by attention" if attends else "Relations left out"
    return tag("div", make_table(caption, columns, body, "bars"))


def _has_attention(rows: _ExplainRows) -> bool:
    """Say whether the system has an attention to tell of."""
    return any(_read_attention(each) >= 0 for each in rows)


def _read_left_out(each: Mapping[str, Any], name: str) -> Figure:
    return read_figure((each.get("left_out") or {}).get(name))


def _read_attention(each: Mapping[str, Any]) -> float:
    value = read_figure(each.get("attention")).value
    return value if value == value else -1.0


_PATCH_SIDE = 16
_WEIGHT_STEPS = 4


def _show_attribution(number: int, each: Mapping[str, Any], report: ReportFields) -> Html | None:
    """Return a post's words and patches with their weights, or None where it has none."""
    tokens, patches = each.get("tokens") or [], each.get("patches") or []
    if not tokens and not patches:
        return None
    found = get_finding(report, "attribution") or {}
    towards = found.get("of") or report.get("positive") or "the decided label"
    says = tag(
        "p", tag("span", "for", class_="w p3"), " and ", tag("span", "against", class_="w m3"),
        f" {towards}", class_="said",
    )  # fmt: skip
    return make_details(
        "What it reads in this post", says, _shade_words(tokens) if tokens else None,
        _draw_patches(number, patches) if patches else None, make_details(
            "As numbers", _make_word_table(tokens) if tokens else None,
            _make_patch_table(patches) if patches else None,
        ),
    )  # fmt: skip


def _make_word_table(tokens: Sequence[Sequence[Any]]) -> Html:
    body = [(str(word), typeset_number(weight, 4, signed=True)) for word, weight in tokens]
    return make_table("Weight of each word", ["word", "weight"], body)


def _make_patch_table(grid: Sequence[Sequence[Any]]) -> Html:
    """Return the weights of patches, top row first; rows that are short end in dashes."""
    wide = max(len(row) for row in grid)
    body = [
        (str(line), *(typeset_number(each, 3, signed=True) for each in row),
         *["\N{EN DASH}"] * (wide - len(row)))
        for line, row in enumerate(grid, start=1)
    ]  # fmt: skip
    return make_table("Weight of each patch", ["row", *map(str, range(1, wide + 1))], body)


def _shade_words(tokens: Sequence[Sequence[Any]]) -> Html:
    most = max(
        (abs(read_real(weight)) for _, weight in tokens if read_real(weight) == read_real(weight)),
        default=0,
    )
    shown = (
        join((tag("span", str(word), class_=_name_weight_class(read_real(weight), most)), " "))
        for word, weight in tokens
    )
    return tag("p", *shown, class_="tokens", dir="auto")


def _draw_patches(number: int, grid: Sequence[Sequence[Any]]) -> Html:
    weights = [[read_real(each) for each in row] for row in grid]
    most = max((abs(each) for row in weights for each in row if each == each), default=0.0)
    squares = [
        tag("rect", class_=_name_weight_class(each, most), x=_PATCH_SIDE * column, y=_PATCH_SIDE * line, width=_PATCH_SIDE,
            height=_PATCH_SIDE)
        for line, row in enumerate(weights)
        for column, each in enumerate(row)
    ]  # fmt: skip
    wide = _PATCH_SIDE * max(len(row) for row in weights)
    return tag(
        "svg", tag("title", "Weight of each patch of the image", id=f"patches-{number}"), *squares,
        class_="patches", role="img", viewBox=f"0 0 {wide} {_PATCH_SIDE * len(weights)}",
        aria_labelledby=f"patches-{number}",
    )  # fmt: skip


def _name_weight_class(weight: float, most: float) -> str:
    if weight != weight or not most:
        return "w"
    step = min(_WEIGHT_STEPS, round(_WEIGHT_STEPS * abs(weight) / most))
    return f"w {'p' if weight > 0 else 'm'}{step}" if step else "w"


_CaseRows = Sequence[Mapping[str, Any]]


def show_mistakes(report: ReportFields) -> PageSection | None:
    """Return a card for each post that was shown to be wrong or was looked into."""
    cards = _merge_findings(report)
    if not cards:
        return None
    says = "The most confident mistakes first. These posts may offend."
    if _find_threshold(report) is not None:
        says += (
            f" Beside a decision stand the probability of `{report['positive']}` and the threshold "
            "from which on it is decided."
        )
    shown = (_make_card(number, each, report) for number, each in enumerate(cards, start=1))
    return make_section("mistakes", "Mistakes", make_note(says), tag("div", *shown, class_="cards"))


def show_suspect_labels(report: ReportFields) -> PageSection | None:
    """Return posts whose label is likely to be wrong."""
    rows = get_finding(report, "suspects")
    if not rows:
        return None
    says = (
        "Posts whose label the system, which did not learn from them, finds hard to believe; look "
        "before you change one."
    )
    columns: TableColumns = [
        "post", TableColumn("label", "words"), TableColumn("likely", "words"), "label quality",
        TableColumn("text", "words"),
    ]  # fmt: skip
    body: list[RowCells] = [
        (str(each.get("id")), _name_labels(each.get("label")), _name_labels(each.get("likely")),
         typeset_number(each.get("quality")), _quote_text(each.get("text")))
        for each in rows
    ]  # fmt: skip
    shown = make_table("Suspected labels", columns, body, "posts")
    return make_section("suspects", "Suspected labels", make_note(says), shown)


def _merge_findings(report: ReportFields) -> list[dict[str, Any]]:
    """Return mistakes, then other posts with neighbours or attribution, each with all of these."""
    found: dict[str, dict[str, Any]] = {}
    for row in (
        *(get_finding(report, "mistakes") or []),
        *(get_finding(report, "neighbours") or []),
    ):
        found[str(row.get("id"))] = {**row, **found.get(str(row.get("id")), {})}
    for row in (get_finding(report, "attribution") or {}).get("rows") or []:
        found.setdefault(str(row.get("id")), {"id": row.get("id")})["read"] = row
    for row in (get_finding(report, "shapley") or {}).get("rows") or []:
        if str(row.get("id")) in found:
            found[str(row["id"])]["values"] = row.get("values")
    return list(found.values())


def _make_card(number: int, each: Mapping[str, Any], report: ReportFields) -> Html:
    identity = f"post-{number}"
    head = tag("h3", tag("span", f"{number}. ", class_="soft"), str(each.get("id")), id=identity)
    parts = [
        _show_picture(number, each), _show_decision(each, report), _show_text(each), _show_description(each),
        _show_intentions(each), _write_player_values(each), _show_attribution(number, each.get("read") or {}, report),
        _show_neighbours(each),
    ]  # fmt: skip
    return tag("article", head, *parts, aria_labelledby=identity)


def _show_decision(each: Mapping[str, Any], report: ReportFields) -> Html | None:
    if each.get("label") is None and each.get("decided") is None:
        return None
    stated = tag("small", f" {_write_probability(each, report)}") if "probability" in each else None
    return make_facts([
        ("labelled", _name_labels(each.get("label"))),
        ("decided", tag("span", tag("strong", _name_labels(each.get("decided"))), stated)),
    ], "decided")  # fmt: skip


def _write_probability(each: Mapping[str, Any], report: ReportFields) -> str:
    """Return the probability of the decided label; of two classes, that of the positive one."""
    probability, threshold = read_real(each.get("probability")), _find_threshold(report)
    if threshold is None:
        return f"at {typeset_percent(probability)}"
    if each.get("decided") == report.get("positive"):
        return f"{typeset_percent(probability)} \N{GREATER-THAN OR EQUAL TO} {typeset_percent(threshold)}"
    return f"{typeset_percent(1 - probability)} < {typeset_percent(threshold)}"


def _find_threshold(report: ReportFields) -> float | None:
    """Return the threshold of the system whose mistakes these are, where one class is positive."""
    if report.get("positive") is None or len(report.get("counts") or {}) > 2:
        return None
    found = (get_finding(report, "calibration") or {}).get("threshold")
    return 0.5 if found is None else float(found)


def _show_picture(number: int, each: Mapping[str, Any]) -> Html | None:
    """Return the image, blurred until its box is ticked, which needs a click or the space bar."""
    source = each.get("image")
    if not isinstance(source, str) or not source.startswith("data:image/"):
        return None
    name = f"reveal-{number}"
    image = tag("img", src=source, alt=f"Image of post {each.get('id')}")
    box = tag("input", type="checkbox", id=name)
    return tag("div", box, tag("label", "Show the image", for_=name), image, class_="picture")


def _show_text(each: Mapping[str, Any]) -> Html | None:
    return tag("blockquote", str(each["text"]), dir="auto") if each.get("text") else None


def _show_description(each: Mapping[str, Any]) -> Html | None:
    if not each.get("description"):
        return None
    return tag("p", tag("span", "Image: ", class_="soft"), str(each["description"]), class_="said")


def _show_intentions(each: Mapping[str, Any]) -> Html | None:
    found = each.get("intentions") or []
    if not found:
        return None
    lines = (tag("li", *_write_intention(one), dir="auto") for one in found)
    return make_details(f"{len(found)} intentions", tag("ul", *lines))


def _write_intention(one: Any) -> tuple[Child, ...]:
    if not isinstance(one, Mapping):
        return (str(one),)
    return tag("code", str(one.get("relation"))), " ", str(one.get("text"))


def _write_player_values(each: Mapping[str, Any]) -> Html | None:
    found = each.get("values") or {}
    if not found:
        return None
    says = ", ".join(
        f"{name} {typeset_number(value, 2, signed=True)}" for name, value in found.items()
    )
    return tag("p", tag("span", "Adds to the logit: ", class_="soft"), says, class_="said")


def _show_neighbours(each: Mapping[str, Any]) -> Html | None:
    found = each.get("neighbours") or []
    if not found:
        return None
    lines = (
        tag("li", tag("strong", _name_labels(one.get("label"))),
            tag("small", f" {typeset_number(one.get('similarity'), 2)} "), _quote_text(one.get("text")),
            dir="auto")
        for one in found
    )  # fmt: skip
    return make_details(f"{len(found)} nearest training posts", tag("ul", join(lines)))


def _quote_text(text: Any) -> str:
    return "no text" if not text else str(text)


def _name_labels(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "no label" if label is None else str(label)
