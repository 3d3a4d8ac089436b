"""Towers from transformers: vision models, text encoders, and both halves of CLIP and SigLIP."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

from miko_clf.data.pixels import Preprocess
from miko_clf.data.words import Words
from miko_clf.encode.towers import ImageTower, Plan, TextTower
from miko_clf.errors import EncoderError

RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as processors store them
logging.disable_progress_bar()


class VisionTrunk(nn.Module):
    """A vision model; its tokens are `last_hidden_state`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, "vision_model", model)

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the last hidden state; a feature map becomes one token a cell."""
        states: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


class TextTrunk(nn.Module):
    """A text encoder, or the text half of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self.model = getattr(model, "text_model", model)
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # tokens are read, the pooled state is not

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the last hidden state."""
        output = self.model(input_ids=ids, attention_mask=present.long())
        states: Tensor = output.last_hidden_state
        return states


def image_tower(name: str) -> ImageTower:
    """Return the image tower of a checkpoint by folder or hub name."""
    model = AutoModel.from_pretrained(name, dtype=torch.float32)
    preprocess = _preprocess(AutoImageProcessor.from_pretrained(name), name)
    plan = {
        "source": "transformers",
        "config": model.config.to_dict(),
        "preprocess": preprocess.model_dump(mode="json"),
    }
    return ImageTower(VisionTrunk(model), preprocess, plan)


def text_tower(name: str) -> TextTower:
    """Return the text tower of a checkpoint, with its tokenizer."""
    model = AutoModel.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(name)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise EncoderError(f"{name}: its tokenizer has no tokenizer.json form")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    text_config = getattr(model.config, "text_config", model.config)
    positions = getattr(text_config, "max_position_embeddings", None) or 10**6
    limit = min(positions, tokenizer.model_max_length, 10**6)
    plan = {"source": "transformers", "config": model.config.to_dict(), "limit": limit}
    return TextTower(TextTrunk(model), Words(backend, pad_id), limit, plan)


def rebuild_image(plan: Plan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(_config(plan))
    return ImageTower(VisionTrunk(model), Preprocess(**plan["preprocess"]), plan)


def rebuild_text(plan: Plan, words: Words) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(_config(plan))
    return TextTower(TextTrunk(model), words, plan["limit"], plan)


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
            "crop_fraction": height / short if crops and short else 1.0,
            "mean": tuple(processor.image_mean),
            "std": tuple(processor.image_std),
        }
    )


def _shape(size: dict[str, int], short: int | None) -> tuple[int, int]:
    edge = size.get("shortest_edge") or short or 0
    return size.get("height") or edge, size.get("width") or edge
