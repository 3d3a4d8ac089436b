"""A linear probe: one linear map of the towers' pooled vectors, and of words beside them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.tower import Pool
from miko_clf.fuse.late_fusion import PooledVectors, pool_inputs
from miko_clf.fuse.outputs import Batch, ModelOutput

NUM_PAIR_BUCKETS = 2**17  # places that pairs of word pieces share by their hash


class LinearProbe(nn.Module):
    """Logistic regression on frozen towers (CLIP's linear probe; Radford et al., 2021).

    Every input counts as one vector: the mean of an image's tokens, a text as `text_pool` says,
    the mean of the given intentions. Where a post lacks one, the mean of the training posts stands
    in. Its weights are fitted to the optimum, not in steps. With a `vocabulary`, the size of the
    text tower's, the words of the same texts count too, by TF-IDF.
    """

    def __init__(
        self,
        *,
        image_width: int | None,
        text_width: int | None,
        text_pool: Pool,
        content_texts: tuple[str, ...],
        reads_intentions: bool,
        num_labels: int,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        self.content_texts = content_texts
        self.text_pool = text_pool
        self.reads_images = image_width is not None
        self.reads_intentions = reads_intentions
        self.texts = (*content_texts, "intention") if reads_intentions else content_texts
        self.widths = {} if image_width is None else {"image": image_width}
        if text_width is not None:
            self.widths |= dict.fromkeys(self.texts, text_width)
        for name, width in self.widths.items():
            self.register_buffer(f"{name}_mean", torch.zeros(width))
        self.head = nn.Linear(sum(self.widths.values()), num_labels)
        self.words: WordTfIdf | None = None
        if vocabulary is not None and text_width is not None:
            self.words = WordTfIdf(vocabulary, self.texts, num_labels)
        self.reads_ids = self.texts if self.words is not None else ()

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the logits of each label; the embedding is the vectors side by side."""
        embedding = self.embed(states)
        logits = self.head(embedding)
        if self.words is not None:
            logits = logits + self.words(states)
        return ModelOutput(logits, embedding=embedding)

    def embed(self, states: Batch) -> Float[Tensor, "post width"]:
        """Return the vectors of all inputs side by side, means where a post lacks one."""
        parts = [
            torch.where(present[:, None], vector, getattr(self, f"{name}_mean"))
            for name, (vector, present) in self.pool(states).items()
        ]
        return torch.cat(parts, dim=1)

    def pool(self, states: Batch) -> PooledVectors:
        """Return the vector of each input by name, and which posts have that input."""
        return pool_inputs(self, states)


class WordTfIdf(nn.Module):
    """TF-IDF of word pieces and of pairs of neighbours, straight from token ids.

    A piece has a place of its own and a pair shares one of `NUM_PAIR_BUCKETS` by its hash, in a
    table for each text. A post is what its terms weigh, over the root of the sum of their squares.
    So a graph needs no string operator: it gathers from the tables and adds up.
    """

    idf: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, vocabulary: int, texts: tuple[str, ...], num_labels: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.texts = texts
        num_terms = len(texts) * (vocabulary + NUM_PAIR_BUCKETS)
        self.register_buffer("idf", torch.zeros(num_terms))
        self.register_buffer("weight", torch.zeros(num_terms, num_labels))
        self.register_buffer("bias", torch.zeros(num_labels))

    def forward(self, states: Batch) -> Float[Tensor, "post label"]:
        """Return what the words add to the logits of each label."""
        terms, present = self.list_terms(states)
        idf = self.idf[terms] * present.to(self.idf.dtype)  # (post, term)
        norm = idf.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        scores: Tensor = ((idf / norm)[..., None] * self.weight[terms]).sum(1) + self.bias
        return scores

    def list_terms(
        self, states: Batch
    ) -> tuple[Int[Tensor, "post term"], Bool[Tensor, "post term"]]:
        """Return the place of each term in the tables, and which terms a post has."""
        terms, present = [], []
        for number, name in enumerate(self.texts):
            ids, here = states[f"{name}_ids"], states[f"{name}_mask"]
            first = number * (self.vocabulary + NUM_PAIR_BUCKETS)
            # A text of one token has no pair; padding gives it an absent one, as graphs need one.
            after, both = functional.pad(ids, (0, 1))[..., 1:], functional.pad(here, (0, 1))
            pairs = torch.remainder(ids * 40_503 + after * 65_599, NUM_PAIR_BUCKETS)
            terms += [(first + ids).flatten(1), (first + self.vocabulary + pairs).flatten(1)]
            present += [here.flatten(1), (here & both[..., 1:]).flatten(1)]
        return torch.cat(terms, dim=1), torch.cat(present, dim=1)
