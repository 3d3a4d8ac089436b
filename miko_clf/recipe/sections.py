"""The sections of a recipe: towers, fusion, stages, decision; closed to unknown keys."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class RecipeSection(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


LoraTarget = Literal["q", "k", "v", "out", "mlp"]


class LoraSection(RecipeSection):
    """Low-rank adapters beside frozen weights, merged at the end (Hu et al., ICLR 2022)."""

    rank: int = Field(default=8, gt=0)
    """Rank of each adapter."""
    alpha: float = Field(default=8, gt=0)
    """Adapters count alpha / rank."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout before an adapter."""
    targets: tuple[LoraTarget, ...] = Field(default=("k", "v", "out"), min_length=1)
    """Projections of attention, or the feed-forward block, that get an adapter."""


class TowerSection(RecipeSection):
    """One encoder: where it comes from and how much of it learns."""

    source: Literal["transformers", "open_clip", "timm", "tiny"]
    """Library that the encoder is built by; `tiny` is made from scratch."""
    name: str = "tiny"
    """A folder, a name in a folder on MIKO_ENCODERS, or a name on the hub."""
    frozen: bool = True
    """Weights stay as they are, and token features are cached."""
    unfreeze: int = Field(default=0, ge=0)
    """Last blocks of a frozen tower that learn all the same."""
    lora: LoraSection | None = None
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
    def _consistent(self) -> "TowerSection":
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


class ImageTowerSection(TowerSection):
    """The image encoder."""

    size: int = Field(default=64, gt=0)
    """Pixels a side (source `tiny` only; the others know their own)."""
    normalise: Literal["own", "half"] = "own"
    """By the tower's own mean and deviation, or by 0.5 each, as Mr.Harm's code does."""


class TextTowerSection(TowerSection):
    """The text encoder; posts, descriptions and intentions all go through it."""

    max_length: int = Field(default=96, gt=2)
    """Tokens kept of a text; what is cut is counted."""
    long: Literal["cut", "ends", "chunk"] = "cut"
    """What is kept of a longer text: its head, its head and tail, or all of it in windows."""
    pool: Literal["auto", "mean", "first", "last"] = "auto"
    """How the states of a text become one: by the encoder's convention, their mean, or which."""
    fold: bool = False
    """Undo disguises of letters first: homoglyphs, full width, zero width, strokes, overrides."""
    vocabulary: int = Field(default=4000, gt=0)
    """Word pieces learned from the training texts (source `tiny` only)."""


class IntentionSection(RecipeSection):
    """How given intentions are read."""

    read: Literal["tokens", "vectors"] = "tokens"
    """A state for each token, or one vector an intention (fusion kind reader)."""

    max_length: int = Field(default=24, gt=2)
    """Tokens kept of one intention."""
    dropout: float = Field(default=0.5, ge=0, le=1)
    """Chance that a training post loses its intentions, so that absence is learned."""


class _FusionBase(RecipeSection):
    """Keys that every kind has, and what a kind without them answers."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in every block."""
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of whole features of the towers, over all tokens of a post."""
    modality_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a training post loses its image, and likewise each of its texts."""


class PlainFusionSection(_FusionBase):
    """A kind that does not guess intentions, and reads none unless it says so."""

    reader: ClassVar[bool] = False
    slots: ClassVar[bool] = False
    slot_dropout: ClassVar[float] = 0.0


class ReaderSection(_FusionBase):
    """Content attends to itself and reads intentions by gated cross-attention."""

    kind: Literal["reader"] = "reader"
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
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
    base: Literal["none", "linear"] = "none"
    """The reader answers alone; or is mixed with a linear probe, as far as validation says."""
    words: bool = False
    """TF-IDF of word pieces and pairs counts in the base as well (base linear)."""

    @model_validator(mode="after")
    def _consistent(self) -> "ReaderSection":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.slots and not self.reader:
            raise ValueError("slots are read by the reader; set reader: true or slots: false")
        if self.words and self.base == "none":
            raise ValueError("words count in a base; set base: linear")
        return self


