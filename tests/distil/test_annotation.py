"""Intentions that people rate in Label Studio, and what they answered."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from miko_clf.data.post import Intention, Post
from miko_clf.distil.agreement import measure_agreement
from miko_clf.distil.annotation import (
    make_annotations,
    make_labelling_config,
    read_annotations,
    tabulate_ratings,
    write_annotations,
)
from miko_clf.errors import DistilError

WANT = Intention(relation="xWant", text="After posting this, the author wants to laugh.")
FEEL = Intention(relation="oReact", text="After seeing this, others feel amused.")
JUDGED = FEEL.model_copy(update={"plausibility": 0.9, "typicality": 0.75})


@pytest.fixture
def posts(tmp_path: Path) -> list[Post]:
    return [
        Post(id="a", text="look & laugh", image=tmp_path / "a b.png", intentions=(WANT, JUDGED)),
        Post(id="b", text="no intention"),
        Post(id="c", text="one", intentions=(FEEL,)),
    ]


def choice(place: int, value: str) -> dict[str, Any]:
    return {
        "id": f"c{place}", "from_name": f"plausible_{place}", "to_name": f"intention_{place}",
        "type": "choices", "origin": "manual", "value": {"choices": [value]},
    }  # fmt: skip


def stars(place: int, value: int) -> dict[str, Any]:
    return {
        "id": f"r{place}", "from_name": f"typicality_{place}", "to_name": f"intention_{place}",
        "type": "rating", "origin": "manual", "value": {"rating": value},
    }  # fmt: skip


def export(path: Path, made: list[dict[str, Any]], *annotations: list[dict[str, Any]]) -> Path:
    """Write what Label Studio's JSON export holds for tasks and their annotations."""
    exported = [
        {
            "id": number, "annotations": given, "file_upload": "1-tasks.json", "drafts": [],
            "predictions": [], "data": task["data"], "meta": {}, "project": 1, "inner_id": number,
            "created_at": "2026-01-01T00:00:00.0Z", "updated_at": "2026-01-01T00:00:00.0Z",
            "total_annotations": len(given), "cancelled_annotations": 0,
        }
        for number, (task, given) in enumerate(zip(made, annotations, strict=True), 1)
    ]  # fmt: skip
    path.write_text(json.dumps(exported), encoding="utf-8")
    return path


