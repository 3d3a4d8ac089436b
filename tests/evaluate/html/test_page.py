"""The page of a report: whole in itself, true to its figures, safe with any text in it."""

import base64
import hashlib
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miko_clf.evaluate.html.markup import tag
from miko_clf.evaluate.html.page import _STYLE, render_report, show_headline
from miko_clf.evaluate.html.svg import ChartFrame, Scale, draw_chart_labels, label_tick
from tests.support.full_report import (
    PageTree,
    make_difference,
    make_interval,
    make_report,
    make_report_row,
)

HOSTILE = "</script></style><img src=x onerror=alert(1)>\"'&<b>\x00\ud800`"


def hostile(value: Any, key: str = "") -> Any:
    """Return a report whose every text is an attack, apart from the names of metrics."""
    if isinstance(value, dict):
        return {name: hostile(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [hostile(each, key) for each in value]
    return HOSTILE if isinstance(value, str) and key not in ("metric", "kind") else value


def test_the_page_is_well_formed_and_names_what_it_points_to() -> None:
    tree = PageTree(render_report(make_report()))
    assert tree.faults == []
    names = [each["id"] for _, each in tree.found if each.get("id")]
    assert len(names) == len(set(names))
    for _, each in tree.found:
        pointed = [each.get("for"), *(each.get("aria-labelledby") or "").split()]
        href = each.get("href")
        pointed.append(href[1:] if href else None)
        assert {name for name in pointed if name} <= set(names)


def test_headings_go_down_one_level_at_a_time_and_heads_of_tables_say_what_they_head() -> None:
    tree = PageTree(render_report(make_report()))
    levels = [int(name[1]) for name, _ in tree.found if re.fullmatch("h[1-6]", name)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip([0, *levels], levels, strict=False))
    assert {each.get("scope") for each in tree.all("th")} == {"col", "row", "rowgroup"}
    assert len(tree.all("caption")) == len(tree.all("table")) > 15
    assert len(tree.all("main")) == len(tree.all("nav")) == len(tree.all("header")) == 1


def test_every_drawing_has_words_or_stands_beside_its_numbers() -> None:
    tree = PageTree(render_report(make_report()))
    drawings = tree.all("svg")
    spoken = [each for each in drawings if each.get("role") == "img"]
    assert all(each.get("aria-labelledby") for each in spoken)
    assert len(spoken) == len(tree.all("title")) - 1 == 13
    assert all(each.get("aria-hidden") == "true" for each in drawings if each not in spoken)
    assert all(each.get("alt") for each in tree.all("img"))


def test_nothing_is_asked_for_from_anywhere_and_the_policy_allows_no_more_than_the_page_has() -> (
    None
):
    html = render_report(make_report())
    tree = PageTree(html)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert not {"link", "iframe", "form", "object", "base"} & {name for name, _ in tree.found}
    assert not [each for _, each in tree.found if "style" in each]
    assert not [key for _, each in tree.found for key in each if key.startswith("on")]
    policy = next(str(each["content"]) for each in tree.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        told = hashlib.sha256(tree.inside[kind].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(told).decode()}'" in policy
    assert "unsafe" not in policy


def test_hostile_text_in_every_place_is_text() -> None:
    tree = PageTree(render_report(hostile(make_report())))
    plain = PageTree(render_report(make_report()))
    assert tree.faults == []
    assert len(tree.all("script")) == len(tree.all("style")) == 1
    assert not [each for each in tree.all("img") if each.get("src") == "x"]
    assert not tree.all("b")
    assert not [key for _, each in tree.found for key in each if key.startswith("on")]
    assert tree.inside == plain.inside
    assert "<img src=x onerror=alert(1)>" in tree.text


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(st.characters(), max_size=20))
def test_text_and_attributes_come_back_as_they_went_in(text: str, value: str) -> None:
    html = str(tag("p", text, title=value))
    tree = PageTree(html)
    assert [name for name, _ in tree.found] == ["p"]
    for given_text, shown in ((text, "".join(tree.texts)), (value, tree.found[0][1]["title"])):
        assert shown is not None
        assert len(shown) == len(given_text)
        printable = [
            (a, b)
            for a, b in zip(given_text, shown, strict=True)
            if b != "\N{REPLACEMENT CHARACTER}"
        ]
        assert all(a == b for a, b in printable)
    assert html.encode()


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=30),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each),
        max_leaves=8,
    )
)
def test_a_finding_nobody_draws_is_shown_as_it_stands(value: Any) -> None:
    tree = PageTree(render_report(make_report(findings={"new_finding": value})))
    assert tree.faults == []
    assert len(tree.all("script")) == 1
    assert ("new finding" in tree.text) == bool(value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("comparison", ["0.750 ± 0.012", "+0.021", "< 0.001", "0.042", "0.210, 1.000", "0.017"]),
        ("curves", ["area 0.864", "51 85.0 %", "Loss, task stage", "training"]),
        (
            "ranked",
            ["Ranking over seeds", "drawn around each", "true-positive rate, other-post", "0.814"],
        ),
        ("training", ["trained-on-noise", "loss, reasoning stage", "AUROC, task stage"]),
        (
            "calibration",
            [
                "0.021 after calibration (under 0.034",
                "p < 0.001",
                "temperature",
                "0.412",
                "ECE 0.062",
                "0.910",
                "stated probability",
            ],
        ),
        ("overlap", ["27 of the 100 posts", "covid_1", "0.810"]),
        ("review_desk", ["5 % of all", "0.830", "2.400"]),
        ("shapley", ["logit of harmful minus", "1.100", "+0.300"]),
        ("relations", ["xIntent", "0.300", "\N{MINUS SIGN}0.020"]),
        ("slices", ["in the text", "hashtag", "40 %"]),
        ("slices_left_out", ["too few posts: 3"]),
        ("over_time", ["AUROC falls from 2021-06", "2021-07", "\N{MINUS SIGN}0.310", "date: 4"]),
        ("by_source", ["forum", "gazette (4)"]),
        ("groups", ["women", "+0.110"]),
        ("groups_left_out", ["sailors (3)"]),
        ("pairs", ["same text, another image", "0.400"]),
        ("suspects", ["doubtful words", "0.031"]),
        ("robustness", ["typos", "5%", "88", "\N{MINUS SIGN}0.060"]),
        ("matrix", ["on harm-p", "0.550", "355 posts"]),
        ("mistakes", ["first words", "a man at a desk", "93.0 %", "to mock", "Show the image"]),
        ("neighbours", ["a training text", "0.81"]),
        ("attribution", ["mocking", "+0.4000"]),
        ("lockbox", ["cafe01", "opened 2 times"]),
        ("audit", ["4 images of test are in train too"]),
        ("not_installed", ["cleanlab"]),
        ("system", ["Of pupil-0"]),
    ],
)
def test_each_finding_is_on_the_page_where_the_report_has_it_and_only_there(
    name: str, shown: list[str]
) -> None:
    whole = make_report()
    text = re.sub(r"\s+(?=[,.])", "", PageTree(render_report(whole)).text)
    assert [each for each in shown if each not in text] == []
    for nothing in (None, [], {}):
        whole["findings"][name] = nothing
        tree = PageTree(render_report(whole))
        assert tree.faults == []
        rest = re.sub(r"\s+(?=[,.])", "", tree.text)
        assert any(each not in rest for each in shown)


