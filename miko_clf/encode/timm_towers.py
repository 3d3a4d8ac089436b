"""Image towers from timm."""

import json
from typing import Any

import timm
from jaxtyping import Float
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from miko_clf.data.preprocess import Preprocessing
from miko_clf.encode.preprocess_parity import check_preprocessing
from miko_clf.encode.tower import ImageTower, TowerPlan, find_encoder_folder
from miko_clf.errors import EncoderError

_RESIZE = {"squash": "squash", "center": "crop", "border": "pad"}
_RESAMPLE = ("bilinear", "bicubic", "lanczos")
_Blocks = list[list[nn.Module]]


class TimmTrunk(nn.Module):
    """A timm model without its head: a token a cell or patch, or its pooled embedding."""

    def __init__(self, model: Any, output: str = "tokens") -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self.splits = bool(self.list_blocks())

    def list_blocks(self) -> _Blocks:
        """Return the blocks, bottom to top; none for an architecture that is not known here."""
        return list_timm_blocks(self.model)

    def list_top(self) -> list[nn.Module]:
        """Return what stands on the blocks."""
        return list_timm_top(self.model)

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return what `forward_features` gives, as tokens, or the embedding as one token."""
        return self._finish(self.model.forward_features(pixels))

    def start(self, pixels: Tensor) -> Tensor:
        """Return what the first block reads."""
        return embed_timm_pixels(self.model, pixels)

    def climb(self, states: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        return run_timm_blocks(self.model, states, first, last)

    def finish(self, states: Tensor) -> Tensor:
        """Return the tokens, or the embedding as one token."""
        return self._finish(run_timm_top(self.model, states))

    def _finish(self, states: Tensor) -> Tensor:
        if self.output == "embedding":
            embedding: Tensor = self.model.forward_head(states, pre_logits=True)
            return embedding[:, None]
        return flatten_feature_map(states, self.channels_last)


def flatten_feature_map(states: Tensor, channels_last: bool = False) -> Tensor:
    """Return a feature map as one token a cell; tokens stay what they are."""
    if states.ndim != 4:
        return states
    return states.flatten(1, 2) if channels_last else states.flatten(2).transpose(1, 2)


def list_timm_blocks(model: Any) -> _Blocks:
    """Return the blocks of a timm model, bottom to top."""
    kind = type(model)
    if kind in (EfficientNet, MobileNetV3):
        return [[block] for stage in model.blocks for block in stage]
    if kind is ResNet:
        stages = (model.layer1, model.layer2, model.layer3, model.layer4)
        return [[block] for stage in stages for block in stage]
    if kind is ConvNeXt:
        return [block for stage in model.stages for block in _list_stage_blocks(stage)]
    if kind is VisionTransformer:
        return [[block] for block in model.blocks]
    return []


def embed_timm_pixels(model: Any, pixels: Tensor) -> Tensor:
    """Return what the first block of a timm model reads."""
    kind = type(model)
    if kind is VisionTransformer:
        states = model.patch_drop(model._pos_embed(model.patch_embed(pixels)))
        return model.norm_pre(states)
    names = {ResNet: ("conv1", "bn1", "act1", "maxpool"), ConvNeXt: ("stem",)}
    for name in names.get(kind, ("conv_stem", "bn1")):
        pixels = getattr(model, name)(pixels)
    return pixels


def run_timm_blocks(model: Any, states: Tensor, first: int, last: int | None) -> Tensor:
    """Return the states after some blocks of a timm model."""
    for block in list_timm_blocks(model)[first:last]:
        for module in block:
            states = module(states)
    return states


def list_timm_top(model: Any) -> list[nn.Module]:
    """Return what stands on the blocks of a timm model: a norm, or MobileNet's last convolution."""
    names = {EfficientNet: ("conv_head", "bn2"), ConvNeXt: ("norm_pre",)}
    names |= {VisionTransformer: ("norm",)}
    return [getattr(model, name) for name in names.get(type(model), ())]


def run_timm_top(model: Any, states: Tensor) -> Tensor:
    """Return what `forward_features` gives from the states after the last block."""
    for module in list_timm_top(model):
        states = module(states)
    return states


def load_timm_image_tower(name: str, output: str = "tokens") -> ImageTower:
    """Return the image tower of a checkpoint by folder or hub name.

    Raises `EncoderError` where timm's own transform sees pictures in another way.
    """
    folder = find_encoder_folder(name)
    extra: dict[str, Any] = {}
    if folder:
        name = f"local-dir:{folder}"
        extra = json.loads((folder / "config.json").read_text()).get("model_args", {})
    model = timm.create_model(name, pretrained=True, num_classes=0)
    preprocess = _read_preprocess(model)
    settings = timm.data.resolve_model_data_config(model)
    see = timm.data.create_transform(**settings, is_training=False)
    check_preprocessing(preprocess, lambda image: see(image).numpy(), name)
    plan = {
        "source": "timm",
        "architecture": model.pretrained_cfg["architecture"],
        "model_args": extra,
        "preprocess": preprocess.model_dump(mode="json"),
        "output": output,
    }
    return ImageTower(TimmTrunk(model, output), preprocess, plan)


def rebuild_timm_image_tower(plan: TowerPlan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = timm.create_model(plan["architecture"], **{**plan["model_args"], "num_classes": 0})
    return ImageTower(TimmTrunk(model, plan["output"]), Preprocessing(**plan["preprocess"]), plan)


def _list_stage_blocks(stage: Any) -> _Blocks:
    lowest, *rest = stage.blocks
    return [[stage.downsample, lowest], *([block] for block in rest)]


def _read_preprocess(model: nn.Module) -> Preprocessing:
    config = timm.data.resolve_model_data_config(model)
    mode, resample = config["crop_mode"], config["interpolation"]
    if mode not in _RESIZE or resample not in _RESAMPLE:
        raise EncoderError(
            f"timm asks for crop mode {mode!r} and interpolation {resample!r}; "
            f"known are {', '.join(_RESIZE)} and {', '.join(_RESAMPLE)}"
        )
    return Preprocessing.model_validate(
        {
            "height": config["input_size"][1],
            "width": config["input_size"][2],
            "resize": _RESIZE[mode],
            "resample": resample,
            "crop_fraction": config["crop_pct"],
            "mean": config["mean"],
            "std": config["std"],
        }
    )