def by(who: object, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
    return {
        "id": 7, "completed_by": who, "result": list(results), "was_cancelled": cancelled,
        "ground_truth": False, "lead_time": 4.2, "task": 1, "result_count": len(results),
    }  # fmt: skip


def test_answers_come_back_with_post_relation_and_annotator(
    posts: list[Post], tmp_path: Path
) -> None:
    made = make_annotations(posts, tmp_path)
    path = export(
        tmp_path / "export.json",
        made,
        [
            by(3, choice(0, "yes"), stars(0, 4), choice(1, "no")),
            by({"id": 9, "email": "ann@example.org"}, choice(0, "no"), stars(1, 2)),
        ],
        [by(3, choice(0, "yes"), stars(0, 5))],
    )

    rows = {
        (a.post, a.relation, a.annotator): (a.plausible, a.typicality)
        for a in read_annotations(path)
    }

    assert rows == {
        ("a", "xWant", "3"): (True, 4),
        ("a", "oReact", "3"): (False, None),
        ("a", "xWant", "ann@example.org"): (False, None),
        ("a", "oReact", "ann@example.org"): (None, 2),
        ("c", "oReact", "3"): (True, 5),
    }


def test_a_skipped_annotation_and_an_answer_to_an_empty_place_count_for_nothing(
    posts: list[Post], tmp_path: Path
) -> None:
    path = export(
        tmp_path / "export.json",
        make_annotations(posts, tmp_path),
        [by(1, choice(0, "yes"), cancelled=True)],
        [by(1, choice(1, "no"))],
    )
    assert read_annotations(path) == []


def test_every_field_and_name_of_the_interface_is_in_every_task(
    posts: list[Post], tmp_path: Path
) -> None:
    out = tmp_path / "out" / "tasks.json"
    assert write_annotations(out, posts, tmp_path) == 2

    made = json.loads(out.read_text(encoding="utf-8"))
    root = ElementTree.parse(out.with_suffix(".xml")).getroot()
    fields = {each.get("value", "")[1:] for each in root.iter() if "$" in each.get("value", "")}
    names = {each.get("name") for each in root.iter() if each.get("name")}
    assert len(fields) == 2 + 2 * 2
    assert all(fields <= set(task["data"]) for task in made)
    assert {each.get("toName") for each in root.iter() if each.get("toName")} <= names
    assert {"plausible_1", "typicality_1", "intention_1"} <= names


def test_a_judge_is_shown_only_where_asked_for(posts: list[Post], tmp_path: Path) -> None:
    assert [task["predictions"] for task in make_annotations(posts, tmp_path)] == [[], []]
    shown = make_annotations(posts, tmp_path, prefill=True)[0]["predictions"][0]["result"]
    values = {result["from_name"]: result["value"] for result in shown}
    assert values == {"plausible_1": {"choices": ["yes"]}, "typicality_1": {"rating": 4}}
    controls = ElementTree.fromstring(make_labelling_config(2))
    kinds = {each.get("name"): each.tag.lower() for each in controls.iter()}
    assert all(kinds[result["from_name"]] == result["type"] for result in shown)


def test_a_picture_is_served_by_its_path_or_travels_inside(tmp_path: Path) -> None:
    encoded = BytesIO()
    Image.new("RGB", (2, 2)).save(encoded, "PNG")
    pictures = [tmp_path / "deep" / "a b.png", encoded.getvalue(), None]
    given = [
        Post(id=str(n), text="t", image=image, intentions=(WANT,))
        for n, image in enumerate(pictures)
    ]
    served, inside, none = (task["data"]["image"] for task in make_annotations(given, tmp_path))
    assert served == "/data/local-files/?d=deep/a%20b.png"
    assert inside.startswith("data:image/png;base64,iVBOR")
    assert none.startswith("data:image/gif")


def test_a_picture_outside_the_served_folder_is_refused(tmp_path: Path) -> None:
    post = Post(id="x", image=tmp_path / "a.png", intentions=(WANT,))
    with pytest.raises(DistilError, match=r"'x'.*not under"):
        make_annotations([post], tmp_path / "served")


def test_nothing_to_annotate_is_said(tmp_path: Path) -> None:
    with pytest.raises(DistilError, match="no post has an intention"):
        write_annotations(tmp_path / "tasks.json", [Post(id="x", text="t")], tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a": 1}', '[{"data": {}, "annotations": [{"completed_by": 1}]}]']
)
def test_a_file_that_is_no_export_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DistilError, match=r"other\.json: not a JSON export"):
        read_annotations(path)


def test_stars_off_the_scale_are_refused(posts: list[Post], tmp_path: Path) -> None:
    path = export(tmp_path / "e.json", make_annotations(posts, tmp_path), [by(1, stars(0, 9))], [])
    with pytest.raises(DistilError, match="not a JSON export"):
        read_annotations(path)


def test_answers_become_the_table_that_agreement_takes(posts: list[Post], tmp_path: Path) -> None:
    path = export(
        tmp_path / "export.json",
        make_annotations(posts, tmp_path),
        [by(1, choice(0, "yes"), choice(1, "no")), by(2, choice(0, "yes"), choice(1, "no"))],
        [by(1, choice(0, "yes"))],
    )
    table = tabulate_ratings(read_annotations(path), "plausible")
    assert table.shape == (2, 3)
    found = measure_agreement(table, values=(0, 1))
    assert (found.units, found.ratings, found.alpha, found.raw) == (2, 5, 1.0, 1.0)