class PooledSection(PlainFusionSection):
    """One vector an input, laid side by side, and a classifier over them."""

    reader: ClassVar[bool] = True  # of the mean of the intentions
    kind: Literal["pooled"]
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
    hidden: int = Field(default=0, ge=0)
    """Units of a hidden layer; 0 makes the classifier linear."""
    solver: Literal["adamw", "lbfgs"] = "adamw"
    """Weights learn in epochs; or are fitted to their optimum, its L2 strength by grouped folds."""
    words: bool = False
    """TF-IDF of word pieces and pairs counts too, as far as held-out posts say (solver lbfgs)."""

    @model_validator(mode="after")
    def _consistent(self) -> "PooledSection":
        if self.solver == "lbfgs" and self.hidden:
            raise ValueError("solver lbfgs fits a linear classifier; set hidden: 0")
        if self.words and self.solver != "lbfgs":
            raise ValueError("words count beside fitted vectors; set solver: lbfgs")
        return self


class ProductSection(PlainFusionSection):
    """Image and text meet in a product (Kumar and Nandakumar, Hate-CLIPper, 2022)."""

    kind: Literal["product"]
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
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


class ConditionedSection(PlainFusionSection):
    """Top layers of the image tower attend to the text too (Chen et al., InterCLIP, 2024)."""

    kind: Literal["conditioned"]
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
    layers: int = Field(default=4, gt=0)
    """Top layers of the image tower that see the text."""
    width: int = Field(default=256, gt=0)
    """Channels of the hidden layer before the head."""


class GeneratorSection(PlainFusionSection):
    """An encoder-decoder whose encoder looks at the image (Lin et al., Mr.Harm, 2023)."""

    kind: Literal["generator"]
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
    heads: int = Field(default=8, gt=0)
    """Heads of the attention from words to image tokens."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Inner width of that attention as a share of the encoder's."""
    gated: bool = True
    """A gate that starts at zero stands behind each look at the image."""


class ZeroShotSection(PlainFusionSection):
    """Nothing is trained: a label is likely whose prompts are near (Radford et al., CLIP, 2021)."""

    kind: Literal["zero_shot"]
    """Kind of fusion: reader, pooled, product, conditioned, generator or zero_shot."""
    templates: tuple[str, ...] = (
        "a post that is {label}.",
        "a meme that is {label}.",
        "a picture that is {label}.",
        "a {label} post.",
        "a {label} meme.",
        "a {label} picture.",
    )
    """Prompts of a label that has none of its own; {label} stands for its name."""
    prompts: dict[str, tuple[str, ...]] = {}
    """Prompts of a label by its name, as many as say it well; their embeddings are averaged."""

    @model_validator(mode="after")
    def _consistent(self) -> "ZeroShotSection":
        if not self.templates or not all("{label}" in template for template in self.templates):
            raise ValueError("templates are one or more prompts with {label} where its name stands")
        for label, prompts in self.prompts.items():
            if not prompts or not all(prompt.strip() for prompt in prompts):
                raise ValueError(f"prompts of label {label!r} are blank or none; leave it out")
        return self


def _read_kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "reader"))
    return str(getattr(value, "kind", "reader"))


FUSION_SECTIONS: dict[str, type[PlainFusionSection] | type[ReaderSection]] = {
    "reader": ReaderSection,
    "pooled": PooledSection,
    "product": ProductSection,
    "conditioned": ConditionedSection,
    "generator": GeneratorSection,
    "zero_shot": ZeroShotSection,
}
FusionSection = Annotated[
    Annotated[ReaderSection, Tag("reader")]
    | Annotated[PooledSection, Tag("pooled")]
    | Annotated[ProductSection, Tag("product")]
    | Annotated[ConditionedSection, Tag("conditioned")]
    | Annotated[GeneratorSection, Tag("generator")]
    | Annotated[ZeroShotSection, Tag("zero_shot")],
    Discriminator(
        _read_kind,
        custom_error_type="fusion_kind",
        custom_error_message=f"kind must be one of {', '.join(FUSION_SECTIONS)}",
    ),
]


class OptimiserSection(RecipeSection):
    """AdamW, with warm-up and decay."""

    rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of fusion, slots, decoder and head."""
    tower_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of what learns of the towers."""
    gate_factor: float = Field(default=1.0, gt=0)
    """Gates learn at this multiple of the rate; they start at zero and have far to go."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of matrices; norms, biases, gates and embeddings have none."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    """Shape of the fall to zero."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which is what is kept; 0 keeps the weights."""


class EarlyStoppingSection(RecipeSection):
    """When a stage stops before its last epoch."""

    metric: Literal["loss", "accuracy", "macro_f1", "auroc", "average_precision"] = "loss"
    """Validation metric that picks the kept epoch."""
    patience: int = Field(default=3, gt=0)
    """Epochs without a better value after which the stage stops."""


