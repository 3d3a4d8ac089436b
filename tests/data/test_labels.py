"""Labels: one, several or several tasks, read, encoded and split by."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miko_clf.data.audit.label_leakage import check_input_leakage
from miko_clf.data.hf import read_saved_rows
from miko_clf.data.labels import (
    FOLD,
    compile_label_map,
    encode_labels,
    find_questions,
    flatten_label,
    list_label_notes,
    normalise_class,
    rename_label,
)
from miko_clf.data.post import Intention, Label, Post
from miko_clf.data.readers import parse_post, read_posts
from miko_clf.data.splits import split_by_group
from miko_clf.errors import PostError
from miko_clf.questions import Question, Questions, make_single_choice

TONE = Question(name="tone", labels=("sincere", "sarcastic"))
KIND = Question(name="kind", labels=("a", "b", "c"))
HARM = Question(name="harm", kind="many", labels=("race", "sex"))
ASKED = Questions((TONE, HARM))


def post(number: int, label: Label | None, **fields: object) -> Post:
    return Post.model_validate({"id": str(number), "text": "t", "label": label, **fields})


def posts(*labels: Label | None) -> list[Post]:
    return [post(number, label) for number, label in enumerate(labels)]


def test_a_label_is_a_name_a_list_or_an_object_of_either_in_every_kind_of_file(
    tmp_path: Path,
) -> None:
    labels: list[Label | None] = [
        {"tone": "sincere", "harm": ("race",)},
        {"harm": ()},
        {"tone": "sarcastic"},
        None,
    ]
    rows = [{"id": f"{n}", "text": "t", "label": label} for n, label in enumerate(labels)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    quoted = [json.dumps(label).replace('"', '""') if label else "" for label in labels]
    cells = [f'{n},t,"{text}"' for n, text in enumerate(quoted)]
    (tmp_path / "a.csv").write_text("\n".join(["id,text,label", *cells]))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        assert [one.label for one in read_posts(tmp_path / f"a.{kind}")] == labels, kind


def test_class_numbers_of_a_saved_dataset_become_names_in_every_task(tmp_path: Path) -> None:
    tone, harm = datasets.ClassLabel(names=["x", "y"]), datasets.ClassLabel(names=["u", "v"])
    rows = {"id": ["1", "2"], "text": ["a", "b"]}
    rows["label"] = [{"tone": 1, "harm": [0, 1]}, {"tone": None, "harm": []}]
    text = datasets.Value("string")
    shape = {"id": text, "text": text, "label": {"tone": tone, "harm": datasets.List(harm)}}
    datasets.Dataset.from_dict(rows, datasets.Features(shape)).save_to_disk(str(tmp_path))
    found = [parse_post(row.cells, tmp_path).label for row in read_saved_rows(tmp_path, "row")]
    assert found == [{"tone": "y", "harm": ("u", "v")}, {"harm": ()}]


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ({"tone": 1.5}, "label must be .* or an object of either by task"),
        ({"tone": {"x": "y"}}, "label must be"),
        ({" tone": "x"}, "task ' tone' is empty or has blanks"),
        ({"tone": ["x", "x"]}, "names a class twice"),
        ({"tone": ""}, "label '' is empty"),
    ],
)
def test_a_label_that_cannot_be_is_one_line(label: object, line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "1", "text": "t", "label": label}))
    with pytest.raises(PostError, match=line):
        list(read_posts(path))


def test_questions_are_found_in_the_posts_with_the_rarer_class_second() -> None:
    given = posts(
        {"tone": "sarcastic", "harm": ("sex",)},
        {"tone": "sincere"},
        {"tone": "sincere", "harm": ("sex", "race")},
        {"harm": ()},
    )
    assert find_questions(given) == Questions((HARM, TONE))
    assert find_questions(given, "tone=sincere").each[1].labels == ("sarcastic", "sincere")
    assert find_questions(posts(("b",), (), ("a", "b"))) == Questions(
        (Question(kind="many", labels=("a", "b")),)
    )
    assert find_questions(posts("c", "a", "b")) == make_single_choice("abc")


@pytest.mark.parametrize(
    ("given", "positive", "line"),
    [
        (
            posts({"a": "x"}, {"a": ("x",)}),
            None,
            "post '1' has a list of labels for a and post '0'",
        ),
        (posts({"a": "x"}, "x"), None, "post '1' is labelled without a task and others with a"),
        (posts({"a": "x"}), None, "one label for a, 'x'; two are needed"),
        (posts((), ()), None, "no training post has a label"),
        (posts({"a": "x"}, {"a": "y"}), "x", "'x' is no task .*TASK=NAME with a task of a"),
        (posts({"a": "x"}, {"a": "y"}), "a=z", "labelled 'z' for a; labels: x, y"),
    ],
)
def test_posts_that_ask_nothing_are_one_line(
    given: list[Post], positive: str | None, line: str
) -> None:
    with pytest.raises(PostError, match=line):
        find_questions(given, positive)


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ({"tone": "angry"}, "labelled 'angry' for tone; known are sincere, sarcastic"),
        ({"tone": ("sincere",)}, "has a list of labels for tone"),
        ({"harm": "race"}, "has one name for harm; known are harm: any of race, sex"),
        ({"mood": "x"}, "has a label for 'mood'; known are tone: one of"),
        ("sincere", "has a label that names no task"),
    ],
)
def test_an_answer_to_something_else_is_one_line(label: Label, line: str) -> None:
    with pytest.raises(PostError, match=f"here: post '0'.*{line}"):
        encode_labels(posts(label), ASKED, "here", "known are")


def test_answers_become_arrays_and_what_a_post_is_silent_on_is_not_known() -> None:
    truth = encode_labels(
        posts({"tone": "sarcastic", "harm": ("sex",)}, {"harm": ()}, None), ASKED, "", ""
    )
    assert truth.known.tolist() == [[True, True], [False, True], [False, False]]
    tone, harm = truth.split_by_question()
    assert (tone.rows.tolist(), tone.truth.tolist(), tone.span) == ([0], [1], slice(0, 2))
    assert (harm.rows.tolist(), harm.truth.tolist()) == ([0, 1], [[0, 1], [0, 0]])
    assert encode_labels(posts("b", None), make_single_choice("ab"), "", "").list_choices() == [
        1,
        -1,
    ]


def test_questions_come_back_from_json_and_one_choice_is_a_plain_list() -> None:
    for asked in (ASKED, Questions((HARM,)), Questions((KIND,)), make_single_choice("ab")):
        assert Questions.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert make_single_choice(("no", "yes")).to_json() == ["no", "yes"]
    assert ASKED.names == ("tone: sincere", "tone: sarcastic", "harm: race", "harm: sex")
    assert Questions((KIND,)).names == ("a", "b", "c")


def test_flat_names_and_renaming_reach_every_task() -> None:
    label = {"tone": "x", "harm": ("x", "y")}
    assert flatten_label(label) == ("tone: x", "harm: x", "harm: y")
    assert rename_label(label, lambda name: "z") == {"tone": "z", "harm": ("z",)}
    assert (flatten_label(None), rename_label(None, str.upper), rename_label("a", str.upper)) == (
        (),
        None,
        "A",
    )


def test_splits_are_stratified_by_the_labels_of_every_task() -> None:
    labels = [{"a": "xy"[n % 2], "b": ("u",) if n % 5 == 0 else ()} for n in range(400)]
    given = posts(*labels)
    places = split_by_group(given, 0)
    for split in ("val", "test"):
        inside = [one.label for one, place in zip(given, places, strict=True) if place == split]
        assert abs(len(inside) - 40) <= 2
        assert abs(sum(one["a"] == "x" for one in inside) - len(inside) / 2) <= 2
        assert abs(sum(bool(one["b"]) for one in inside) - len(inside) / 5) <= 2


def test_a_text_that_tells_the_label_of_one_task_is_found_for_that_task() -> None:
    def told(n: int) -> Post:
        text = ("a jolly remark", "a nasty remark")[n % 2]
        label = {"harm": ("safe", "hurts")[n % 2], "tone": ("x", "y")[n // 2 % 2]}
        if n % 7 == 0:
            del label["tone"]
        return post(n, label, intentions=(Intention(relation="xIntent", text=text),))

    given = [told(n) for n in range(80)]
    with pytest.raises(PostError, match=r"intention \(harm\): flagged"):
        check_input_leakage(given, ("intention",), allow=False)
    found = check_input_leakage(given, ("intention",), allow=True)
    assert [one.name for one in found] == ["intention (harm)", "intention (tone)"]
    assert [one.flagged for one in found] == [True, False]
    listed = [one.model_copy(update={"label": ("hurts",) * (n % 2)}) for n, one in enumerate(given)]
    assert check_input_leakage(listed, ("intention",), allow=True)[0].flagged


def test_the_positive_class_is_the_rarer_unless_chosen() -> None:
    posts = [Post(id=str(i), text="t", label="yes" if i < 3 else "no") for i in range(10)]
    assert find_questions(posts).names == ("no", "yes")
    assert find_questions(posts, "no").names == ("yes", "no")
    with pytest.raises(PostError, match="no training post is labelled 'maybe'; labels: no, yes"):
        find_questions(posts, "maybe")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (True, "true"), (0, "0"), (-1, "-1"), (1.0, "1"), (-0.0, "0"), ("1.00", "1"), ("01", "01"),
        ("-2.0", "-2"), ("1.5", "1.5"), ("FALSE", "false"), (" y ", "y"), ("v1.0", "v1.0"),
    ],
)  # fmt: skip
def test_a_class_has_one_spelling(written: str | bool | int | float, read: str) -> None:
    assert normalise_class(written) == read
    assert normalise_class(read) == read


def test_a_label_map_renames_folds_and_leaves_out() -> None:
    plain = compile_label_map({"1.0": "harmful", "-1": ""})
    assert [plain(name) for name in ("1", "-1", "Not harmful")] == ["harmful", "", "Not harmful"]
    folded = compile_label_map({FOLD: "fold", "Very Harmful": "harmful"})
    given = ("Not harmful", "not-harmful", "very_harmful", "HARMFUL")
    assert [folded(name) for name in given] == ["not_harmful"] * 2 + ["harmful"] * 2


def test_a_class_that_becomes_nothing_takes_the_label_with_it_only_as_the_last() -> None:
    change = compile_label_map({"x": ""})
    assert rename_label("x", change) is None
    assert rename_label(("x", "y"), change) == ("y",)
    assert rename_label(("x",), change) is None
    assert rename_label((), change) == ()
    assert rename_label({"a": "x", "b": ("y",)}, change) == {"b": ("y",)}
    assert rename_label({"a": "x"}, change) is None


def test_classes_alike_and_minus_one_are_said_with_the_flag_that_mends_them() -> None:
    alike, none = list_label_notes(posts("Not harmful", "not_harmful", "-1", "harmful"))
    assert alike.startswith("labels 'Not harmful' (1) and 'not_harmful' (1) differ in case")
    assert "--label-map fold" in alike
    assert "--label-map=-1= leaves them out" in none
    assert list_label_notes(posts("not harmful", "harmful", None)) == []
    assert "'tone: -1'" in list_label_notes(posts({"tone": "-1"}))[0]


def test_a_bundle_that_spells_its_labels_in_another_way_knows_them_still() -> None:
    asked = make_single_choice(("0.0", "True"))
    assert encode_labels(posts("true", "0"), asked, "", "").list_choices() == [1, 0]
    with pytest.raises(PostError, match="--label-map 'not_it=Not it' renames it"):
        encode_labels(posts("not_it"), make_single_choice(("it", "Not it")), "", "")


def test_one_label_is_not_enough() -> None:
    with pytest.raises(PostError, match="one label, 'yes'; two are needed"):
        find_questions([Post(id="1", text="t", label="yes")])
