"""Both towers from open_clip."""

import json
import string
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from huggingface_hub import hf_hub_download
from tokenizers import Regex, Tokenizer, normalizers
from torch import nn
from transformers import CLIPTokenizer

from miko_clf.data.pixels import Preprocess
from miko_clf.data.words import Words
from miko_clf.encode.open_clip_trunks import TextTrunk, VisionTrunk
from miko_clf.encode.resolve import local
from miko_clf.encode.sight import compare
from miko_clf.encode.towers import ImageTower, Plan, TextTower
from miko_clf.errors import EncoderError

CONFIG = "open_clip_config.json"
RESIZE = {"shortest": "crop", "squash": "squash", "longest": "pad"}


def image_tower(name: str, output: str = "tokens") -> ImageTower:
    """Return the image tower of `ARCHITECTURE:tag`, a folder, or a hub name.

    Raises `EncoderError` where open_clip's own transform sees pictures in another way.
    """
    model, config, _ = _load(name)
    preprocess = _preprocess(model)
    settings = open_clip.get_model_preprocess_cfg(model)
    see = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**settings), is_train=False
    )
    compare(preprocess, lambda image: see(image).numpy(), name)
    plan = {
        "source": "open_clip",
        "config": config,
        "preprocess": preprocess.model_dump(mode="json"),
        "output": output,
    }
    return ImageTower(VisionTrunk(model, output), preprocess, plan)


def text_tower(name: str, output: str = "tokens") -> TextTower:
    """Return the text tower of `ARCHITECTURE:tag`, a folder, or a hub name."""
    model, config, address = _load(name)
    if "hf_model_name" in config["text_cfg"]:
        raise EncoderError(f"{name}: its text half comes from transformers; use that source")
    backend, pad_id = _tokenizer(address, name)
    plan = {"source": "open_clip", "config": config, "output": output}
    trunk = TextTrunk(model, output, pad_id)
    return TextTower(trunk, Words(backend, pad_id), model.context_length, plan, "last")


def rebuild_image(plan: Plan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    trunk = VisionTrunk(_untrained(plan["config"]), plan["output"])
    return ImageTower(trunk, Preprocess(**plan["preprocess"]), plan)


def rebuild_text(plan: Plan, words: Words) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = _untrained(plan["config"])
    trunk = TextTrunk(model, plan["output"], words.pad_id)
    return TextTower(trunk, words, model.context_length, plan, "last")


def _load(name: str) -> tuple[Any, dict[str, Any], str]:
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
    return model, config, address


def _untrained(config: dict[str, Any]) -> Any:
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps({"model_cfg": config}))
        return open_clip.create_model(
            f"local-dir:{folder}", force_custom_text=True, load_weights=False
        )


def _preprocess(model: nn.Module) -> Preprocess:
    config = open_clip.get_model_preprocess_cfg(model)
    size, fill = config["size"], config["fill_color"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return Preprocess.model_validate(
        {
            "height": height,
            "width": width,
            "resize": RESIZE[config["resize_mode"]],
            "resample": config["interpolation"],
            "mean": config["mean"],
            "std": config["std"],
            "ground": (fill,) * 3 if isinstance(fill, int) else tuple(fill),
        }
    )


def _tokenizer(address: str, name: str) -> tuple[Tokenizer, int]:
    """Return the tokenizer of a model as open_clip itself picks it, and its padding."""
    own = open_clip.get_tokenizer(address)
    if isinstance(own, open_clip.SimpleTokenizer):
        return Tokenizer.from_str(_of_clip()), 0
    fast = getattr(own.tokenizer, "backend_tokenizer", None)
    if fast is None or getattr(own, "strip_sep_token", False) or getattr(own, "tokenizer_mode", ""):
        raise EncoderError(f"{name}: its tokenizer has no tokenizer.json form")
    backend = Tokenizer.from_str(fast.to_str())
    if own.clean_fn("A_b!") == own.clean_fn("a b"):
        backend.normalizer = _bare(backend.normalizer)
    return backend, own.tokenizer.pad_token_id or 0


def _bare(normalizer: Any) -> normalizers.Sequence:
    """Return a normaliser that lowers letters and drops punctuation before the given one."""
    marks = "".join(mark for mark in string.punctuation if mark != "_")
    steps = [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex("[" + "".join(rf"\{mark}" for mark in marks) + "]"), ""),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    return normalizers.Sequence([*steps, normalizer] if normalizer is not None else steps)


@cache
def _of_clip() -> str:
    """Return CLIP's own tokenizer, the same for every model, as JSON."""
    own = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(own.bpe_ranks.items(), key=lambda item: item[1])]
    fast = CLIPTokenizer(vocab=own.encoder, merges=merges, **_specials(own))
    json_form: str = fast.backend_tokenizer.to_str()
    return json_form


def _specials(own: Any) -> dict[str, str]:
    start, end = own.decoder[own.sot_token_id], own.decoder[own.eot_token_id]
    return {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
