"""Each clause of a verdict follows from a number, and no clause says more than was asked."""

import numpy as np

from miko_clf.evaluate import comparison
from miko_clf.evaluate.comparison import Comparison, Line
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.seeds import Gap
from miko_clf.evaluate.verdict import paragraph


def differ(a: str, b: str, value: float, p: float, smallest: float = 0.02) -> comparison.Tested:
    gap = Gap(value, value - 0.01, value + 0.01, p, smallest)
    return comparison.Tested(a, b, "macro_f1", gap, p, p, [p])


def said(*differences: comparison.Tested, share: float | None = None, seeds: int = 5) -> str:
    names = dict.fromkeys(name for each in differences for name in (each.a, each.b))
    lines = [Line(*name.split("/"), seeds, None, {}) for name in names]
    system = lines[0].system
    kept = {} if share is None else {system: {"macro_f1": Interval(share, 0.3, 1.3)}}
    return paragraph(Comparison(seeds, 100, lines, differences, kept))


def test_what_intentions_say_is_only_known_from_controls_that_change_whose_they_are() -> None:
    gain, empty = differ("m/with", "m/without", 0.1, 0.001), differ("m/with", "m/empty", 0.1, 0.001)
    text = said(gain, empty)
    assert "by what they say of the post" not in text
    assert "only `shuffled` and `other-post` could tell" in text
    shuffled = differ("m/with", "m/shuffled", 0.1, 0.001)
    assert "by what they say of the post they belong to" in said(gain, empty, shuffled)


def test_a_share_of_the_gain_is_told_only_where_there_is_a_gain() -> None:
    for p, told in ((0.001, True), (0.2, False)):
        text = said(differ("m/with", "m/without", 0.1, p), share=0.8)
        assert ("keeps 80%" in text) == told


def test_systems_are_named_where_nothing_went_before() -> None:
    text = said(
        differ("one/with", "one/shuffled", 0.1, 0.001),
        differ("two/with", "two/shuffled", -0.1, 0.001),
    )
    assert "`one` is higher than `shuffled`" in text
    assert "`two` is lower than `shuffled`" in text
    assert [line.split("`")[1] for line in text.splitlines()[1:]] == ["one", "two"]


def test_what_could_have_been_seen_is_of_the_pair_that_the_verdict_is_about() -> None:
    text = said(
        differ("m/with", "m/student", 0.0, 1.0, smallest=0.011),
        differ("m/with", "m/without", 0.1, 0.001, smallest=0.033),
    )
    assert "0.033 between `m/with` and `m/without`" in text


def test_no_power_is_claimed_where_nothing_varies_or_nothing_could_be_seen() -> None:
    alike = said(differ("m/with", "m/without", 0.0, 1.0, smallest=np.nan))
    assert "does not vary enough to tell more" in alike
    assert "four times in five" not in alike
    few = said(differ("m/with", "m/without", 0.0, 1.0, smallest=1.3))
    assert "cannot show any difference" in few


def test_systems_against_one_have_a_line_each_with_what_could_have_been_seen_of_it() -> None:
    near = differ("two/with", "one/with", 0.01, 0.4, smallest=0.022)
    far = differ("three/with", "one/with", 0.02, 0.6, smallest=0.049)
    text = said(near, far)
    assert "found four times in five" not in text.splitlines()[0]
    assert text.splitlines()[0].endswith("5 seeds, beside `one/with`:")
    for line, system, smallest in zip(
        text.splitlines()[1:], ("two", "three"), (0.022, 0.049), strict=False
    ):
        assert line.startswith(f"`{system}/with` shows no evidence")
        assert f"{smallest} would have been found" in line
    assert text.endswith(
        "no evidence that any of the 2 others differs from `one/with` in macro-F1."
    )


def test_a_system_that_differs_is_named_in_the_conclusion_on_several() -> None:
    text = said(
        differ("two/with", "one/with", 0.1, 0.001), differ("three/with", "one/with", 0.0, 1.0)
    )
    assert text.splitlines()[-1] == (
        "So in macro-F1 `two/with` is higher than `one/with`; "
        "there is no evidence of any other difference."
    )
