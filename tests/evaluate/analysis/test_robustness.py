"""Posts that came worse, what a system loses by it, and systems on foreign data."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.preprocess import decode_image
from miko_clf.data.unicode_folding import fold_disguises
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.analysis import robustness
from miko_clf.evaluate.analysis.robustness import (
    ChangeEffect,
    list_missing_inputs,
    list_post_changes,
    measure_robustness,
)
from miko_clf.evaluate.analysis.transfer import measure_transfer
from miko_clf.evaluate.bootstrap import bootstrap_paired_difference, bootstrap_scores
from miko_clf.evaluate.predictions import (
    Predictor,
    SystemPredictions,
    list_questions,
    predict_system,
)
from tests.support.audited_posts import draw_picture
from tests.support.command_line import assert_one_line_error, run_command

LINE = "the quick brown fox jumps over the lazy dog " * 20
PICTURE = Path("picture.png")


def written(**fields: str) -> list[Post]:
    return [Post(**{"id": f"p{i}", "text": LINE, **fields}) for i in range(8)]


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_typos_lose_or_swap_about_the_share_of_letters(share: float) -> None:
    for post in robustness.add_typos(written(), share):
        assert post.text is not None
        assert sorted(set(post.text)) == sorted(set(LINE))
        letters = sum(map(str.isalpha, LINE))
        lost = letters - sum(map(str.isalpha, post.text))
        assert lost / letters == pytest.approx(share / 2, abs=0.03)
        assert post.text != LINE


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_share_of_words_is_disguised_and_folding_gives_the_text_back(share: float) -> None:
    for post in robustness.disguise_words(written(), share):
        words, plain = str(post.text).split(), LINE.split()
        hidden = [not word.isascii() for word in words]
        assert np.mean(hidden) == pytest.approx(share, abs=0.08)
        assert fold_disguises(str(post.text)) == LINE
        assert len(words) == len(plain)


def test_words_of_other_scripts_and_of_two_letters_are_not_disguised() -> None:
    post = Post(id="a", text="он is naïve 😂 42")
    assert robustness.disguise_words([post], 1.0) == [post]


def test_a_change_depends_on_the_seed_and_the_id_and_keeps_label_and_id() -> None:
    rows = written(label="harmful", description=LINE)
    for change in (
        robustness.add_typos,
        robustness.disguise_words,
        robustness.drop_words,
        robustness.shuffle_words,
    ):
        once, again, other = (change(rows, 0.2, seed=seed) for seed in (1, 1, 2))
        assert once == again
        assert once != other
        assert once[0].text != once[1].text or once[0].description != once[1].description
        assert change(rows[3:4], 0.2, seed=1) == once[3:4]
        assert [(p.id, p.label) for p in once] == [(p.id, p.label) for p in rows]


def test_a_text_that_would_vanish_stays() -> None:
    assert robustness.add_typos([Post(id="a", text="a")], 1.0)[0].text == "a"
    rows = [Post(id="a", text="x", description="one two"), Post(id="b", text="y")]
    assert robustness.drop_words(rows, 1.0) == rows


def test_words_are_dropped_or_change_places_and_none_is_added() -> None:
    words = " ".join(f"w{i}" for i in range(200))
    rows = [Post(id="a", text="x", description=words)]
    kept = (robustness.drop_words(rows, 0.5)[0].description or "").split()
    assert 70 < len(kept) < 130
    assert kept == [word for word in words.split() if word in set(kept)]
    mixed = (robustness.shuffle_words(rows, 0.5)[0].description or "").split()
    assert sorted(mixed) == sorted(words.split())
    moved = sum(a != b for a, b in zip(mixed, words.split(), strict=True))
    assert 80 < moved <= 100


def test_every_description_comes_from_another_post() -> None:
    rows = [Post(id=f"{i}", text="x", description=f"scene {i}") for i in range(9)]
    rows.append(Post(id="bare", text="x"))
    found = robustness.swap_descriptions(rows)
    assert sorted(p.description or "" for p in found) == sorted(p.description or "" for p in rows)
    assert all(a.description != b.description for a, b in zip(found[:9], rows, strict=False))
    assert found[9] == rows[9]


def test_pictures_are_worse_and_as_large_as_before(tmp_path: Path) -> None:
    path = tmp_path / PICTURE
    draw_picture(1, (96, 72)).save(path)
    rows = [Post(id="a", image=path), Post(id="b", text="no picture")]
    before = np.asarray(decode_image(path), dtype=float)

    def apart(found: list[Post]) -> float:
        assert found[1] == rows[1]
        image = found[0].image
        assert isinstance(image, bytes)
        return float(np.abs(np.asarray(decode_image(image), dtype=float) - before).mean())

    light, heavy = (apart(robustness.compress_images(rows, quality)) for quality in (30, 10))
    assert 0 < light < heavy
    assert 0 < apart(robustness.rescale_images(rows, 2)) < apart(robustness.rescale_images(rows, 4))
    kinds = [
        robustness.compress_images(rows, 30)[0].image,
        robustness.rescale_images(rows, 2)[0].image,
    ]
    assert [Image.open(io.BytesIO(k)).format for k in kinds if isinstance(k, bytes)] == [
        "JPEG",
        "PNG",
    ]


@pytest.fixture(scope="module")
def seen(bundle: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> SystemPredictions:
    """The small system on its validation posts, with features kept."""
    opened, path = bundles.load_bundle(bundle), world / "sarcasm"
    posts = open_folder(path).read("val")
    one = list_questions(posts, [], opened.questions, path, "val")[0]
    cache = tmp_path_factory.mktemp("cache")
    found = predict_system(opened, Predictor(opened, one.posts, cache), one.here, [], cache)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def table(seen: SystemPredictions) -> list[ChangeEffect]:
    return measure_robustness(seen, num_resamples=100)


def test_every_pattern_of_missing_inputs_and_every_change_is_in_the_table(
    seen: SystemPredictions, table: list[ChangeEffect]
) -> None:
    assert list(list_missing_inputs(seen)) == [
        ("image",),
        ("text",),
        ("intention",),
        ("image", "text"),
        ("image", "intention"),
        ("text", "intention"),
    ]
    assert [(row.change, row.level) for row in table if row.change != "missing"] == [
        ("none", ""),
        ("typos", "5%"),
        ("typos", "10%"),
        ("disguised", "20%"),
        ("disguised", "50%"),
        ("JPEG quality", "30"),
        ("JPEG quality", "10"),
        ("rescaled", "1/2"),
        ("rescaled", "1/4"),
    ]
    assert len(table) == 15
    assert {row.posts for row in table} == {len(seen.posts)}


def test_the_unchanged_row_is_that_of_the_report_and_differs_by_nothing(
    seen: SystemPredictions, table: list[ChangeEffect]
) -> None:
    told = bootstrap_scores(
        seen.probabilities,
        seen.truth,
        positive=1,
        threshold=seen.threshold,
        groups=seen.groups,
        num_resamples=100,
    )
    for name, found in table[0].metrics.items():
        assert found == pytest.approx(told[name], abs=1e-6), name
        assert tuple(table[0].difference[name]) == (0, 0, 0)


def test_a_difference_is_the_paired_one_of_the_report(
    seen: SystemPredictions, table: list[ChangeEffect]
) -> None:
    row = next(row for row in table if (row.change, row.level) == ("missing", "image"))
    told = bootstrap_paired_difference(
        seen.predictor.probabilities(seen.arm, without=("image",)),
        seen.probabilities,
        seen.truth,
        positive=1,
        threshold=seen.threshold,
        groups=seen.groups,
        num_resamples=100,
        metric="auroc",
    )
    assert row.difference["auroc"] == pytest.approx(told, abs=1e-6)


def test_features_of_changed_posts_are_kept_nowhere(seen: SystemPredictions) -> None:
    assert seen.cache is not None
    before = {p: p.stat().st_size for p in seen.cache.rglob("*") if p.is_file()}
    measure_robustness(seen, num_resamples=2)
    after = {p: p.stat().st_size for p in seen.cache.rglob("*") if p.is_file()}
    assert after == before
    assert seen.predictor.feed.posts == seen.posts


def test_the_table_is_the_same_without_a_cache(
    seen: SystemPredictions, table: list[ChangeEffect]
) -> None:
    bare = measure_robustness(replace(seen, cache=None), num_resamples=100)
    for one, other in zip(bare, table, strict=True):
        assert one.metrics["auroc"].value == pytest.approx(other.metrics["auroc"].value, abs=0.02)


def test_a_description_that_is_read_is_made_worse_too(seen: SystemPredictions) -> None:
    recipe = seen.opened.recipe.model_copy(update={"inputs": ("text", "description")})
    names = [
        one.name
        for one in list_post_changes(replace(seen, opened=replace(seen.opened, recipe=recipe)), 0)
    ]
    assert names == [
        *["typos"] * 2,
        *["disguised"] * 2,
        *["description, words dropped"] * 2,
        *["description, words shuffled"] * 2,
        "description",
    ]


@pytest.fixture
def foreign(world: Path, tmp_path: Path) -> Path:
    """A folder of posts from elsewhere with the same labels, and no train split."""
    lines = (world / "sarcasm" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    folder = tmp_path / "foreign"
    folder.mkdir()
    keys = ("id", "text", "label")
    lines = [json.dumps({key: row[key] for key in keys}) + "\n" for row in rows if row.get("text")]
    (folder / "val.jsonl").write_text("".join(lines))
    return folder


def test_a_cell_is_what_the_system_scores_on_that_data(
    bundle: Path, world: Path, foreign: Path, seen: SystemPredictions
) -> None:
    folders = [open_folder(world / "sarcasm"), open_folder(foreign)]
    found = measure_transfer([bundle], folders, "val", None, metric="auroc", num_resamples=50)
    assert [(c.train, c.test, c.home) for c in found.cells] == [
        ("small", "sarcasm", True),
        ("small", "foreign", False),
    ]
    told = bootstrap_scores(
        seen.probabilities,
        seen.truth,
        positive=1,
        threshold=seen.threshold,
        groups=seen.groups,
        num_resamples=50,
    )
    assert found.cells[0].value == pytest.approx(told["auroc"], abs=0.01)
    assert json.loads(json.dumps(found.as_json()))["cells"][0]["value"]["low"] is not None


def test_a_look_at_the_test_posts_is_counted_in_the_bundle(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(bundle, tmp_path / "copied")
    folders = [open_folder(world / "sarcasm")]
    before = bundles.load_bundle(copied).manifest.get("openings", [])
    for split, more in (("val", 0), ("test", 1)):
        measure_transfer([copied], folders, split, None, num_resamples=5, command="look")
        assert len(bundles.load_bundle(copied).manifest.get("openings", [])) == len(before) + more


def test_data_of_other_labels_is_one_line_that_names_the_bundle_and_the_way_out(
    bundle: Path, world: Path
) -> None:
    folders = [open_folder(world / "sarcasm"), open_folder(world / "harm")]
    with pytest.raises(PostError, match=r"small cannot be tried.*harm.*--label-map"):
        measure_transfer([bundle], folders, "val", None, num_resamples=5)


def test_names_that_tell_nothing_apart_are_refused(bundle: Path, world: Path) -> None:
    data = open_folder(world / "sarcasm")
    with pytest.raises(BundleError, match="two bundles are called small"):
        measure_transfer([bundle, bundle], [data], "val", None)
    with pytest.raises(PostError, match="given twice"):
        measure_transfer([bundle], [data, data], "val", None)


def test_cross_prints_a_table_and_writes_it(
    bundle: Path, world: Path, foreign: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [bundle, "--data", world / "sarcasm", "--data", foreign, "--out", out, "--no-cache"]
    ended = run_command("cross", *words, "--resamples", 20)
    assert ended.code == 0, ended
    assert "small" in ended.out
    assert "foreign" in ended.out
    assert "*" in ended.out
    found = json.loads((out / "matrix.json").read_text())
    assert [cell["test"] for cell in found["cells"]] == ["sarcasm", "foreign"]
    assert found["metric"] == "macro_f1"
    again = run_command("cross", *words, "--resamples", 20, "--json")
    assert json.loads(again.out)["cells"] == found["cells"]
    for cell in found["cells"]:
        assert f"{cell['value']['value']:.3f}" in ended.out


def test_cross_without_data_is_wrong_usage_and_with_other_labels_one_line(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    assert run_command("cross", bundle).code == 2
    ended = run_command("cross", bundle, "--data", world / "harm", "--out", tmp_path, "--no-cache")
    assert_one_line_error(ended, "cannot be tried", "--label-map")
