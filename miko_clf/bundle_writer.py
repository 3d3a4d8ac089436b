"""The folder that a run works in, and the bundle that it becomes."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from miko_clf import bundle, manifest
from miko_clf.bundle import Calibration, dump_calibrations
from miko_clf.data.contents import mark_contents
from miko_clf.data.ocr import describe_ocr
from miko_clf.data.post import Post
from miko_clf.data.preprocess import Preparation, digest_golden_image
from miko_clf.data.splits import PostSplits
from miko_clf.encode.build import write_plans
from miko_clf.errors import BundleError
from miko_clf.evaluate.model_card import write_model_card
from miko_clf.fuse.build import Model
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe, dump_recipe
from miko_clf.train.dataloader import EncodedDataset


@contextmanager
def hold_output(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give the folder where a run keeps its checkpoints until the bundle is written at `out`.

    No other process works there meanwhile. Raises `BundleError` where `out` is not to be replaced.
    """
    if out.exists():
        if not overwrite:
            raise BundleError(f"{out} exists; name another --out, or add --overwrite")
        if not (out / manifest.MANIFEST_FILE).is_file():
            raise BundleError(f"{out} is not a bundle, so --overwrite leaves it alone")
    work = out.with_name(f"{out.name}.training")
    with manifest.lock_folder(work):
        yield work


def describe_run(
    recipe: Recipe,
    data: PostSplits,
    posts: Mapping[str, Sequence[Post]],
    questions: Questions,
    leaks: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what decides the outcome of a run, as the manifest keeps it."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "labels": questions.to_json(),
        "data": {split: data.fingerprint(split) for split in posts},
        "rows": {split: len(part) for split, part in posts.items()},
        "versions": manifest.collect_versions(),
        "leaks": list(leaks),
        **describe_ocr(data, posts),
    }


def write_bundle(
    out: Path,
    recipe: Recipe,
    model: Model,
    preparation: Preparation,
    train: EncodedDataset,
    val: EncodedDataset,
    calibrations: Sequence[Calibration],
    validated: Mapping[str, np.ndarray],
    facts: dict[str, Any],
    *,
    metrics: Path,
) -> None:
    """Write the bundle of a trained model, whole or not at all; the model loses its decoder.

    `validated` is what it said of val, by arm, before it may have learned from val too.
    """
    questions = val.truth.questions
    golden = digest_golden_image(preparation.image) if preparation.image else None
    preprocess = preparation.model_copy(update={"golden": golden}).model_dump(mode="json")
    model.decoder = None
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with manifest.write_atomically(out) as folder:
        folder.mkdir()
        (folder / bundle.RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
        _dump_json(folder / bundle.LABELS_FILE, questions.to_json())
        _dump_json(folder / bundle.PREPROCESS_FILE, preprocess)
        _dump_json(folder / bundle.CALIBRATION_FILE, dump_calibrations(questions, calibrations))
        if val.words is not None:
            val.words.write(folder / bundle.TOKENIZER_FILE)
        write_plans(folder / bundle.TOWERS_FILE, model.image_tower, model.text_tower)
        save_file(state, folder / bundle.WEIGHTS_FILE)
        shutil.copy(metrics, folder / bundle.METRICS_FILE)
        contents = {"train": mark_contents(train.posts), "val": mark_contents(val.posts)}
        manifest.write_json(folder / bundle.CONTENTS_FILE, contents)
        write_model_card(folder, recipe, model, val, calibrations, validated, facts)
        manifest.write_manifest(folder, facts)


def _dump_json(path: Path, value: Any) -> None:
    # Not manifest.write_json: bundles have always had these bytes, of indent 1 and ASCII escapes.
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
