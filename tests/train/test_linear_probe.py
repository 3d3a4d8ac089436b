"""The linear probe: torch says what scikit-learn fitted, and val is learned from where asked."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.preprocess import Preparation
from miko_clf.data.tokenizer import read_tokenizer
from miko_clf.errors import MikoError
from miko_clf.evaluate.evaluator import evaluate_bundles
from miko_clf.evaluate.predictions import Predictor
from miko_clf.fuse.build import build_model, build_preparation, rebuild_model
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.cross_attention import CrossAttentionFusion
from miko_clf.fuse.linear_probe import LinearProbe
from miko_clf.pipeline import fit
from miko_clf.recipe.schema import Recipe, parse_recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.linear_probe import (
    SHARES,
    fit_probe_weights,
    get_probe,
    list_problems,
    select_share,
)
from miko_clf.train.predict import iterate_batches, predict_logits
from tests.support import checkpoints

SUBJECTS = ("cake", "beach", "tent", "boat", "snow", "plant")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "bert"
    torch.manual_seed(0)
    checkpoints.bert(folder)
    return folder


def make_row(split: str, number: int, rng: np.random.Generator) -> dict:
    harmful = bool(rng.random() < 0.4)
    words = "burnt" if harmful != (rng.random() < 0.15) else "lovely"
    text = f"a {words} {SUBJECTS[number % 6]} {' '.join(rng.choice(SUBJECTS, 2))} {number}"
    row = {"id": f"{split}-{number}", "text": text, "label": "bad" if harmful else "good"}
    if number % 3:
        row["intentions"] = [{"relation": "xIntent", "text": f"to show a {words} thing"}]
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("posts"), np.random.default_rng(0)
    for split, count in (("train", 90), ("val", 40), ("test", 40)):
        rows = [make_row(split, number, rng) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_recipe(encoder: Path, **changes: object) -> Recipe:
    values = {
        "name": "probe",
        "inputs": ["text", "intention"],
        "text": {"source": "transformers", "name": str(encoder), "max_length": 16},
        "fusion": {"kind": "pooled", "solver": "lbfgs", "words": True},
    }
    return parse_recipe({**values, **changes}, "a recipe")


def make_dataset(recipe: Recipe, folder: Path) -> tuple[MikoClassifier, EncodedDataset]:
    posts = open_folder(folder).read("train")
    questions = find_questions(posts)
    model = build_model(recipe, questions.names, [])
    assert isinstance(model, MikoClassifier)
    preparation = build_preparation(recipe, model)
    return model, EncodedDataset(posts, questions, model, preparation, split="train")


def read_vectors(model: MikoClassifier, dataset: EncodedDataset) -> dict[str, np.ndarray]:
    """Return the vector of each input, NaN where a post lacks it."""
    probe, rows, parts = model.fusion, [], []
    assert isinstance(probe, LinearProbe)
    with torch.inference_mode():
        for indices, batch in iterate_batches(model, dataset):
            rows += indices
            parts.append(
                {
                    name: torch.where(here[:, None], vector, torch.nan).double().numpy()
                    for name, (vector, here) in probe.pool(model.encode(batch)).items()
                }
            )
    order = np.argsort(rows)
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}


def test_a_probe_of_vectors_scores_as_scikit_learn_on_z_scored_vectors(
    encoder: Path, folder: Path
) -> None:
    recipe = make_recipe(encoder, fusion={"kind": "pooled", "solver": "lbfgs"})
    model, dataset = make_dataset(recipe, folder)
    [chosen] = fit_probe_weights(recipe, model, dataset)
    vectors = np.concatenate(list(read_vectors(model, dataset).values()), axis=1)
    scored = (vectors - np.nanmean(vectors, 0)) / np.nanstd(vectors, 0)
    scored = np.nan_to_num(scored, nan=0.0)  # the mean stands in for what a post lacks
    own = LogisticRegression(
        C=chosen.strengths["vectors"], class_weight="balanced", max_iter=2000, tol=1e-8
    ).fit(scored, dataset.labels)
    logits = predict_logits(model, dataset, "with")
    margin = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(margin, own.decision_function(scored), atol=5e-3)


def test_words_score_in_torch_as_their_table_does_in_scipy(encoder: Path, folder: Path) -> None:
    recipe = make_recipe(encoder)
    model, dataset = make_dataset(recipe, folder)
    [chosen] = fit_probe_weights(recipe, model, dataset)
    assert set(chosen.shares) == {"vectors", "words"}
    assert isinstance(model.fusion, LinearProbe)
    words = model.fusion.words
    assert words is not None
    if not words.weight.any():  # whether they count beside a random tower's vectors hangs on it
        torch.nn.init.normal_(words.weight, generator=torch.Generator().manual_seed(0))
    [(rows, batch)] = iterate_batches(model, dataset, batch_size=len(dataset))
    said = words(batch).detach().double().numpy()
    idf, weight = words.idf.double().numpy(), words.weight.double().numpy()
    for place, row in enumerate(rows):
        counts = np.zeros(len(idf))
        texts = [dataset.texts["text"][row], *(dataset.intentions or [])[row]]
        for number, ids in enumerate(texts):
            first = min(number, 1) * (len(idf) // 2)  # every intention is of one table
            np.add.at(counts, first + np.array(ids), 1)
            pairs = [(a * 40_503 + b * 65_599) % 2**17 for a, b in pairwise(ids)]
            np.add.at(counts, first + words.vocabulary + np.array(pairs, dtype=int), 1)
        wanted = counts * idf / np.sqrt((counts * idf**2).sum()) @ weight
        np.testing.assert_allclose(said[place], wanted + words.bias.numpy(), atol=1e-5)


def test_a_post_without_intentions_scores_by_its_text_alone(encoder: Path, folder: Path) -> None:
    recipe = make_recipe(encoder, fusion={"kind": "pooled", "solver": "lbfgs"})
    model, dataset = make_dataset(recipe, folder)
    fit_probe_weights(recipe, model, dataset)
    probe = model.fusion
    assert isinstance(probe, LinearProbe)
    bare = [place for place, post in enumerate(dataset.posts) if not post.intentions]
    batch = dataset.batch(bare)
    with torch.inference_mode():
        vector, _ = probe.pool(model.encode(batch))["text"]
        width = probe.widths["text"]
        constant = probe.head.weight[:, width:] @ probe.intention_mean + probe.head.bias
        wanted = vector @ probe.head.weight[:, :width].T + constant
        torch.testing.assert_close(model(batch).logits, wanted, atol=1e-5, rtol=1e-4)


def test_every_label_of_every_question_is_a_problem_in_the_order_of_the_logits(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    rng, rows = np.random.default_rng(0), []
    for number in range(80):
        row = make_row("train", number, rng)
        tags = [name for name in ("cake", "beach") if name in row["text"]]
        label: dict = {"kind": row["label"]}
        row["label"] = label | ({"tags": tags} if number % 5 else {})
        rows.append(row)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = make_recipe(encoder)
    model, dataset = make_dataset(recipe, tmp_path)
    fits = fit_probe_weights(recipe, model, dataset)
    assert [problem.name for problem in list_problems(dataset)] == ["kind", "beach", "cake"]
    logits = predict_logits(model, dataset, "with")
    has_cake = np.array(["cake" in row["text"] for row in rows])
    assert logits[has_cake, 3].mean() > logits[~has_cake, 3].mean() + 1
    assert [fit.problem for fit in fits] == ["kind", "beach", "cake"]


def test_a_refitted_bundle_learned_from_val_and_is_not_asked_about_it(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    plain = fit(make_recipe(encoder), folder, tmp_path / "plain")
    refitted = make_recipe(encoder, task={"refit": True})
    twice = fit(refitted, folder, tmp_path / "twice")
    held = fit(refitted, folder, tmp_path / "held", hold_val=True)
    val = open_folder(folder).read("val")

    def score(path: Path) -> np.ndarray:
        return Predictor(bundles.load_bundle(path), val, None).probabilities("with")

    np.testing.assert_array_equal(score(held), score(plain))
    assert np.abs(score(twice) - score(plain)).max() > 1e-4
    assert bundles.load_bundle(twice).manifest["learned_from"] == ["train", "val"]
    # The card of what learned from val has the figures of before, and says so.
    cards = [(path / "README.md").read_text() for path in (twice, held)]
    tables = [re.findall(r"^\|.*\|$", card.partition("measures")[2], re.M) for card in cards]
    assert tables[0] == tables[1]
    assert "once more, on train and" in cards[0]
    assert "once more" not in cards[1]
    assert "chose the epoch" not in cards[0] + cards[1]
    with pytest.raises(MikoError, match="learned from val"):
        evaluate_bundles(
            [twice], open_folder(folder), "val", cache=None, num_resamples=10, command=""
        )


def test_the_log_of_a_probe_tells_what_was_tried(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    path = fit(make_recipe(encoder), folder, tmp_path / "probe")
    [row] = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    [chosen] = row["fits"]
    assert set(chosen["strengths"]) == {"vectors", "words"}
    for name, strength in chosen["strengths"].items():
        losses = {float(c): loss for c, loss in chosen["losses"][name].items()}
        assert min(losses, key=losses.__getitem__) == pytest.approx(strength, rel=1e-4)
    assert 0 <= row["validation"]["auroc"] <= 1


def test_a_few_posts_are_fitted_at_the_usual_strength(encoder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        rows = [
            {"id": f"{split}-{n}", "text": f"{word} cake", "label": label}
            for n, (word, label) in enumerate([("burnt", "bad"), ("lovely", "good")])
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = fit(make_recipe(encoder, inputs=["text"]), tmp_path, tmp_path / "out")
    row = json.loads((path / "metrics.jsonl").read_text())
    assert row["fits"][0]["losses"] == {}
    assert row["fits"][0]["shares"] == {"vectors": 1.0, "words": 0.0}


def make_reader(encoder: Path, **changes: object) -> Recipe:
    fusion = {"width": 16, "layers": 1, "slots": False, "base": "linear", "words": True}
    values: dict = {
        "fusion": fusion,
        "intention": {"read": "vectors"},
        "task": {"epochs": 1},
    }
    return make_recipe(encoder, **{**values, **changes})


def test_a_reader_and_its_base_are_mixed_by_share(encoder: Path, folder: Path) -> None:
    recipe = make_reader(encoder)
    model, dataset = make_dataset(recipe, folder)
    fit_probe_weights(recipe, model, dataset)
    fusion = model.fusion
    assert isinstance(fusion, CrossAttentionFusion)
    assert fusion.base is not None
    logits = {}
    for share in (0.0, 0.25, 1.0):
        fusion.share.fill_(share)
        logits[share] = predict_logits(model, dataset, "with")
    assert np.abs(logits[0.0] - logits[1.0]).max() > 0.1
    np.testing.assert_allclose(logits[0.25], 0.75 * logits[0.0] + 0.25 * logits[1.0], atol=1e-5)
    with torch.inference_mode():
        [(rows, batch)] = iterate_batches(model, dataset, batch_size=len(dataset))
        base = fusion.base(model.encode(batch)).logits.double().numpy()
    np.testing.assert_allclose(logits[0.0][rows], base, atol=1e-5)


def test_the_base_of_a_reader_is_the_probe_that_stands_alone(encoder: Path, folder: Path) -> None:
    states = []
    for recipe in (make_reader(encoder), make_recipe(encoder)):
        model, dataset = make_dataset(recipe, folder)
        fit_probe_weights(recipe, model, dataset)
        states.append(get_probe(model).state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_a_reader_on_a_base_is_trained_and_read_back(
    encoder: Path, folder: Path, tmp_path: Path
) -> None:
    path = fit(make_reader(encoder), folder, tmp_path / "out")
    opened = bundles.load_bundle(path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    [chosen] = [row for row in rows if row["stage"] == "probe"]
    assert set(chosen["losses_of_shares"]) == {"0", "0.25", "0.5", "0.75", "1"}
    assert chosen["share"] in SHARES
    words = read_tokenizer(opened.tokenizer, Preparation.model_validate(opened.preprocess))
    model = rebuild_model(path, opened.recipe, opened.questions.names, words)
    assert float(model.fusion.share) in SHARES
    test = open_folder(folder).read("test")
    assert np.isfinite(Predictor(opened, test, None).probabilities("with")).all()


def test_a_reader_counts_only_where_it_helps_beyond_one_standard_error() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.9, 200)
    noise = rng.normal(0, 0.3, 200)
    better = {0.0: base, 0.5: base - 0.1 + noise / 10, 1.0: base - 0.05}
    assert select_share(better) == 0.5
    lucky = {0.0: base, 0.5: base - 0.005 + noise - noise.mean(), 1.0: base + 0.1}
    assert select_share(lucky) == 0.0
    assert select_share({0.0: base, 1.0: base + 0.1}) == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fusion": {"kind": "pooled", "solver": "lbfgs", "hidden": 8}}, "hidden: 0"),
        ({"fusion": {"kind": "pooled", "words": True}}, "solver: lbfgs"),
        ({"task": {"label_smoothing": 0.1}}, "label_smoothing"),
        ({"task": {"retrieval": {}}}, "task.retrieval"),
        ({"text": {"source": "transformers", "name": "x", "unfreeze": 1}}, "text.frozen: true"),
        ({"fusion": {"words": True}}, "base: linear"),
        ({"fusion": {}, "task": {"refit": True}}, "solver: lbfgs"),
    ],
)
def test_what_a_closed_fit_cannot_do_is_refused(encoder: Path, changes: dict, said: str) -> None:
    with pytest.raises(MikoError, match=said):
        make_recipe(encoder, **changes)
