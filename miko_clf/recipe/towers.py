"""The encoders of a recipe: where each comes from, and how much of it learns."""

from typing import Literal

from pydantic import Field, model_validator

from miko_clf.recipe.section import Section

Part = Literal["q", "k", "v", "out", "mlp"]


class Lora(Section):
    """Low-rank adapters beside frozen weights, merged at the end (Hu et al., ICLR 2022)."""

    rank: int = Field(default=8, gt=0)
    """Rank of each adapter."""
    alpha: float = Field(default=8, gt=0)
    """Adapters count alpha / rank."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout before an adapter."""
    targets: tuple[Part, ...] = Field(default=("k", "v", "out"), min_length=1)
    """Projections of attention, or the feed-forward block, that get an adapter."""


class Tower(Section):
    """One encoder: where it comes from and how much of it learns."""

    source: Literal["transformers", "open_clip", "timm", "tiny"]
    """Library that the encoder is built by; `tiny` is made from scratch."""
    name: str = "tiny"
    """A folder, a name in a folder on MIKO_ENCODERS, or a name on the hub."""
    frozen: bool = True
    """Weights stay as they are, and token features are cached."""
    unfreeze: int = Field(default=0, ge=0)
    """Last blocks of a frozen tower that learn all the same."""
    lora: Lora | None = None
    """Adapters that learn in a frozen tower; null for none."""
    rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of what learns of this tower; null takes optimiser.tower_rate."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each block learns at this multiple of the rate of the one above it."""
    output: Literal["tokens", "embedding"] = "tokens"
    """A state for each token, or what the library itself calls the embedding."""
    width: int = Field(default=128, gt=0)
    """Channels of a token (source `tiny` only)."""
    layers: int = Field(default=2, gt=0)
    """Blocks (source `tiny` only)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Tower":
        if self.source == "tiny" and self.frozen:
            raise ValueError("a tower made from scratch must learn; set frozen: false")
        if not self.frozen and (self.unfreeze or self.lora):
            raise ValueError("unfreeze and lora are parts of a frozen tower; set frozen: true")
        if self.unfreeze and self.lora:
            raise ValueError("unfreeze and lora exclude each other; set one")
        return self

    @property
    def learns(self) -> bool:
        """Whether any weight of the tower changes in training."""
        return not self.frozen or bool(self.unfreeze) or self.lora is not None


class ImageTower(Tower):
    """The image encoder."""

    size: int = Field(default=64, gt=0)
    """Pixels a side (source `tiny` only; the others know their own)."""
    normalise: Literal["own", "half"] = "own"
    """By the tower's own mean and deviation, or by 0.5 each, as Mr.Harm's code does."""


class TextTower(Tower):
    """The text encoder; posts, descriptions and intentions all go through it."""

    max_length: int = Field(default=96, gt=2)
    """Tokens kept of a text; what is cut is counted."""
    long: Literal["cut", "ends", "chunk"] = "cut"
    """What is kept of a longer text: its head, its head and tail, or all of it in windows."""
    vocabulary: int = Field(default=4000, gt=0)
    """Word pieces learned from the training texts (source `tiny` only)."""
