"""What an audit says of posts, of splits and of faults, and how it says it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from miko_clf.data.audit.audit import audit_posts
from miko_clf.data.audit.findings import Audit
from miko_clf.data.audit.overlaps import ComparedPosts, compute_post_keys
from miko_clf.data.audit.report import print_audit, render_audit_page
from miko_clf.data.post import Post
from tests.support.audited_posts import (
    LABELS,
    count_findings,
    make_plain_rows,
    make_words,
    run_audit,
    write_folder,
)
from tests.support.command_line import assert_one_line_error, run_command, run_python


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 20)
    path = write_folder(tmp_path / "bad", {"train": rows})
    (path / "images" / "cut.png").write_bytes((path / "images" / "0.png").read_bytes()[:200])
    rows += [
        {"id": "gone", "text": "a", "image": "images/none.png", "label": "harmful"},
        {"id": "cut", "text": "a", "image": "images/cut.png", "label": "harmful"},
        {"id": "p1", "text": "again", "label": "harmful"},
        {"id": "mark", "text": "?!", "image": 40, "label": "harmful"},
    ]
    found = run_audit(write_folder(path, {"train": rows}))
    assert [("none.png" in each.why, "cut.png" in each.why, "p1" in each.why) for each in
            sorted(found.refused, key=lambda each: each.where)] == [
        (True, False, False), (False, True, False), (False, False, True)]  # fmt: skip
    split = found.splits[0]
    assert (split.posts, split.refused, split.without_text) == (21, 3, 1)
    assert any("3 posts that cannot be read" in line for line in found.warnings)


def test_a_prior_that_moves_between_splits_is_told(tmp_path: Path) -> None:
    train, test = make_plain_rows(0, 300), make_plain_rows(400, 200)
    for number, row in enumerate([*train, *test]):
        del row["image"]
        row["label"] = LABELS[number % 10 < (3 if number < 300 else 5)]
    found = run_audit(write_folder(tmp_path, {"train": train, "test": test}))
    assert any("harmful is 30.0% of train and 50.0% of test" in each for each in found.warnings)


def test_unsplit_posts_are_audited_and_have_nothing_to_clean(tmp_path: Path) -> None:
    path = write_folder(
        tmp_path / "one",
        {"posts": [*make_plain_rows(0, 30), {**make_plain_rows(3, 1)[0], "id": "twice"}]},
    )
    assert count_findings(run_audit(path), "post") == (1, 0, 0)
    ended = run_command(
        "audit", path, "--out", tmp_path / "out", "--write-clean", tmp_path / "clean"
    )
    assert_one_line_error(ended, "no splits", "--split-seed")


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (lambda row: "abc"[row % 3], "c"),
        (lambda row: ["x", "y"][: row % 3], "y"),
        (lambda row: {"tone": "sf"[row % 3 == 2], "harm": "ab"[row % 2]}, "tone: f"),
        (lambda row: {"tone": "sf"[row % 3 == 2]} if row % 4 else {"harm": "a"}, "tone: f"),
    ],
)
def test_classes_lists_and_tasks_are_judged_one_class_against_the_rest(
    label: Any, told: str, tmp_path: Path
) -> None:
    rows = make_plain_rows(0, 90)
    for number, row in enumerate(rows):
        del row["image"]
        row["label"] = label(number)
        row["text"] += " @you" if number % 3 == 2 else ""
    found = run_audit(write_folder(tmp_path, {"train": rows[:80], "test": rows[80:]}))
    cue = next(each for each in found.cues if each.name == "@user")
    assert (cue.verdict, cue.auroc) == ("shortcut", 1.0)
    assert cue.label == told


def test_embedded_images_are_written_into_the_clean_copy(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write_folder(
        tmp_path / "files", {"train": make_plain_rows(0, 25), "test": make_plain_rows(20, 25)}
    )
    (tmp_path / "embedded").mkdir()
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (path / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            row["image"] = (path / row["image"]).read_bytes()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "embedded" / f"{split}.parquet")
    ended = run_command("audit", tmp_path / "embedded", "--out", tmp_path / "o",
                "--write-clean", tmp_path / "clean")  # fmt: skip
    assert "5 posts left out" in ended.out
    assert count_findings(run_audit(tmp_path / "clean"), "near post") == (0, 0, 0)
    assert len(list((tmp_path / "clean" / "images").glob("*.png"))) == 45


def test_the_report_stands_beside_the_caller_unless_a_place_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(
        tmp_path / "data" / "fhm",
        {"train": make_plain_rows(0, 12), "test": make_plain_rows(20, 12)},
    )
    assert "fhm.audit/report.html" in run_command("audit", data).out
    names = ("--json", "a.json", "--html", "b/c.html")
    assert "b/c.html and a.json" in run_command("audit", data, *names).out
    written = json.loads(Path("fhm.audit/report.json").read_text())
    assert json.loads(Path("a.json").read_text()) == written
    ended = run_command("audit", data, "--json")
    assert json.loads(ended.out) == written
    assert "fhm.audit/report.html" in ended.err
    assert Path("b/c.html").read_text() == Path("fhm.audit/report.html").read_text()


def test_the_page_needs_nothing_else_and_shows_no_markup_of_the_data(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 30) + make_plain_rows(0, 30)
    for number, row in enumerate(rows):
        row["id"], row["label"] = f"<script>{number}", ("<b>x", "y")[number % 2]
    html = render_audit_page(
        run_audit(write_folder(tmp_path, {"train": rows[:40], "test": rows[40:]}))
    )
    assert "&lt;script&gt;5" in html
    assert "&lt;b&gt;x" in html
    for outside in ("<script", "<img", "<link", "src=", "href=", "url(", "@import", "http"):
        assert outside not in html.lower(), outside


def test_the_summary_fits_eighty_columns(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 100)
    path = write_folder(tmp_path, {"train": rows, "test": rows[:73] + make_plain_rows(200, 27)})
    console = Console(width=80, force_terminal=False)
    with console.capture() as shown:
        print_audit(run_audit(path), console)
    assert max(map(len, shown.get().splitlines())) <= 80
    assert "73/100" in shown.get()


@settings(max_examples=4, deadline=None)
@given(st.randoms(use_true_random=False))
def test_an_audit_does_not_depend_on_the_order_of_posts(chance: random.Random) -> None:
    rows = [
        (
            ("train", "val")[row % 2],
            Post(id=f"{row}", text=make_words(row // 3), label="ab"[row % 5 > 2]),
        )
        for row in range(120)
    ]

    def of(given: list[tuple[str, Post]]) -> Audit:
        splits, posts = zip(*given, strict=True)
        prints, keys = compute_post_keys(posts)
        return audit_posts(
            ComparedPosts(Path("x"), "jsonl", ("train", "val"), posts, splits, prints, keys, ())
        )

    assert of(rows) == of(chance.sample(rows, len(rows)))


def test_serving_and_reading_posts_import_no_library_of_the_audit() -> None:
    code = (
        "import sys, miko_clf.data.dataset, miko_clf.serve.engine, miko_clf.cli.main\n"
        "print(sorted({'scipy', 'sklearn', 'datasketch'} & sys.modules.keys()))"
    )
    assert run_python("-c", code).out == "[]\n"


@pytest.mark.real
def test_harm_c_holds_the_overlap_and_the_id_shortcut_that_are_known(harm_c: Path) -> None:
    found = run_audit(harm_c)
    assert count_findings(found, "image") == (34, 29, 10)
    assert count_findings(found, "post") == (34, 29, 10)
    cue = next(each for each in found.cues if each.name == "number in the id")
    assert cue.nearby == pytest.approx(0.78, abs=0.015)
    assert cue.verdict == "never feed this"
    assert any("both sides of a split" in line for line in found.leaks)
