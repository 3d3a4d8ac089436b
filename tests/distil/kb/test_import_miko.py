"""MIKO's released files in a knowledge base: small ones made here, and the real ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from miko_clf.data.post import RELATIONS
from miko_clf.data.sets.miko import parse_key_information
from miko_clf.distil.kb.import_miko import (
    PUBLISHED_JUDGE,
    PUBLISHED_SAMPLE,
    ImportReport,
    import_release,
    read_release,
)
from miko_clf.distil.kb.query import PostKnowledge, iterate_knowledge, load_knowledge
from miko_clf.distil.kb.stats import DistinctCounter, compute_knowledge_stats
from miko_clf.distil.kb.store import open_for_reading
from miko_clf.distil.relations import MIKO_RELATION_ORDER, place_sentences, split_sentences
from miko_clf.errors import DistilError
from tests.support.repository import SHARED

TEN = {
    "xWant": "After posting this Tweet, the user wants to hear from friends.",
    "oEffect": "After viewing this Tweet, others will laugh at the picture.",
    "xAttr": "The user posts this Tweet because the user is proud of the cake.",
    "xIntent": "The user posts this Tweet because the user intended to show a cake.",
    "xReact": "After posting this Tweet, the user feels cheerful and a bit hungry.",
    "oReact": "After viewing this Tweet, others feel envious of the baker.",
    "oWant": "After viewing this Tweet, others want to bake something too.",
    "xEffect": "After posting this Tweet, the user will answer some questions.",
    "xNeed": "Before posting this Tweet, the user needs to bake the cake.",
    "Open": "The user posts this tweet because they like to share small joys.",
}
# Shares of valid intentions, in percent, in the order in which the reference gives them.
SHARES = {
    "xWant": 83.3, "oEffect": 81.5, "Open": 81.1, "oWant": 80.4, "xIntent": 79.9, "xAttr": 78.5,
    "oReact": 75.0, "xEffect": 73.9, "xNeed": 69.7, "xReact": 63.6, "all": 76.69,
}  # fmt: skip
KEYS = "Concept: Baking.\nAction: Showing.\nObject: Cake.\nEmotion: Joy.\nKeywords: cake, oven..\n"


def numbered(texts: dict[int, str]) -> str:
    return "\n".join(f"Intention{number}: {text}" for number, text in texts.items())


def ten() -> dict[int, str]:
    return {number: TEN[name] for number, name in enumerate(MIKO_RELATION_ORDER, 1)}


def row(name: str = "7.jpg", **more: Any) -> dict[str, Any]:
    made = {"image_id": name, "text": "a cake", "image_descrption": "A cake on a table.", **more}
    return {"keyinfo": KEYS, "intention": numbered(ten()), "question_id": 1, **made}


def marked(name: str, texts: dict[int, str], marks: list[int], text: str = "a cake") -> dict:
    told = {f"Intention {number}": each for number, each in texts.items()}
    return {"image_name": name, "text": text, "intentions": told, "intention_labels": marks}


def write(path: Path, rows: list) -> Path:
    whole = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
    path.write_text(whole, encoding="utf-8")
    return path


def of(kb: Path, name: str) -> PostKnowledge:
    found = load_knowledge(open_for_reading(kb), name)
    assert found is not None
    return found


def scores(kb: Path) -> dict[str, float]:
    return dict(
        open_for_reading(kb).execute("SELECT relation, plausibility FROM scores").fetchall()
    )


def test_numbers_tell_the_relation_where_the_stem_agrees():
    found = place_sentences(numbered(ten()))
    assert found.texts == TEN
    assert found.odd == ()


def test_a_relation_that_was_skipped_shifts_no_other():
    texts = [TEN[name] for name in MIKO_RELATION_ORDER if name != "xAttr"]
    found = place_sentences(numbered(dict(enumerate(texts, 1))))
    assert found.texts == {name: text for name, text in TEN.items() if name != "xAttr"}
    assert found.numbers[3] == "xIntent"
    assert "xAttr is missing" in found.odd


def test_a_number_that_comes_twice_goes_by_its_stem():
    lines = [*numbered(ten()).split("\n")]
    lines[4] = lines[4].replace("Intention5", "Intention4")
    assert place_sentences("\n".join(lines)).texts == TEN


def test_a_sentence_with_a_strange_stem_stays_at_its_number_when_its_own_place_is_taken():
    odd = "The user posts this Tweet because they want to motivate everyone today."
    found = place_sentences(numbered({**ten(), 3: odd}))
    assert found.texts == {**TEN, "xAttr": odd}
    assert len(found.odd) == 1


@pytest.mark.parametrize(
    "end", ["\nIntention10:", "\nIntention 10", "\nInt", "\n", "\nIntention10: The user posts this"]
)
def test_what_a_length_limit_left_of_the_tenth_sentence_is_no_intention(end: str):
    nine = numbered({n: text for n, text in ten().items() if n < 10})
    found = place_sentences(nine + end)
    assert found.texts == {name: text for name, text in TEN.items() if name != "Open"}
    assert found.odd == ("Open is missing",)


def test_blank_lines_and_marks_before_numbers_are_passed_over():
    raw = "\n\n".join(f"\\Intention {n} : {text}" for n, text in ten().items())
    assert place_sentences(raw).texts == TEN
    assert split_sentences("nothing of the kind") == []


def test_key_information_is_read_by_its_names():
    found = parse_key_information(KEYS)
    assert found is not None
    assert (found.concept, found.object, found.keywords) == ("Baking", "Cake", ("cake", "oven"))
    assert parse_key_information("") is None
    slashed = parse_key_information("Keywords: Sea/Sun.")
    assert slashed is not None
    assert (slashed.keywords, slashed.concept) == (("Sea", "Sun"), None)


def test_a_row_becomes_description_key_information_and_ten_of_our_sentences(tmp_path: Path):
    kb = tmp_path / "kb.sqlite"
    made = import_release(kb, [write(tmp_path / "any.name", [row()])])
    assert (made.posts, made.answers, made.intentions, made.odd) == (1, 3, 10, [])
    one = of(kb, "7")
    assert one.description == "A cake on a table."
    assert one.key_information == parse_key_information(KEYS)
    assert len(one.intentions) == 10
    assert one.intentions[0].text == "Before posting this, the author needs to bake the cake."
    source = one.intentions[0].provenance or {}
    assert (source["model"], source["prompt"], source["sample"]) == (
        "gpt-35-turbo", "published.1", PUBLISHED_SAMPLE,
    )  # fmt: skip
    assert "host" not in source
    assert "at" not in source


def test_raw_texts_are_kept_as_they_were_and_nothing_is_counted_as_paid(tmp_path: Path):
    kb = tmp_path / "kb.sqlite"
    import_release(kb, [write(tmp_path / "rows.jsonl", [row()])])
    say = "SELECT stage, raw, usd, tries, host FROM calls ORDER BY stage"
    assert open_for_reading(kb).execute(say).fetchall() == [
        ("description", "A cake on a table.", 0.0, 0, ""),
        ("intentions", numbered(ten()), 0.0, 0, ""),
        ("key_information", KEYS, 0.0, 0, ""),
    ]
    assert [
        (bill.calls, bill.imported) for bill in compute_knowledge_stats(open_for_reading(kb)).bills
    ] == [(0, 2), (0, 1)]


def test_an_empty_answer_is_absent_and_never_an_empty_text(tmp_path: Path):
    kb = tmp_path / "kb.sqlite"
    made = import_release(kb, [write(tmp_path / "rows.jsonl", [row(keyinfo="", intention="")])])
    one = of(kb, "7")
    assert (one.key_information, one.intentions) == (None, ())
    assert one.ends["intentions"].status == "invalid"
    assert {reason for _, reason in made.odd} == {"key_information is empty", "intentions is empty"}


def test_marks_follow_their_sentences_and_stay_where_a_sentence_is_missing(tmp_path: Path):
    texts = [TEN[name] for name in MIKO_RELATION_ORDER if name not in ("xAttr", "Open")]
    marks = [1, 1, 0, 1, 0, 1, 1, 1, 0, 1]
    kb = tmp_path / "kb.sqlite"
    import_release(
        kb, [write(tmp_path / "b.json", [marked("1.jpg", dict(enumerate(texts, 1)), marks)])]
    )
    found = scores(kb)
    assert found["xIntent"] == 0.0  # of number 3
    assert found["xNeed"] == 1.0  # of number 8
    assert found["Open"] == 1.0  # of number 10, which has no sentence
    assert "xAttr" not in found
    assert of(kb, "1").absent == {"xAttr": "missing", "Open": "missing"}


def test_a_mark_becomes_the_plausibility_of_its_intention(tmp_path: Path):
    kb = tmp_path / "kb.sqlite"
    rows = [marked("1.jpg", ten(), [0, *[1] * 9])]
    import_release(kb, [write(tmp_path / "b.json", rows)])
    by_name = {each.relation: each for each in of(kb, "1").intentions}
    assert (by_name["xWant"].plausibility, by_name["Open"].plausibility) == (0.0, 1.0)
    assert (by_name["xWant"].provenance or {})["plausibility_by"] == PUBLISHED_JUDGE


def test_importing_twice_changes_nothing_and_labels_may_come_later(tmp_path: Path):
    kb, file = tmp_path / "kb.sqlite", write(tmp_path / "rows.jsonl", [row(), row("8.jpg")])
    import_release(kb, [file])
    before = open_for_reading(kb).execute("SELECT rowid, key FROM calls").fetchall()
    labels = write(tmp_path / "train.json", [{"image_id": 7, "text": "x", "label": 1}])
    made = import_release(kb, [file], labels=labels)
    assert made.labelled == 1
    assert open_for_reading(kb).execute("SELECT rowid, key FROM calls").fetchall() == before
    assert [one.post.label for one in iterate_knowledge(open_for_reading(kb))] == [
        "sarcastic",
        None,
    ]


def test_posts_of_one_text_are_one_group(tmp_path: Path):
    rows = [row("7.jpg"), row("eg%5c7.jpg"), row("8.jpg", text="a pie")]
    kb = tmp_path / "kb.sqlite"
    import_release(kb, [write(tmp_path / "rows.jsonl", rows)])
    seven, twin, eight = (of(kb, name).post.group for name in ("7", "eg%5c7", "8"))
    assert seven == twin != eight


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "[1]", "not json", '{"id": "1", "text": "ours"}\n', "\x00\x01",
        json.dumps([marked("1.jpg", {}, [1] * 9)]), json.dumps(row(text=3)),
        json.dumps(row(name="")),
    ],
)  # fmt: skip
def test_any_other_file_is_one_line_and_nothing_of_it_is_kept(text: str, tmp_path: Path):
    good = write(tmp_path / "good.jsonl", [row()])
    bad = tmp_path / "MIKO_benchmark.json"
    bad.write_text(text)
    with pytest.raises(DistilError, match=r"MIKO_benchmark\.json") as fault:
        import_release(tmp_path / "kb.sqlite", [good, bad])
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "kb.sqlite").exists()


def test_a_file_or_labels_that_are_not_there_are_one_line(tmp_path: Path):
    with pytest.raises(DistilError, match="cannot be read"):
        import_release(tmp_path / "kb.sqlite", [tmp_path / "none.json"])
    with pytest.raises(DistilError, match=r"not MMSD2\.0"):
        import_release(tmp_path / "kb.sqlite", [], labels=write(tmp_path / "l.json", [{"id": 1}]))


@pytest.fixture(scope="module")
def miko() -> Path:
    folder = SHARED / "data" / "miko"
    if not folder.is_dir():
        pytest.skip("MIKO's files are not beside the project (MIKO_SHARED names their folder)")
    return folder


@pytest.fixture(scope="module")
def real(miko: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImportReport]:
    files = [miko / "MIKO_benchmark.json", *miko.glob("*_make_up.jsonl")]
    kb = tmp_path_factory.mktemp("real") / "kb.sqlite"
    return kb, import_release(kb, files, labels=SHARED / "data" / "mmsd2" / "text_json_final")


@pytest.mark.real
def test_the_real_benchmark_gives_the_shares_that_are_known_of_it(miko: Path, tmp_path: Path):
    import_release(tmp_path / "kb.sqlite", [miko / "MIKO_benchmark.json"])
    found = compute_knowledge_stats(open_for_reading(tmp_path / "kb.sqlite"))
    assert found.judges == {PUBLISHED_JUDGE: 10_000}
    shares = {each.relation: 100 * (each.valid or 0) for each in found.relations}
    assert shares == pytest.approx(SHARES, abs=0.05)
    assert {each.judged for each in found.relations[:-1]} == {1000}
    assert all(15 < (each.words_mean or 0) < 22 for each in found.relations)


@pytest.mark.real
def test_every_irregular_row_of_the_real_files_is_handled(real: tuple[Path, ImportReport]):
    kb, made = real
    assert (made.posts, made.labelled, made.intentions) == (1945, 1417, 19_413)
    reasons = [reason for _, reason in made.odd]
    assert reasons.count("Open is missing") == 35
    assert reasons.count("xNeed is missing") == 2
    assert reasons.count("key_information is empty") == 14
    assert sum("stem" in reason for reason in reasons) == 5
    assert len(reasons) == 56
    absent = of(kb, "eg1%5c3105").absent
    assert absent == {"xNeed": "missing", "Open": "missing"}
    kept = [each.relation for each in of(kb, "919876766591832064").intentions]
    assert kept == [name for name in RELATIONS if name != "xAttr"]


@pytest.mark.real
def test_different_words_are_counted_as_well_by_bits_as_one_by_one(miko: Path):
    words = DistinctCounter()
    every: set[str] = set()
    files = miko.glob("*_make_up.jsonl")
    for item in (item for file in files for item in read_release(file)):
        for word in set(item.answers["intentions"].split()):
            every.add(word)
            words.ones.add(word)
    assert words.ones.different == pytest.approx(len(every), rel=0.001)
