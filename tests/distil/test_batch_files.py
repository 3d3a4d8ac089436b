"""What a batch run answered is read line by line: answers, errors, refusals, torn ends."""

import json
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from miko_clf.distil.batch_files import BatchOutputs
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.store import open_for_reading
from tests.support.batch_waves import (
    Line,
    answer_requests,
    count_statuses,
    dump_lines,
    make_bad_line,
    make_good_line,
    make_some_posts,
    read_requests,
    write_wave,
)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parts"


def test_a_truncated_answer_is_asked_again_with_more_room(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(1)).parts[0]
    answer_requests(part, partial(make_good_line, fault="truncated"))
    second = write_wave(kb, folder, make_some_posts(1))
    (wider,) = read_requests(second.parts[0])
    assert wider["body"]["max_tokens"] == 3 * read_requests(part)[0]["body"]["max_tokens"]
    answer_requests(second.parts[0])
    assert write_wave(kb, folder, make_some_posts(1)).awaited == 0
    assert count_statuses(kb) == {"ok": 1}


def test_a_passing_error_is_asked_three_times_and_then_fails(kb: Path, folder: Path) -> None:
    posts, asked = make_some_posts(2), []
    for round_ in range(3):
        written = write_wave(kb, folder, posts)
        asked.append(written.calls)
        assert count_statuses(kb) == {}
        answer_requests(
            written.parts[0], lambda each, n=round_: make_bad_line(each, 500, "oops", n)
        )  # type: ignore[misc]
    assert asked == [2, 2, 2]
    assert write_wave(kb, folder, posts).awaited == 0
    assert count_statuses(kb) == {"failed": 2}
    # As online, to give the command once more is to try once more.
    last = write_wave(kb, folder, posts)
    assert last.calls == 2
    answer_requests(last.parts[0])
    write_wave(kb, folder, posts)
    assert count_statuses(kb) == {"ok": 2}


def test_a_lasting_error_fails_at_once(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(1)).parts[0]
    answer_requests(part, lambda each: make_bad_line(each, 400, "the prompt is too long"))
    assert write_wave(kb, folder, make_some_posts(1)).awaited == 0
    assert count_statuses(kb) == {"failed": 1}


def test_errors_as_vllm_and_expired_batches_write_them_are_read(kb: Path, folder: Path) -> None:
    def vllm(asked: Line) -> Line:
        error = {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}
        response = {"status_code": 400, "request_id": "v", "body": None}
        return {"id": "v", "custom_id": asked["custom_id"], "response": response, "error": error}

    def expired(asked: Line) -> Line:
        error = {"code": "batch_expired", "message": "not executed"}
        return {"id": "e", "custom_id": asked["custom_id"], "response": None, "error": error}

    part = write_wave(kb, folder, make_some_posts(1)).parts[0]
    answer_requests(part, expired)
    second = write_wave(kb, folder, make_some_posts(1))
    assert second.calls == 1
    answer_requests(second.parts[0], vllm)
    write_wave(kb, folder, make_some_posts(1))
    db = open_for_reading(kb)
    (reason,) = db.execute("SELECT reason FROM outcomes WHERE status = 'failed'").fetchone()
    db.close()
    assert reason == "400 too long"


def test_what_a_filter_blocks_is_refused_and_goes_to_the_fallback(kb: Path, folder: Path) -> None:
    plan = JobPlan("intentions", "small", fallbacks=("other",))
    part = write_wave(kb, folder, make_some_posts(1), plan).parts[0]
    answer_requests(part, lambda each: make_bad_line(each, 400, "blocked (content_filter)"))
    second = write_wave(kb, folder, make_some_posts(1), plan)
    assert read_requests(second.parts[0])[0]["body"]["model"] == "other"
    answer_requests(second.parts[0])
    write_wave(kb, folder, make_some_posts(1), plan)
    assert count_statuses(kb) == {"ok": 1}


def test_reading_twice_changes_nothing(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(5)).parts[0]
    out = answer_requests(part)
    write_wave(kb, folder, make_some_posts(5))
    before = dump_lines(kb)
    folder.joinpath("batch_x_output.jsonl").write_bytes(out.read_bytes())
    assert write_wave(kb, folder, make_some_posts(5)).awaited == 0
    assert dump_lines(kb) == before


def test_an_answer_counts_whatever_error_stands_in_another_file(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(1)).parts[0]
    error = json.dumps(make_bad_line(read_requests(part)[0], 400, "no"))
    for name in ("a_error.jsonl", "z_error.jsonl"):  # read before the answer, and after it
        (folder / name).write_text(error + "\n")
    answer_requests(part)
    write_wave(kb, folder, make_some_posts(1))
    assert count_statuses(kb) == {"ok": 1}


def test_half_a_line_waits_and_strange_lines_are_named(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(3)).parts[0]
    whole = answer_requests(part).read_text()
    lines = whole.splitlines(keepends=True)
    stranger = json.dumps({**make_good_line(read_requests(part)[0]), "custom_id": "someone else"})
    torn = [lines[0], "no JSON\n", stranger + "\n", lines[1], lines[2][:100]]
    part.with_suffix(".out.jsonl").write_text("".join(torn))
    written = write_wave(kb, folder, make_some_posts(3))
    assert (written.awaited, written.calls, written.unreadable, written.strays) == (1, 0, 1, 1)
    assert bytes.fromhex(written.stray) == b"someone else"
    assert count_statuses(kb) == {"ok": 2}

    part.with_suffix(".out.jsonl").write_text(whole)
    assert write_wave(kb, folder, make_some_posts(3)).awaited == 0
    assert count_statuses(kb) == {"ok": 3}


def test_answers_cost_what_a_batch_costs(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(4)).parts[0]
    answer_requests(part)
    write_wave(kb, folder, make_some_posts(4))
    db = open_for_reading(kb)
    prompt, completion_, usd = db.execute(
        "SELECT SUM(prompt_tokens), SUM(completion_tokens), SUM(usd) FROM calls"
    ).fetchone()
    db.close()
    assert prompt > 0
    assert usd == pytest.approx((prompt * 1.0 + completion_ * 4.0) / 1e6 * 0.5)


def test_the_index_holds_places_and_not_answers(tmp_path: Path) -> None:
    line = {"custom_id": "", "id": "x", "response": {"status_code": 200, "body": {}}}
    line["response"]["body"] = {"choices": [], "padding": "x" * 5000}  # type: ignore[index]
    with (tmp_path / "big.out.jsonl").open("w") as file:
        for number in range(2000):
            file.write(json.dumps({**line, "custom_id": f"{number:064x}"}) + "\n")
    db = sqlite3.connect(tmp_path / "index.sqlite")
    outputs = BatchOutputs(tmp_path, db)
    db.commit()
    assert (tmp_path / "index.sqlite").stat().st_size < 400_000
    found = outputs.find((1234).to_bytes(32))
    assert found is not None
    assert outputs.read(found, "here")[0].reason == "no choices"
    db.close()