def test_relations_that_are_read_without_attention_have_no_column_of_it() -> None:
    whole = make_report()
    for each in whole["findings"]["relations"]:
        each["attention"] = undefined(each["attention"])
    tree = PageTree(render_report(whole))
    assert tree.faults == []
    assert "Relations left out" in tree.text
    assert "Attention is the share" not in tree.text
    assert "\N{MINUS SIGN}0.020" in tree.text


def test_a_report_of_rows_alone_has_a_page() -> None:
    tree = PageTree(
        render_report(
            make_report(findings={}, differences=[], rows=[make_report_row("s", "with", {})])
        )
    )
    assert tree.faults == []
    assert "1 system on harm-c, test split" in tree.text
    bare = PageTree(render_report({"rows": [], "data": "d", "split": "test"}))
    assert bare.faults == []


def undefined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: undefined(each) for key, each in value.items()}
    if isinstance(value, list):
        return [undefined(each) for each in value]
    return None if isinstance(value, float) else value


def test_what_is_undefined_is_called_so_and_never_nan_or_none() -> None:
    text = PageTree(render_report(undefined(make_report()))).text
    assert "undefined" in text
    assert not re.search(r"\b(nan|None|null|inf)\b", text)


def test_the_verdict_follows_from_the_interval() -> None:
    for value, said in ((0.02, "student is higher than"), (-0.02, "student is lower than"),
                        (0.001, "No evidence that student")):  # fmt: skip
        each = make_difference("s/student", "s/without", "macro_f1", value, 0.01)
        text = PageTree(str(show_headline(make_report(findings={}, differences=[each])))).text
        assert said in text


