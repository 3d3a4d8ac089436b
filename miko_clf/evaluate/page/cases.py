"""Single posts: the most confident mistakes with what explains them, and suspected labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.page.attribution import read
from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.numbers import percent, plain, real
from miko_clf.evaluate.page.section import Report, Section, finding, note, section
from miko_clf.evaluate.page.tables import Cells, Column, Columns, facts, folded, table

Rows = Sequence[Mapping[str, Any]]


def gallery(report: Report) -> Section | None:
    """Return a card for each post that was shown to be wrong or was looked into."""
    cards = _merged(report)
    if not cards:
        return None
    says = "The most confident mistakes first. These posts may offend."
    if _threshold(report) is not None:
        says += (
            f" Beside a decision stand the probability of `{report['positive']}` and the threshold "
            "from which on it is decided."
        )
    shown = (_card(number, each, report) for number, each in enumerate(cards, start=1))
    return section("mistakes", "Mistakes", note(says), tag("div", *shown, class_="cards"))


def suspects(report: Report) -> Section | None:
    """Return posts whose label is likely to be wrong."""
    rows = finding(report, "suspects")
    if not rows:
        return None
    says = (
        "Posts whose label the system, which did not learn from them, finds hard to believe; look "
        "before you change one."
    )
    columns: Columns = [
        "post", Column("label", "words"), Column("likely", "words"), "label quality",
        Column("text", "words"),
    ]  # fmt: skip
    body: list[Cells] = [
        (str(each.get("id")), _named(each.get("label")), _named(each.get("likely")),
         plain(each.get("quality")), _quote(each.get("text")))
        for each in rows
    ]  # fmt: skip
    shown = table("Suspected labels", columns, body, "posts")
    return section("suspects", "Suspected labels", note(says), shown)


def _merged(report: Report) -> list[dict[str, Any]]:
    """Return mistakes, then other posts with neighbours or attribution, each with all of these."""
    found: dict[str, dict[str, Any]] = {}
    for row in (*(finding(report, "mistakes") or []), *(finding(report, "neighbours") or [])):
        found[str(row.get("id"))] = {**row, **found.get(str(row.get("id")), {})}
    for row in (finding(report, "attribution") or {}).get("rows") or []:
        found.setdefault(str(row.get("id")), {"id": row.get("id")})["read"] = row
    for row in (finding(report, "shapley") or {}).get("rows") or []:
        if str(row.get("id")) in found:
            found[str(row["id"])]["values"] = row.get("values")
    return list(found.values())


def _card(number: int, each: Mapping[str, Any], report: Report) -> Html:
    identity = f"post-{number}"
    head = tag("h3", tag("span", f"{number}. ", class_="soft"), str(each.get("id")), id=identity)
    parts = [
        _picture(number, each), _decided(each, report), _text(each), _description(each),
        _intentions(each), _values(each), read(number, each.get("read") or {}, report),
        _neighbours(each),
    ]  # fmt: skip
    return tag("article", head, *parts, aria_labelledby=identity)


def _decided(each: Mapping[str, Any], report: Report) -> Html | None:
    if each.get("label") is None and each.get("decided") is None:
        return None
    stated = tag("small", f" {_stated(each, report)}") if "probability" in each else None
    return facts([
        ("labelled", _named(each.get("label"))),
        ("decided", tag("span", tag("strong", _named(each.get("decided"))), stated)),
    ], "decided")  # fmt: skip


def _stated(each: Mapping[str, Any], report: Report) -> str:
    """Return the probability of the decided label; of two classes, that of the positive one."""
    probability, threshold = real(each.get("probability")), _threshold(report)
    if threshold is None:
        return f"at {percent(probability)}"
    if each.get("decided") == report.get("positive"):
        return f"{percent(probability)} \N{GREATER-THAN OR EQUAL TO} {percent(threshold)}"
    return f"{percent(1 - probability)} < {percent(threshold)}"


def _threshold(report: Report) -> float | None:
    """Return the threshold of the system whose mistakes these are, where one class is positive."""
    if report.get("positive") is None or len(report.get("counts") or {}) > 2:
        return None
    found = (finding(report, "calibration") or {}).get("threshold")
    return 0.5 if found is None else float(found)


def _picture(number: int, each: Mapping[str, Any]) -> Html | None:
    """Return the image, blurred until its box is ticked, which needs a click or the space bar."""
    source = each.get("image")
    if not isinstance(source, str) or not source.startswith("data:image/"):
        return None
    name = f"reveal-{number}"
    image = tag("img", src=source, alt=f"Image of post {each.get('id')}")
    box = tag("input", type="checkbox", id=name)
    return tag("div", box, tag("label", "Show the image", for_=name), image, class_="picture")


def _text(each: Mapping[str, Any]) -> Html | None:
    return tag("blockquote", str(each["text"]), dir="auto") if each.get("text") else None


def _description(each: Mapping[str, Any]) -> Html | None:
    if not each.get("description"):
        return None
    return tag("p", tag("span", "Image: ", class_="soft"), str(each["description"]), class_="said")


def _intentions(each: Mapping[str, Any]) -> Html | None:
    found = each.get("intentions") or []
    if not found:
        return None
    lines = (tag("li", *_intention(one), dir="auto") for one in found)
    return folded(f"{len(found)} intentions", tag("ul", *lines))


def _intention(one: Any) -> tuple[Child, ...]:
    if not isinstance(one, Mapping):
        return (str(one),)
    return tag("code", str(one.get("relation"))), " ", str(one.get("text"))


def _values(each: Mapping[str, Any]) -> Html | None:
    found = each.get("values") or {}
    if not found:
        return None
    says = ", ".join(f"{name} {plain(value, 2, signed=True)}" for name, value in found.items())
    return tag("p", tag("span", "Adds to the logit: ", class_="soft"), says, class_="said")


def _neighbours(each: Mapping[str, Any]) -> Html | None:
    found = each.get("neighbours") or []
    if not found:
        return None
    lines = (
        tag("li", tag("strong", _named(one.get("label"))),
            tag("small", f" {plain(one.get('similarity'), 2)} "), _quote(one.get("text")),
            dir="auto")
        for one in found
    )  # fmt: skip
    return folded(f"{len(found)} nearest training posts", tag("ul", join(lines)))


def _quote(text: Any) -> str:
    return "no text" if not text else str(text)


def _named(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "no label" if label is None else str(label)
