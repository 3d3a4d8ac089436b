"""Both towers from open_clip."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from huggingface_hub import hf_hub_download
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from miko_clf.data.pixels import Preprocess
from miko_clf.data.words import Words
from miko_clf.encode.resolve import local
from miko_clf.encode.towers import ImageTower, Plan, TextTower
from miko_clf.errors import EncoderError

CONFIG = "open_clip_config.json"
RESIZE = {"shortest": "crop", "squash": "squash", "longest": "pad"}


class VisionTrunk(nn.Module):
    """The vision half; its tokens stand beside the pooled embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual
        self.visual.output_tokens = True

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the tokens."""
        tokens: Tensor = self.visual(pixels)[1]
        return tokens


class TextTrunk(nn.Module):
    """The text half; its attention is causal, so padding behind a text changes nothing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.text
        self.text.output_tokens = True
        self.context: int = model.context_length

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the tokens; the trunk takes its full context, which is cut off again."""
        length = ids.shape[1]
        whole = functional.pad(ids, (0, self.context - length))
        tokens: Tensor = self.text(whole)[1][:, :length]
        return tokens


def image_tower(name: str) -> ImageTower:
    """Return the image tower of `ARCHITECTURE:tag`, a folder, or a hub name."""
    model, config = _load(name)
    preprocess = _preprocess(model)
    plan = {
        "source": "open_clip",
        "config": config,
        "preprocess": preprocess.model_dump(mode="json"),
    }
    return ImageTower(VisionTrunk(model), preprocess, plan)


def text_tower(name: str) -> TextTower:
    """Return the text tower of `ARCHITECTURE:tag`, a folder, or a hub name."""
    model, config = _load(name)
    if "hf_model_name" in config["text_cfg"]:
        raise EncoderError(f"{name}: its text half comes from transformers; use that source")
    plan = {"source": "open_clip", "config": config}
    return TextTower(TextTrunk(model), Words(_tokenizer(), 0), model.context_length, plan)


def rebuild_image(plan: Plan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    trunk = VisionTrunk(_untrained(plan["config"]))
    return ImageTower(trunk, Preprocess(**plan["preprocess"]), plan)


def rebuild_text(plan: Plan, words: Words) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = _untrained(plan["config"])
    return TextTower(TextTrunk(model), words, model.context_length, plan)


def _load(name: str) -> tuple[Any, dict[str, Any]]:
    folder = local(name)
    architecture, _, tag = name.partition(":")
    if folder:
        config = json.loads((folder / CONFIG).read_text())["model_cfg"]
        address, pretrained = f"local-dir:{folder}", None
    elif tag:
        config = open_clip.get_model_config(architecture)
        address, pretrained = architecture, tag
    else:
        config = json.loads(Path(hf_hub_download(name, CONFIG)).read_text())["model_cfg"]
        address, pretrained = f"hf-hub:{name}", None
    model = open_clip.create_model(
        address, pretrained, force_custom_text=True, require_pretrained=True
    )
    return model, config


def _untrained(config: dict[str, Any]) -> Any:
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps({"model_cfg": config}))
        return open_clip.create_model(
            f"local-dir:{folder}", force_custom_text=True, load_weights=False
        )


def _preprocess(model: nn.Module) -> Preprocess:
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return Preprocess.model_validate(
        {
            "height": height,
            "width": width,
            "resize": RESIZE[config["resize_mode"]],
            "resample": config["interpolation"],
            "mean": config["mean"],
            "std": config["std"],
        }
    )


def _tokenizer() -> Tokenizer:
    own = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(own.bpe_ranks.items(), key=lambda item: item[1])]
    fast = CLIPTokenizer(vocab=own.encoder, merges=merges, **_specials(own))
    return Tokenizer.from_str(fast.backend_tokenizer.to_str())


def _specials(own: Any) -> dict[str, str]:
    start, end = own.decoder[own.sot_token_id], own.decoder[own.eot_token_id]
    return {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
