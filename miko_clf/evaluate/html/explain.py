"""What decides: each input, each relation, and single posts with their words and patches."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag

_MAX_DOTS = 300


def show_shapley(shapley: ReportFields, report: ReportFields) -> PageSection:
    """Return how much each input moves the decision."""
    says = (
        f"Exact Shapley values of {shapley.get('of', 'the logit')}: what an input adds, averaged "
        "over the orders in which inputs can be given; those of a post add up to what all inputs "
        "move together. The bar is the mean size over posts; each dot to its right is a post."
        + (f" {shapley['note']}" if shapley.get("note") else "")
    )
    table = _make_player_table(shapley)
    return PageSection("shapley", "What each input adds", says, table)


def _make_player_table(shapley: ReportFields) -> Html:
    players = list(shapley.get("players") or shapley.get("mean_absolute") or [])
    sizes = [markup.read_figure_of(shapley, "mean_absolute", name) for name in players]
    posts = []
    for name in players:
        figures = markup.read_figures(shapley.get("rows") or [], "values", [name])
        posts.append(sorted(figure.value for figure in figures if figure.defined))
    long = svg.Scale(0.0, svg.fit_scale(sizes, 0.0).high)
    wide = svg.fit_scale([], 0.0, *(value for values in posts for value in values))
    columns: list[Any] = ["input", svg.make_track_column(long), "mean size", "mean"]
    columns += [svg.make_track_column(wide)] if any(posts) else []
    body = []
    for name, size, values in zip(players, sizes, posts, strict=True):
        mean = svg.make_figure_cell(markup.read_figure_of(shapley, "mean", name), signed=True)
        cells: list[Any] = [name, svg.draw_bar_track(size, long), svg.make_figure_cell(size), mean]
        cells += [svg.draw_dot_track(_thin_evenly(values), wide)] if any(posts) else []
        body.append(cells)
    return markup.make_table("Shapley values of each input", columns, body, "bars")


def _thin_evenly(values: Sequence[float]) -> Sequence[float]:
    """Return sorted values, thinned evenly where they are many."""
    if len(values) <= _MAX_DOTS:
        return values
    step = (len(values) - 1) / (_MAX_DOTS - 1)
    return [values[round(index * step)] for index in range(_MAX_DOTS)]


def show_relations(rows: ReportRows, report: ReportFields) -> PageSection:
    """Return how much of its attention the reader gives each relation, and what it is worth."""
    says = (
        "How a metric moves where a relation is left out, on the same resamples: below 0 it was "
        "of use."
    )
    shares = [(row, markup.read_figure(row.get("attention"))) for row in rows]
    attends = any(share.defined for _, share in shares)
    if attends:
        says += (
            " Attention is the share of the reader's that goes to a relation, and to `none` "
            "what falls on no relation."
        )

    def rank(pair: tuple[ReportFields, markup.Figure]) -> tuple[bool, float]:
        return pair[0].get("relation") == "none", -pair[1].value if pair[1].defined else 1.0

    shares.sort(key=rank)
    table = tag("div", _make_relation_table(shares, attends, report))
    return PageSection("relations", "Relations", says, table)


def _make_relation_table(
    shares: Sequence[tuple[ReportFields, markup.Figure]], attends: bool, report: ReportFields
) -> Html:
    """Return relations with the attention they get, where there is any, and what they are worth."""
    rows = [row for row, _ in shares]
    metrics = markup.list_metrics(rows, "left_out")
    long = svg.Scale(0.0, svg.fit_scale([share for _, share in shares], 0.0).high)
    wide = svg.fit_scale(markup.read_figures(rows, "left_out", metrics), 0)
    columns: list[Any] = ["relation", "posts"]
    columns += [svg.make_track_column(long), "attention"] if attends else []
    for name in metrics:
        columns += [svg.make_track_column(wide), f"{markup.title_metric(report, name)} without it"]
    body = []
    for row, share in shares:
        cells: list[Any] = [str(row.get("relation")), markup.typeset_count(row.get("posts"))]
        cells += [svg.draw_bar_track(share, long), svg.make_figure_cell(share)] if attends else []
        for name in metrics:
            moved = markup.read_figure_of(row, "left_out", name)
            if moved.defined:
                track = svg.draw_interval_track(moved, wide, mark=0.0)
                cells += [track, svg.make_figure_cell(moved, signed=True)]
            else:  # what is read in nobody's stead is not left out
                cells += ["", markup.NO_FIGURE]
        body.append(cells)
    caption = "Relations by attention" if attends else "Relations left out"
    return markup.make_table(caption, columns, body, "bars")


def show_suspect_labels(rows: ReportRows, report: ReportFields) -> PageSection:
    """Return posts whose label is likely to be wrong."""
    says = (
        "Posts whose label the system, which did not learn from them, finds hard to believe; look "
        "before you change one."
    )
    words = (markup.TableColumn(name, "words") for name in ("label", "likely", "text"))
    label, likely, text = words
    body = [
        (str(row.get("id")), _name_labels(row.get("label")), _name_labels(row.get("likely")),
         markup.typeset_number(row.get("quality")), str(row.get("text") or "no text"))
        for row in rows
    ]  # fmt: skip
    columns: list[Any] = ["post", label, likely, "label quality", text]
    table = markup.make_table("Suspected labels", columns, body, "posts")
    return PageSection("suspects", "Suspected labels", says, table)


def show_mistakes(report: ReportFields) -> PageSection | None:
    """Return a card for each post that was shown to be wrong or was looked into."""
    posts = _merge_findings(report)
    if not posts:
        return None
    says = "The most confident mistakes first. These posts may offend."
    if _find_threshold(report) is not None:
        says += (
            f" Beside a decision stand the probability of `{report['positive']}` and the threshold "
            "from which on it is decided."
        )
    cards = (_make_card(number, post, report) for number, post in enumerate(posts, start=1))
    return PageSection("mistakes", "Mistakes", says, tag("div", *cards, class_="cards"))


def _merge_findings(report: ReportFields) -> list[dict[str, Any]]:
    """Return mistakes, then other posts with neighbours or attribution, each with all of these."""
    posts: dict[str, dict[str, Any]] = {}
    for name in ("mistakes", "neighbours"):
        for row in markup.get_finding(report, name) or []:
            posts[str(row.get("id"))] = {**row, **posts.get(str(row.get("id")), {})}
    for row in (markup.get_finding(report, "attribution") or {}).get("rows") or []:
        posts.setdefault(str(row.get("id")), {"id": row.get("id")})["read"] = row
    for row in (markup.get_finding(report, "shapley") or {}).get("rows") or []:
        if str(row.get("id")) in posts:
            posts[str(row["id"])]["values"] = row.get("values")
    return list(posts.values())


def _make_card(number: int, post: ReportFields, report: ReportFields) -> Html:
    identity = f"post-{number}"
    return tag(
        "article",
        tag("h3", tag("span", f"{number}. ", class_="soft"), str(post.get("id")), id=identity),
        _show_picture(number, post),
        _show_decision(post, report),
        tag("blockquote", str(post["text"]), dir="auto") if post.get("text") else None,
        _write_remark("Image: ", str(post.get("description") or "")),
        _show_intentions(post),
        _write_player_values(post),
        _show_attribution(number, post.get("read") or {}, report),
        _show_neighbours(post),
        aria_labelledby=identity,
    )


def _write_remark(title: str, text: str) -> Html | None:
    return tag("p", tag("span", title, class_="soft"), text, class_="said") if text else None


def _show_picture(number: int, post: ReportFields) -> Html | None:
    """Return the image, blurred until its box is ticked, which needs a click or the space bar."""
    source = post.get("image")
    if not isinstance(source, str) or not source.startswith("data:image/"):
        return None
    name = f"reveal-{number}"
    image = tag("img", src=source, alt=f"Image of post {post.get('id')}")
    box = tag("input", type="checkbox", id=name)
    return tag("div", box, tag("label", "Show the image", for_=name), image, class_="picture")


def _show_decision(post: ReportFields, report: ReportFields) -> Html | None:
    if post.get("label") is None and post.get("decided") is None:
        return None
    stated = tag("small", f" {_write_probability(post, report)}") if "probability" in post else None
    decided = tag("span", tag("strong", _name_labels(post.get("decided"))), stated)
    facts: list[Any] = [("labelled", _name_labels(post.get("label"))), ("decided", decided)]
    return markup.make_facts(facts, "decided")


def _write_probability(post: ReportFields, report: ReportFields) -> str:
    """Return the probability of the decided label; of two classes, that of the positive one."""
    probability, threshold = markup.read_real(post.get("probability")), _find_threshold(report)
    if threshold is None:
        return f"at {markup.typeset_percent(probability)}"
    limit = markup.typeset_percent(threshold)
    if post.get("decided") == report.get("positive"):
        return f"{markup.typeset_percent(probability)} \N{GREATER-THAN OR EQUAL TO} {limit}"
    return f"{markup.typeset_percent(1 - probability)} < {limit}"


def _find_threshold(report: ReportFields) -> float | None:
    """Return the threshold of the system whose mistakes these are, where one class is positive."""
    if report.get("positive") is None or len(report.get("counts") or {}) > 2:
        return None
    threshold = (markup.get_finding(report, "calibration") or {}).get("threshold")
    return 0.5 if threshold is None else float(threshold)


def _show_intentions(post: ReportFields) -> Html | None:
    intentions = post.get("intentions") or []
    if not intentions:
        return None
    lines = []
    for each in intentions:
        parts: list[Any] = [str(each)]
        if isinstance(each, Mapping):
            parts = [tag("code", str(each.get("relation"))), " ", str(each.get("text"))]
        lines.append(tag("li", *parts, dir="auto"))
    return markup.make_details(f"{len(intentions)} intentions", tag("ul", *lines))


def _write_player_values(post: ReportFields) -> Html | None:
    values = post.get("values") or {}
    texts = [f"{key} {markup.typeset_number(values[key], 2, signed=True)}" for key in values]
    return _write_remark("Adds to the logit: ", ", ".join(texts))


def _show_neighbours(post: ReportFields) -> Html | None:
    neighbours = post.get("neighbours") or []
    if not neighbours:
        return None
    lines = []
    for each in neighbours:
        label = tag("strong", _name_labels(each.get("label")))
        likeness = tag("small", f" {markup.typeset_number(each.get('similarity'), 2)} ")
        lines.append(tag("li", label, likeness, str(each.get("text") or "no text"), dir="auto"))
    return markup.make_details(f"{len(neighbours)} nearest training posts", tag("ul", *lines))


def _name_labels(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "no label" if label is None else str(label)


_PATCH_SIDE = 16
_WEIGHT_STEPS = 4


def _show_attribution(number: int, reading: ReportFields, report: ReportFields) -> Html | None:
    """Return a post's words and patches with their weights, or None where it has none."""
    tokens, patches = reading.get("tokens") or [], reading.get("patches") or []
    if not tokens and not patches:
        return None
    attribution = markup.get_finding(report, "attribution") or {}
    towards = attribution.get("of") or report.get("positive") or "the decided label"
    signs = (tag("span", "for", class_="w p3"), " and ", tag("span", "against", class_="w m3"))
    drawings: list[Any] = [tag("p", *signs, f" {towards}", class_="said")]
    tables: list[Any] = []
    if tokens:
        drawings.append(_shade_words(tokens))
        body = [(str(word), markup.typeset_number(w, 4, signed=True)) for word, w in tokens]
        tables.append(markup.make_table("Weight of each word", ["word", "weight"], body))
    if patches:
        drawings.append(_draw_patches(number, patches))
        tables.append(_make_patch_table(patches))
    numbers = markup.make_details("As numbers", *tables)
    return markup.make_details("What it reads in this post", *drawings, numbers)


