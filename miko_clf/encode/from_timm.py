"""Image towers from timm."""

import json
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from miko_clf.data.pixels import Preprocess
from miko_clf.encode.resolve import local
from miko_clf.encode.towers import ImageTower, Plan
from miko_clf.errors import EncoderError

RESIZE = {"squash": "squash", "center": "crop", "border": "pad"}
RESAMPLE = ("bilinear", "bicubic", "lanczos")


class TimmTrunk(nn.Module):
    """A timm model without its head; a feature map becomes one token a cell."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return what `forward_features` gives, as tokens."""
        states: Tensor = self.model.forward_features(pixels)
        if states.ndim != 4:
            return states
        return states.flatten(1, 2) if self.channels_last else states.flatten(2).transpose(1, 2)


def image_tower(name: str) -> ImageTower:
    """Return the image tower of a checkpoint by folder or hub name."""
    folder = local(name)
    extra: dict[str, Any] = {}
    if folder:
        name = f"local-dir:{folder}"
        extra = json.loads((folder / "config.json").read_text()).get("model_args", {})
    model = timm.create_model(name, pretrained=True, num_classes=0)
    preprocess = _preprocess(model)
    plan = {
        "source": "timm",
        "architecture": model.pretrained_cfg["architecture"],
        "model_args": extra,
        "preprocess": preprocess.model_dump(mode="json"),
    }
    return ImageTower(TimmTrunk(model), preprocess, plan)


def rebuild_image(plan: Plan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = timm.create_model(plan["architecture"], **{**plan["model_args"], "num_classes": 0})
    return ImageTower(TimmTrunk(model), Preprocess(**plan["preprocess"]), plan)


def _preprocess(model: nn.Module) -> Preprocess:
    config = timm.data.resolve_model_data_config(model)
    mode, resample = config["crop_mode"], config["interpolation"]
    if mode not in RESIZE or resample not in RESAMPLE:
        raise EncoderError(
            f"timm asks for crop mode {mode!r} and interpolation {resample!r}; "
            f"known are {', '.join(RESIZE)} and {', '.join(RESAMPLE)}"
        )
    return Preprocess.model_validate(
        {
            "height": config["input_size"][1],
            "width": config["input_size"][2],
            "resize": RESIZE[mode],
            "resample": resample,
            "crop_fraction": config["crop_pct"],
            "mean": config["mean"],
            "std": config["std"],
        }
    )