class ReasoningSection(RecipeSection):
    """The first stage: learn what the teacher's text says."""

    epochs: int = Field(default=0, ge=0)
    """Passes over the training posts; 0 leaves the stage out."""
    align: float = Field(default=1.0, ge=0)
    """Weight of bringing each slot to the encoding of the teacher's text."""
    generate: float = Field(default=0.0, ge=0)
    """Weight of writing the rationale with a decoder."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of a rationale's words, drawn anew each step, that are learned from."""
    max_length: int = Field(default=128, gt=2)
    """Tokens kept of a rationale."""
    optimiser: OptimiserSection = OptimiserSection()
    early: EarlyStoppingSection = EarlyStoppingSection()

    @model_validator(mode="after")
    def _has_a_loss(self) -> "ReasoningSection":
        if self.epochs and not self.align and not self.generate:
            raise ValueError("a reasoning stage needs align or generate above 0")
        if self.early.metric != "loss":
            raise ValueError("the reasoning stage knows one validation metric, loss")
        return self


class RetrievalSection(RecipeSection):
    """Contrast with retrieved posts, and a vote of the nearest (Mei et al., RGCL, ACL 2024)."""

    weight: float = Field(default=1.0, gt=0)
    """Weight of the contrast beside the cross-entropy."""
    margin: float = Field(default=0.1, gt=0)
    """Cosine by which a post of the same label must be nearer than one of another."""
    neighbours: int = Field(default=20, gt=0)
    """Training posts that vote on a new one."""
    vote: float = Field(default=0.5, ge=0, le=1)
    """Share of the vote in the probability; the rest is the head's."""


class TaskSection(RecipeSection):
    """The second stage: learn the label."""

    epochs: int = Field(default=6, ge=0)
    """Passes over the training posts, at most; 0 for a system in which nothing is trained."""
    refit: bool = False
    """Fit once more on train and val, with what was chosen (fusion.solver lbfgs only)."""
    align: float = Field(default=0.0, ge=0)
    """Weight at which the alignment of the reasoning stage goes on."""
    likelihood: bool = False
    """Learn to spell the true label, and not to prefer it (fusion kind generator only)."""
    retrieval: RetrievalSection | None = None
    """Contrast with retrieved posts and their vote; null for neither."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weigh each class by the inverse of its share of the training posts."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    optimiser: OptimiserSection = OptimiserSection()
    early: EarlyStoppingSection = EarlyStoppingSection(metric="auroc")


AimName = Literal[
    "macro_f1", "f1", "recall_at_precision", "recall_at_false_positive_rate", "capacity", "cost"
]


class DecisionSection(RecipeSection):
    """What is fitted on validation once the weights are learned."""

    calibration: Literal["auto", "temperature", "platt", "isotonic"] = "auto"
    """One factor for all logits; a factor and a shift a label; a rising line (two labels).

    `auto` is platt where training weighs the classes, because a temperature cannot undo the shift
    of that, and temperature elsewhere.
    """
    aim: AimName = "macro_f1"
    """What the thresholds are the best for, of two labels or of any number that may hold."""
    precision: float = Field(default=0.9, gt=0, le=1)
    """Least precision at which aim recall_at_precision looks for the most recall."""
    false_positive_rate: float = Field(default=0.05, ge=0, lt=1)
    """Largest share of the negatives that aim recall_at_false_positive_rate lets through."""
    capacity: float = Field(default=0.05, gt=0, lt=1)
    """Largest share of all posts that aim capacity lets through: 200 looked at of 4,000 is 0.05."""
    false_positive_cost: float = Field(default=1.0, gt=0)
    """What a false positive costs (aim cost), in any unit."""
    false_negative_cost: float = Field(default=1.0, gt=0)
    """What a false negative costs (aim cost), in the same unit."""
    conformal: float | None = Field(default=None, gt=0, lt=1)
    """Share of posts whose label a conformal set is to hold; null to abstain from none."""

    @property
    def value(self) -> float | None:
        """The number that the aim keeps to, none where it has none.

        Of aim cost it is the probability at which both errors cost the same (Elkan, IJCAI 2001).
        """
        costs = self.false_positive_cost + self.false_negative_cost
        return {
            "recall_at_precision": self.precision,
            "recall_at_false_positive_rate": self.false_positive_rate,
            "capacity": self.capacity,
            "cost": self.false_positive_cost / costs,
        }.get(self.aim)