def test_a_model_asked_with_its_intentions_hidden_is_told_from_one_without() -> None:
    rows = [make_report_row("s", arm, {"auroc": make_interval(0.7)}) for arm in ("with", "masked")]
    differences = [
        make_difference("s/student", "s/masked", "macro_f1", 0.01, 0.02),
        make_difference("s/with", "s/masked", "macro_f1", 0.02, 0.01),
    ]
    whole = make_report(findings={}, rows=rows, differences=differences)
    assert "with is higher than masked" in PageTree(str(show_headline(whole))).text
    assert "masked is the same model" in PageTree(render_report(whole)).text
    assert "masked is the same model" not in PageTree(render_report(make_report())).text


def test_over_seeds_the_verdict_is_the_conclusion_or_follows_holm() -> None:
    whole = make_report()
    assert (
        "There is no evidence that the intentions help" in PageTree(str(show_headline(whole))).text
    )
    comparison = whole["findings"]["comparison"]
    comparison["words"] = "No conclusion here."
    assert "with is higher than without" in PageTree(str(show_headline(whole))).text
    comparison["differences"][0]["p_holm"] = 0.2
    assert "No evidence that with and without" in PageTree(str(show_headline(whole))).text


def test_rows_that_are_those_of_the_comparison_are_not_told_twice() -> None:
    whole = make_report(
        differences=[make_difference("pupil/with", "pupil/without", "macro_f1", 0.02, 0.01)],
        rows=[make_report_row("pupil", "with", {"macro_f1": make_interval(0.7)})],
    )
    names = {each.get("id") for each in PageTree(render_report(whole)).all("h2")}
    assert "seeds" in names
    assert not names & {"systems", "differences"}


def test_every_question_has_its_table() -> None:
    other = make_report(question="tone", kind="many", findings={})
    text = PageTree(render_report(make_report(others=[other]))).text
    assert "Question tone" in text
    assert "of the probability of a label" in text


def test_only_an_image_that_the_report_holds_is_shown_and_it_waits_for_a_click() -> None:
    whole = make_report()
    tree = PageTree(render_report(whole))
    assert [each["type"] for each in tree.all("input")] == ["checkbox"]
    assert re.search(r"\.picture img\{[^}]*filter:blur", tree.inside["style"])
    whole["findings"]["mistakes"][0]["image"] = "images/1.jpg"
    assert not PageTree(render_report(whole)).all("img")


def test_a_large_report_stays_under_three_megabytes() -> None:
    whole = make_report()
    found = whole["findings"]
    picture = "data:image/jpeg;base64," + "A" * 16_000
    found["mistakes"] = [found["mistakes"][0] | {"id": str(n), "image": picture} for n in range(60)]
    found["shapley"]["rows"] = [found["shapley"]["rows"][0] | {"id": str(n)} for n in range(20_000)]
    line = found["curves"]["learning"][0]
    found["curves"]["learning"] += [line | {"step": n, "loss": 1 / (n + 1)} for n in range(400)]
    assert len(json.dumps(whole)) > 2_500_000
    assert len(render_report(whole).encode()) < 1_500_000


