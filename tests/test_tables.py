"""Tables that stay readable where they do not fit."""

import io

import pytest
from rich.console import Console

from miko_clf.tables import make_text_table, print_table

COLUMNS = ("relation", "asked", "a share with its interval", "distinct-1")
ROWS = [("xIntent", "1,000", "0.733 [0.683, 0.783]", "0.22"), ("all", "9,973", "0.5", "0.0483")]


def printed(width: int, **more: object) -> str:
    screen = io.StringIO()
    table = make_text_table("figures", COLUMNS, ROWS, **more)
    table.caption = "of one file"
    print_table(table, Console(file=screen, width=width))
    return screen.getvalue()


def test_a_table_that_fits_is_one() -> None:
    lines = printed(80).splitlines()
    assert lines[0].strip() == "figures"
    assert lines[1].split() == " ".join(COLUMNS).split()
    assert len(lines) == 1 + 2 + len(ROWS) + 2  # title, heads with a rule, rows, caption, a gap


@pytest.mark.parametrize("width", [34, 40, 50])
def test_one_that_does_not_fit_becomes_several_in_which_no_cell_is_broken(width: int) -> None:
    screen = printed(width)
    assert max(map(len, screen.splitlines())) <= width
    for cell in {*COLUMNS, *sum(ROWS, ())} - {COLUMNS[2]}:
        assert cell in screen
    assert screen.count("xIntent") > 1
    assert screen.count("figures") == screen.count("of one file") == 1


def test_long_texts_are_wrapped_between_words() -> None:
    text = "several words that say at some length what was found here, and then a little more"
    screen = io.StringIO()
    print_table(make_text_table("", ("what", "n"), [(text, "1")]), Console(file=screen, width=50))
    assert set(text.split()) <= set(screen.getvalue().split())


def test_brackets_are_no_markup_and_a_table_without_rows_is_not_printed() -> None:
    screen = io.StringIO()
    print_table(make_text_table("", ("class",), [("[red]",)]), Console(file=screen))
    assert "[red]" in screen.getvalue()
    screen = io.StringIO()
    print_table(make_text_table("none", ("class",), []), Console(file=screen))
    assert screen.getvalue() == ""