def _make_patch_table(grid: Sequence[Sequence[Any]]) -> Html:
    """Return the weights of patches, top row first; rows that are short end in dashes."""
    wide = max(len(row) for row in grid)
    body = []
    for line, row in enumerate(grid, start=1):
        weights = (markup.typeset_number(weight, signed=True) for weight in row)
        body.append((str(line), *weights, *[markup.NO_FIGURE] * (wide - len(row))))
    return markup.make_table("Weight of each patch", ["row", *map(str, range(1, wide + 1))], body)


def _shade_words(tokens: Sequence[Sequence[Any]]) -> Html:
    classes = _name_weight_classes([markup.read_real(weight) for _, weight in tokens])
    spans: list[Any] = []
    for (word, _), kind in zip(tokens, classes, strict=True):
        spans += [tag("span", str(word), class_=kind), " "]
    return tag("p", *spans, class_="tokens", dir="auto")


def _draw_patches(number: int, grid: Sequence[Sequence[Any]]) -> Html:
    """Return the patches of an image where they stand, shaded by their weights."""
    kinds = iter(_name_weight_classes([markup.read_real(weight) for row in grid for weight in row]))
    side = _PATCH_SIDE
    squares = (
        tag("rect", class_=next(kinds), x=side * column, y=side * line, width=side, height=side)
        for line, row in enumerate(grid)
        for column in range(len(row))
    )
    return tag(
        "svg",
        tag("title", "Weight of each patch of the image", id=f"patches-{number}"),
        *squares,
        class_="patches",
        role="img",
        viewBox=f"0 0 {side * max(map(len, grid))} {side * len(grid)}",
        aria_labelledby=f"patches-{number}",
    )


def _name_weight_classes(weights: Sequence[float]) -> list[str]:
    """Return for each weight the class of its shade, the darkest for the greatest."""
    most = max((abs(weight) for weight in weights if weight == weight), default=0.0)
    steps = [round(_WEIGHT_STEPS * w / most) if w == w and most else 0 for w in weights]
    return [f"w {'p' if step > 0 else 'm'}{abs(step)}" if step else "w" for step in steps]
