"""Parquet: what `datasets` says of its columns, and what is made of damaged words of it."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miko_clf.data.parquet import choose_reading, read_parquet
from miko_clf.errors import PostError


def test_a_file_that_datasets_wrote_is_read_by_its_names(tmp_path: Path) -> None:
    tone = datasets.ClassLabel(names=["x", "y"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": {"tone": tone, "harm": datasets.List(tone)}}
    )
    rows = {"text": ["a", "b"], "label": [{"tone": 1, "harm": [0]}, {"tone": -1, "harm": []}]}
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(rows, features).to_parquet(path)
    first, second = read_parquet(path, "id")
    assert first.cells["label"] == {"tone": "y", "harm": ["x"]}
    assert second.cells["label"] == {"tone": None, "harm": []}
    assert (first.cells["id"], second.cells["id"]) == ("train-1", "train-2")


@pytest.mark.parametrize("told", [b"{", b"[]", b'{"info": {}}', b'{"info": {"features": 5}}'])
def test_metadata_that_says_nothing_is_passed_over(told: bytes, tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": told})
    pq.write_table(table, tmp_path / "a.parquet")
    assert next(read_parquet(tmp_path / "a.parquet", "id")).cells["label"] == 1
    pq.write_table(table.select(["label"]), tmp_path / "b.parquet")
    with pytest.raises(PostError, match="column 'id' is required"):
        list(read_parquet(tmp_path / "b.parquet", "id"))


@pytest.mark.parametrize(
    ("feature", "value", "read"),
    [
        ({"names": ["u", "v"], "_type": "ClassLabel"}, 1, "v"),
        ([{"names": ["u", "v"], "_type": "ClassLabel"}], [1, None], ["v", None]),
        ({"dtype": "int64", "_type": "Value"}, 1, 1),
        ({"x": {"names": ["u"], "_type": "ClassLabel"}}, None, None),
    ],
)
def test_a_reading_is_chosen_by_what_the_column_is(feature: Any, value: Any, read: Any) -> None:
    assert choose_reading(json.loads(json.dumps(feature)))(value) == read
