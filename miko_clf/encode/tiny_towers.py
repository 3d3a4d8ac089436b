"""Towers small enough to learn from scratch in minutes."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from miko_clf.data.preprocess import Preprocessing
from miko_clf.data.tokenizer import TextTokenizer, collapse_whitespace
from miko_clf.encode.tower import Attention, FeedForward, ImageTower, TextTower, TowerPlan

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_MAX_TOKENS = 256  # longest text, in tokens
_HEADS = 4
_DROPOUT = 0.1


class ConvTrunk(nn.Module):
    """Four convolutions that halve the picture, then one token a grid cell."""

    splits = False

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = (3, width // 4, width // 2, width)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(into, out, 3, stride=2, padding=1),
                    nn.GroupNorm(min(8, out // 4), out),
                    nn.GELU(),
                )
                for into, out in zip(channels, (*channels[1:], width), strict=True)
            )
        )

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the grid of the last convolution, row by row."""
        grid: Tensor = self.blocks(pixels)
        return grid.flatten(2).transpose(1, 2)

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return [[block] for block in self.blocks]

    def list_top(self) -> list[nn.Module]:
        """Return what stands on the blocks."""
        return []


class TransformerBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, _HEADS, _DROPOUT)
        self.feed_forward = FeedForward(width, _DROPOUT)

    def forward(
        self, words: Float[Tensor, "text word width"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the words one block on."""
        normed = self.norm(words)
        words = words + self.attention(normed, normed, present)
        moved: Tensor = words + self.feed_forward(words)
        return moved


class TransformerTrunk(nn.Module):
    """Word and position embeddings, then transformer blocks."""

    splits = False

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(_MAX_TOKENS, width) * 0.02)
        nn.init.normal_(self.word.weight, std=0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(layers))

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the state of each word."""
        states: Tensor = self.word(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            states = block(states, present)
        return states

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return [[block] for block in self.blocks]

    def list_top(self) -> list[nn.Module]:
        """Return what stands on the blocks."""
        return []


def build_tiny_image_tower(size: int, width: int) -> ImageTower:
    """Return an untrained image tower; pictures are squashed to `size` pixels a side."""
    preprocess = Preprocessing(
        height=size, width=size, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    plan = {"source": "tiny", "size": size, "width": width}
    return ImageTower(ConvTrunk(width), preprocess, plan)


def build_tiny_text_tower(words: TextTokenizer, width: int, layers: int) -> TextTower:
    """Return an untrained text tower over the vocabulary of `words`."""
    vocabulary = words.tokenizer.get_vocab_size()
    plan: TowerPlan = {"source": "tiny", "width": width, "layers": layers}
    return TextTower(TransformerTrunk(vocabulary, width, layers), words, _MAX_TOKENS, plan)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> TextTokenizer:
    """Return a byte-pair tokenizer (Sennrich et al., 2016) learned from the texts."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(_SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator((collapse_whitespace(text) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[
            ("[CLS]", _SPECIAL_TOKENS.index("[CLS]")),
            ("[SEP]", _SPECIAL_TOKENS.index("[SEP]")),
        ],
    )
    return TextTokenizer(tokenizer, _SPECIAL_TOKENS.index("[PAD]"))