def brightness(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_colours_of_text_stand_out_from_their_ground(dark: bool) -> None:
    tokens: dict[str, str] = {}
    screen = _STYLE.split("@media print")[0]
    for scheme, block in re.findall(r"(dark\)\{)?:root\{([^}]*)\}", screen):
        if dark or not scheme:
            tokens |= dict(re.findall(r"--(\w+):(#\w+)", block))
    full = {
        k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:4]) for k, v in tokens.items()
    }
    for ground in ("ground", "card"):
        for ink in ("ink", "soft", *"abcdefgh"):
            light, deep = sorted(map(brightness, (full[ink], full[ground])), reverse=True)
            assert (light + 0.05) / (deep + 0.05) >= 4.5, (ink, ground)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(3, 8))
def test_ticks_are_on_the_scale_and_told_apart(low: float, length: float, most: int) -> None:
    scale = Scale(low, low + length)
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most + 4
    assert all(low - 1e-6 * length <= each <= low + length * (1 + 1e-6) for each in ticks)
    assert len({label_tick(each, ticks) for each in ticks}) == len(ticks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_labels_beside_curves_do_not_cover_each_other(heights: list[float]) -> None:
    drawn = str(
        draw_chart_labels(
            ChartFrame(Scale(0, 1), Scale(0, 1)), [("a", each, "a") for each in heights]
        )
    )
    places = [float(each) for each in re.findall(r' y="([\d.]+)"', drawn)]
    assert len(places) == len(heights)
    assert all(b - a >= 13.9 for a, b in pairwise(places))


def test_more_than_eight_curves_take_further_drawings_and_a_missing_one_is_left_out() -> None:
    whole = make_report()
    (curve, _) = whole["findings"]["ranked"]
    whole["findings"]["ranked"] = [curve | {"arm": f"arm-{n}"} for n in range(9)]
    whole["findings"]["ranked"][3] |= {"roc": [], "precision_recall": []}
    whole["findings"]["ranked"][4] |= {"roc": []}
    tree = PageTree(render_report(whole))
    assert tree.faults == []
    assert "drawn around the first" in tree.text
    assert "arm-8" in tree.text
    assert "arm-3" not in tree.text
    whole["findings"]["ranked"].append(curve | {"arm": "arm-9"})
    ids = [found["id"] for tag, found in PageTree(render_report(whole)).found if "id" in found]
    assert len(ids) == len(set(ids))
    assert sum(str(each).startswith("ranked-") for each in ids) == 8


def test_what_explains_a_mistake_takes_nothing_from_its_card() -> None:
    whole = make_report()
    findings = whole["findings"]
    findings["attribution"]["rows"][0] |= {"image": 0.005, "text": None, "full": 1.2}
    findings["neighbours"][0] |= {"image": None, "text": None}
    tree = PageTree(render_report(whole))
    assert [each["src"] for each in tree.all("img")] == [findings["mistakes"][0]["image"]]
    for said in ("first words", "mocking", "a training text"):
        assert said in tree.text


@pytest.mark.parametrize(
    ("decided", "probability", "stated"),
    [("harmful", 0.93, "93.0 % ≥ 41.2 %"), ("harmless", 0.691, "30.9 % < 41.2 %")],
)
def test_a_decision_stands_beside_the_probability_that_the_threshold_is_for(
    decided: str, probability: float, stated: str
) -> None:
    whole = make_report()
    whole["findings"]["mistakes"][0] |= {"decided": decided, "probability": probability}
    assert stated in PageTree(render_report(whole)).text
    whole["positive"] = None
    assert f"at {100 * probability:.1f} %" in PageTree(render_report(whole)).text
