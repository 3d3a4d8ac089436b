"""Towers from transformers: vision models, text encoders, and both halves of CLIP and SigLIP."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import cached_file, logging

from miko_clf.data.pixels import Preprocess
from miko_clf.data.words import Words
from miko_clf.encode.sight import compare
from miko_clf.encode.towers import ImageTower, Plan, Pool, TextTower
from miko_clf.encode.transformers_trunks import PADDED, TextTrunk, VisionTrunk
from miko_clf.errors import EncoderError

RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as processors store them
LONGEST = 10**6  # words of a text that an encoder without positions may read
logging.disable_progress_bar()


def image_tower(name: str, output: str = "tokens") -> ImageTower:
    """Return the image tower of a checkpoint by folder or hub name.

    Raises `EncoderError` where the checkpoint lacks weights, or where its own processor sees
    pictures in another way than this project does.
    """
    model, absent = _load(name)
    processor = AutoImageProcessor.from_pretrained(name)
    preprocess = _preprocess(processor, name)
    has_pooler = not any("pooler" in key for key in absent)
    plan = {
        "source": "transformers",
        "config": model.config.to_dict(),
        "preprocess": preprocess.model_dump(mode="json"),
        "output": output,
        "pooler": has_pooler,
    }
    trunk = VisionTrunk(model, output, has_pooler)
    _check_whole(name, model, trunk, absent)
    compare(preprocess, lambda image: _seen(processor, image), name)
    return ImageTower(trunk, preprocess, plan)


def text_tower(name: str, output: str = "tokens") -> TextTower:
    """Return the text tower of a checkpoint, with its tokenizer.

    Raises `EncoderError` where the checkpoint lacks weights, or a tokenizer.json.
    """
    model, absent = _load(name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise EncoderError(f"{name}: its tokenizer has no tokenizer.json form")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    trunk = TextTrunk(model, output, pad_id)
    _check_whole(name, model, trunk, absent)
    limit = min(_positions(trunk.model), tokenizer.model_max_length, LONGEST)
    pool = _pool(name, model.config, tokenizer, trunk)
    plan = {
        "source": "transformers",
        "config": model.config.to_dict(),
        "limit": limit,
        "output": output,
        "pool": pool,
    }
    return TextTower(trunk, Words(backend, pad_id), limit, plan, pool)


def rebuild_image(plan: Plan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(_config(plan))
    trunk = VisionTrunk(model, plan["output"], plan["pooler"])
    return ImageTower(trunk, Preprocess(**plan["preprocess"]), plan)


def rebuild_text(plan: Plan, words: Words) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(_config(plan))
    trunk = TextTrunk(model, plan["output"], words.pad_id)
    return TextTower(trunk, words, plan["limit"], plan, plan["pool"])


def _seen(processor: Any, image: Image.Image) -> NDArray[np.float32]:
    found: NDArray[np.float32] = processor(image, return_tensors="pt")["pixel_values"][0].numpy()
    return found


def _load(name: str) -> tuple[Any, set[str]]:
    """Return the model, and the parameters that its checkpoint lacks."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # what its report says of weights is judged here
    try:
        model, facts = AutoModel.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True
        )
    finally:
        logging.set_verbosity(before)
    return model, set(facts["missing_keys"])


def _check_whole(name: str, model: nn.Module, trunk: nn.Module, absent: set[str]) -> None:
    """Raise where weights that the trunk uses are not those of the checkpoint."""
    used = {id(parameter) for parameter in trunk.parameters()}
    made_up = [
        key for key, value in model.named_parameters() if key in absent and id(value) in used
    ]
    if made_up:
        raise EncoderError(
            f"{name}: its weights lack {len(made_up)} parameters, {made_up[0]} first; "
            "a tower with random weights in it is not built"
        )


def _positions(model: Any) -> int:
    """Return how many words the model has positions for.

    Families after RoBERTa count from behind the padding index, and read that many fewer.
    """
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    unused = padding + 1 if padding is not None else 0
    positions = getattr(model.config, "max_position_embeddings", None) or LONGEST
    return int(positions) - unused


def _pool(name: str, config: Any, tokenizer: Any, trunk: TextTrunk) -> Pool:
    """Return how an encoder's states become one: as its files say, or by its kind.

    A language model with a mask was tuned on its first token; an encoder saved bare, as
    sentence embedders are, on the mean.
    """
    if trunk.kind in ("clip_text_model", *PADDED):
        return "last"
    try:
        path = cached_file(name, "1_Pooling/config.json")  # of sentence-transformers
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        kinds: dict[str, Pool] = {"cls_token": "first", "lasttoken": "last"}
        return next((p for k, p in kinds.items() if said.get(f"pooling_mode_{k}")), "mean")
    except OSError:
        made = (getattr(config, "architectures", None) or [""])[0]
        is_masked = made.endswith(("ForMaskedLM", "ForPreTraining"))
        return "first" if is_masked and tokenizer.cls_token_id is not None else "mean"


def _config(plan: Plan) -> Any:
    values = {key: value for key, value in plan["config"].items() if key != "dtype"}
    return AutoConfig.for_model(**values)


def _preprocess(processor: Any, name: str) -> Preprocess:
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    crops = bool(getattr(processor, "do_center_crop", False) and crop)
    resample = int(processor.resample)
    if resample not in RESAMPLE:
        raise EncoderError(f"{name}: its processor asks for resampling {resample}; known are 1-3")
    short = size.get("shortest_edge")
    height, width = _shape(crop if crops else size, short)
    return Preprocess.model_validate(
        {
            "height": height,
            "width": width,
            "resize": "crop" if crops and short else "squash",
            "resample": RESAMPLE[resample],
            "crop_fraction": _fraction(height, short) if crops and short else 1.0,
            "half": "down",
            "mean": tuple(processor.image_mean),
            "std": tuple(processor.image_std),
        }
    )


def _fraction(height: int, short: int) -> float:
    """Return the share of the short side that is kept, rounded so that it leads back to it."""
    share = height / short
    while int(height / share) < short:
        share = math.nextafter(share, 0)
    return share


def _shape(size: dict[str, int], short: int | None) -> tuple[int, int]:
    edge = size.get("shortest_edge") or short or 0
    return size.get("height") or edge, size.get("width") or edge
