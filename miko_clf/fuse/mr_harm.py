"""An encoder-decoder that looks at the image, writes the rationale and spells the label."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.data.tokenizer import TextTokenizer, pad_ids
from miko_clf.encode.t5_tower import T5_MAX_TOKENS, T5Trunk
from miko_clf.encode.tower import FeatureDropout, ImageTower, TextTower, compute_image_states
from miko_clf.errors import EncoderError, RecipeError
from miko_clf.fuse.cross_attention import NullToken
from miko_clf.fuse.outputs import Batch, ModelOutput, set_frozen_to_eval

# How written texts begin, so that one decoder can be asked for either (Mr.Harm's code).
_RATIONALE_PREFIX = "Output:"
_LABEL_PROMPT = "The answer is: {}"
_Memory = tuple[Tensor, Tensor]


class VisualCrossAttention(nn.Module):
    """One look of words at image tokens, added to the words (Lin et al., Mr.Harm, 2023).

    Gated, it is normed and stands behind a gate that starts at zero (Alayrac et al., Flamingo,
    2022), so that an untrained look changes nothing. Ungated, it is Mr.Harm's own: nothing but
    the attention, its values at first those of its keys.
    """

    def __init__(
        self, width: int, image_width: int, heads: int, share: float, dropout: float, gated: bool
    ) -> None:
        super().__init__()
        inner = round(width * share)
        if inner % heads:
            raise RecipeError(
                f"fusion.heads {heads} does not divide {inner}, which is fusion.share {share} "
                f"of the encoder's {width} channels"
            )
        self.heads = heads
        self.norm = nn.LayerNorm(width) if gated else nn.Identity()
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(image_width, inner)
        self.value = nn.Linear(image_width, inner)
        if not gated:
            self.value.load_state_dict(self.key.state_dict())
        self.out = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Parameter(torch.zeros(width)) if gated else None

    def forward(
        self,
        words: Float[Tensor, "post word width"],
        tokens: Float[Tensor, "post token channel"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post word width"]:
        """Return the words, moved by what they saw."""
        read = functional.scaled_dot_product_attention(
            self._split(self.query(self.norm(words))),
            self._split(self.key(tokens)),
            self._split(self.value(tokens)),
            attn_mask=present[:, None, None, :].expand(-1, 1, words.shape[1], -1),
        )
        seen = self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        return words + (seen if self.gate is None else torch.tanh(self.gate) * seen)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class VisualCrossAttentionStack(nn.Module):
    """All looks of an encoder at one image; a learned null token is seen besides it.

    Without an image the null token is all there is to see, in the ungated form too: its
    authors knew no post without an image.
    """

    def __init__(
        self,
        num_looks: int,
        width: int,
        image_width: int,
        *,
        heads: int,
        share: float,
        gated: bool,
        dropout: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.input_dropout = FeatureDropout(input_dropout)
        self.null = NullToken(image_width)
        self.norm = nn.LayerNorm(image_width) if gated else nn.Identity()
        self.looks = nn.ModuleList(
            VisualCrossAttention(width, image_width, heads, share, dropout, gated)
            for _ in range(num_looks)
        )

    def memory(
        self, image: Float[Tensor, "post token channel"], present: Bool[Tensor, " post"]
    ) -> _Memory:
        """Return what there is to see and its presence, the null token first."""
        here = present[:, None].expand(-1, image.shape[1])
        tokens, seen = self.null([self.input_dropout(image)], [here], image.shape[0])
        return self.norm(tokens), seen

    def forward(
        self, place: int, words: Float[Tensor, "post word width"], memory: _Memory
    ) -> Float[Tensor, "post word width"]:
        """Return the words after the look at `place`."""
        moved: Tensor = self.looks[place](words, *memory)
        return moved


class MrHarm(nn.Module):
    """A T5 whose encoder looks at the image after every block and at its end (Mr.Harm, 2023).

    A label's logit is the log-probability that the decoder spells its string, end of text
    included. It is not divided by the length: softmax over such sums is the model's own
    probability of each label given that it answers with one of them, and what strings have
    in common cancels.
    """

    decoder: nn.Module | None = None
    prefix: Tensor
    label_ids: Tensor
    label_mask: Tensor

    def __init__(
        self,
        image_tower: ImageTower | None,
        text_tower: TextTower | None,
        *,
        content_texts: tuple[str, ...],
        labels: Sequence[str],
        heads: int,
        share: float,
        gated: bool,
        dropout: float,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if text_tower is None or len(content_texts) != 1:
            raise RecipeError("a generator reads one text; name one, or set joined: separated")
        self.text = content_texts[0]
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.glances = None
        if image_tower is not None:
            self.glances = VisualCrossAttentionStack(
                self.trunk.num_blocks + 1,
                text_tower.width,
                image_tower.width,
                heads=heads,
                share=share,
                gated=gated,
                dropout=dropout,
                input_dropout=input_dropout,
            )
        self.split: tuple[str, ...] = () if image_tower is None else ("image",)
        self.reads_ids: tuple[str, ...] = ()
        self._tokenise_strings(text_tower.words, labels)

    @property
    def trunk(self) -> T5Trunk:
        """The encoder-decoder."""
        trunk = self.text_tower.trunk
        assert isinstance(trunk, T5Trunk)
        return trunk

    def train(self, mode: bool = True) -> "MrHarm":
        """Set training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        set_frozen_to_eval(self.image_tower, self.text_tower)
        return self

    def forward(self, batch: Batch, *, guess_only: bool = False) -> ModelOutput:
        """Return a score for each label, and the loss of the rationale that the batch holds.

        With `guess_only` no label is scored: `logits` is (post, 0).
        """
        states, present = self.read(batch)
        writing = None
        if "written_ids" in batch:
            ids, mask = batch["written_ids"], batch["written_mask"]
            writing = self._compute_writing_loss(ids, mask, states, present)
        logits = states.new_zeros(states.shape[0], 0)
        if not guess_only:
            logits = self._score_labels(states, present)
        return ModelOutput(logits=logits, tokens=states, present=present, writing=writing)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with the states of the image."""
        if self.image_tower is None:
            return batch
        return {**batch, "image_states": compute_image_states(self.image_tower, batch)}

    def read(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "post word width"], Bool[Tensor, "post word"]]:
        """Return what the encoder makes of text and image, and which words the decoder reads.

        A post without a text is read as one padding token, which still looks at the image.
        """
        ids, mask = batch[f"{self.text}_ids"], batch[f"{self.text}_mask"]
        present = mask | (torch.arange(ids.shape[1], device=ids.device) == 0)
        if self.glances is None:
            return self.trunk(ids, present), present
        glances = self.glances
        memory = glances.memory(self.encode(batch)["image_states"], batch["image_present"])
        return self.trunk.read(ids, present, lambda p, words: glances(p, words, memory)), present

    @torch.no_grad()
    def write(self, batch: Batch, max_length: int, beams: int = 1) -> Int[Tensor, "post written"]:
        """Return the ids of each post's rationale, at most `max_length`, padding behind its end."""
        states, present = self.read(batch)
        prefix = self.prefix.expand(states.shape[0], -1)
        begun = torch.cat([self._make_start(states.shape[0]), prefix], dim=1)
        return self.trunk.write(begun, states, present, max_length, beams)

    def next_word(
        self,
        ids: Int[Tensor, "post written"],
        states: Float[Tensor, "post word width"],
        present: Bool[Tensor, "post word"],
    ) -> Float[Tensor, "post vocabulary"]:
        """Return the logits of the token after `ids`, which begin with `start_id` and `prefix`."""
        return self.trunk.predict(ids, states, present)[:, -1]

    def label_loss(
        self, logits: Float[Tensor, "post label"], label: Int[Tensor, " post"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the tokens of the true labels' strings.

        This is the loss of Mr.Harm's second stage, which says nothing of the other labels.
        """
        spelt = logits.gather(1, label[:, None])
        return -spelt.sum() / self.label_mask.sum(1)[label].sum()

    def _tokenise_strings(self, words: TextTokenizer, labels: Sequence[str]) -> None:
        fresh = TextTokenizer(words.tokenizer, words.pad_id)  # counts no text of the data as cut
        rows = fresh.encode([_LABEL_PROMPT.format(label) for label in labels], T5_MAX_TOKENS)
        rows = [row if row[-1] == self.trunk.end_id else [*row, self.trunk.end_id] for row in rows]
        if len({tuple(row) for row in rows}) < len(rows):
            raise EncoderError(f"the tokenizer spells two of the labels {', '.join(labels)} alike")
        ids, mask = pad_ids(rows, words.pad_id)
        begun = words.tokenizer.encode(_RATIONALE_PREFIX, add_special_tokens=False).ids
        constants = {"label_ids": ids, "label_mask": mask, "prefix": begun}
        for name, values in constants.items():
            self.register_buffer(name, torch.as_tensor(values), persistent=False)

    def _score_labels(self, states: Tensor, present: Tensor) -> Float[Tensor, "post label"]:
        num_posts, num_labels = states.shape[0], len(self.label_ids)
        spelt = self._spell(
            self.label_ids.repeat(num_posts, 1),
            states[:, None].expand(-1, num_labels, -1, -1).flatten(0, 1),
            present[:, None].expand(-1, num_labels, -1).flatten(0, 1),
        )
        return (spelt.unflatten(0, (-1, num_labels)) * self.label_mask).sum(-1)

    def _compute_writing_loss(
        self, ids: Tensor, mask: Tensor, states: Tensor, present: Tensor
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the rationales' tokens, zero where none is given."""
        has_rationale = mask.any(1, keepdim=True)
        target = torch.cat([self.prefix.expand(ids.shape[0], -1), ids], dim=1)
        counts = torch.cat([has_rationale.expand(-1, len(self.prefix)), mask], dim=1)
        spelt = self._spell(target, states, present)
        return -(spelt * counts).sum() / counts.sum().clamp(min=1)

    def _spell(
        self, target: Tensor, states: Tensor, present: Tensor
    ) -> Float[Tensor, "row written"]:
        """Return the log-probability of each target token after the ones before it."""
        begun = torch.cat([self._make_start(target.shape[0]), target[:, :-1]], dim=1)
        logits = self.trunk.predict(begun, states, present)
        return logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]

    def _make_start(self, num_rows: int) -> Int[Tensor, "row 1"]:
        return self.prefix.new_full((num_rows, 1), self.trunk.start_id)
