"""The fusions of a recipe: what stands behind the towers, one class a kind."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from miko_clf.recipe.section import Section


class _Fusion(Section):
    """Keys that every kind has, and what a kind without them answers."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in every block."""
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of whole features of the towers, over all tokens of a post."""
    modality_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a training post loses its image, and likewise each of its texts."""


class Plain(_Fusion):
    """A kind that does not guess intentions, and reads none unless it says so."""

    reader: ClassVar[bool] = False
    slots: ClassVar[bool] = False
    slot_dropout: ClassVar[float] = 0.0


class Reader(_Fusion):
    """Content attends to itself and reads intentions by gated cross-attention."""

    kind: Literal["reader"] = "reader"
    """Kind of fusion: reader, pooled, product, conditioned or generator."""
    width: int = Field(default=128, gt=0)
    """Channels of a fused token."""
    layers: int = Field(default=2, gt=0)
    """Fusion layers."""
    latents: int = Field(default=0, ge=0)
    """Learned tokens that look at the content in its stead; 0 lets the content itself be fused."""
    heads: int = Field(default=4, gt=0)
    """Attention heads."""
    modality_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Chance that a training post loses its image, and likewise each of its texts."""
    reader: bool = True
    """Read intentions by cross-attention."""
    slots: bool = True
    """Learned queries that guess the intentions and the rationale where none are given."""
    slot_layers: int = Field(default=2, gt=0)
    """Blocks in which the slots read the content."""
    slot_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Chance that a training post without intentions goes without the slots too."""

    @model_validator(mode="after")
    def _consistent(self) -> "Reader":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.slots and not self.reader:
            raise ValueError("slots are read by the reader; set reader: true or slots: false")
        return self


class Pooled(Plain):
    """One vector an input, laid side by side, and a classifier over them."""

    reader: ClassVar[bool] = True  # of the mean of the intentions
    kind: Literal["pooled"]
    """Kind of fusion: reader, pooled, product, conditioned or generator."""
    hidden: int = Field(default=0, ge=0)
    """Units of a hidden layer; 0 makes the classifier linear."""


class Product(Plain):
    """Image and text meet in a product (Kumar and Nandakumar, Hate-CLIPper, 2022)."""

    kind: Literal["product"]
    """Kind of fusion: reader, pooled, product, conditioned or generator."""
    width: int = Field(default=1024, gt=0)
    """Channels to which image and text are each projected."""
    mix: Literal["align", "cross"] = "align"
    """Element-wise product, or outer product."""
    layers: int = Field(default=1, ge=0)
    """Hidden layers between the product and the head."""
    projection_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout behind each projection."""
    product_dropout: float = Field(default=0.4, ge=0, lt=1)
    """Dropout of the product."""


class Conditioned(Plain):
    """Top layers of the image tower attend to the text too (Chen et al., InterCLIP, 2024)."""

    kind: Literal["conditioned"]
    """Kind of fusion: reader, pooled, product, conditioned or generator."""
    layers: int = Field(default=4, gt=0)
    """Top layers of the image tower that see the text."""
    width: int = Field(default=256, gt=0)
    """Channels of the hidden layer before the head."""


class Generator(Plain):
    """An encoder-decoder whose encoder looks at the image (Lin et al., Mr.Harm, 2023)."""

    kind: Literal["generator"]
    """Kind of fusion: reader, pooled, product, conditioned or generator."""
    heads: int = Field(default=8, gt=0)
    """Heads of the attention from words to image tokens."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Inner width of that attention as a share of the encoder's."""
    gated: bool = True
    """A gate that starts at zero stands behind each look at the image."""


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "reader"))
    return str(getattr(value, "kind", "reader"))


FUSIONS: dict[str, type[Plain] | type[Reader]] = {
    "reader": Reader,
    "pooled": Pooled,
    "product": Product,
    "conditioned": Conditioned,
    "generator": Generator,
}
Fusion = Annotated[
    Annotated[Reader, Tag("reader")]
    | Annotated[Pooled, Tag("pooled")]
    | Annotated[Product, Tag("product")]
    | Annotated[Conditioned, Tag("conditioned")]
    | Annotated[Generator, Tag("generator")],
    Discriminator(
        _kind,
        custom_error_type="fusion_kind",
        custom_error_message=f"kind must be one of {', '.join(FUSIONS)}",
    ),
]
