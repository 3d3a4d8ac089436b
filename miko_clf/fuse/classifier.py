"""Two towers and the fusion behind them, and the vote of the nearest training posts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.tower import (
    ImageTower,
    TextTower,
    compute_image_states,
    compute_intention_states,
    compute_text_states,
)
from miko_clf.fuse.outputs import (
    Batch,
    FusionModule,
    ModelOutput,
    set_frozen_to_eval,
)
from miko_clf.fuse.rationale_decoder import RationaleDecoder

VOTE_PRIOR = 1.0  # weight of an even vote beside the neighbours' (Laplace): no label has nothing
_COSINE_TOLERANCE = 1e-6  # cosines that differ by less are one
_LEAST_PROBABILITY = 1e-12  # least probability whose logarithm is taken


class NeighbourVote(nn.Module):
    """A vote of the nearest training posts beside the head's own probabilities.

    `keys` are the embeddings of the training posts and `labels` their classes. Their mean is taken
    from all embeddings before they are compared by cosine: what all posts share says nothing, and
    may be so large that rounding would choose the neighbours. The keys are kept at unit length in
    half precision, 40 MB for 20,000 posts of 1,024 channels, and are part of the state, so a
    bundle and a graph carry the posts that vote as vectors and never as text.
    """

    centre: Tensor
    keys: Tensor
    labels: Tensor

    def __init__(
        self,
        keys: Float[Tensor, "key width"],
        labels: Int[Tensor, " key"],
        *,
        num_labels: int,
        neighbours: int,
        share: float,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.neighbours = neighbours
        self.share = share
        self.register_buffer("centre", keys.float().mean(0))
        self.register_buffer("keys", self._direction(keys).to(keys.device, torch.float16))
        self.register_buffer("labels", labels.clone())

    @classmethod
    def blank(
        cls, num_keys: int, width: int, *, num_labels: int, neighbours: int, share: float
    ) -> "NeighbourVote":
        """Return a vote of that size, to load a state into."""
        keys, labels = torch.zeros(num_keys, width), torch.zeros(num_keys, dtype=torch.int64)
        return cls(keys, labels, num_labels=num_labels, neighbours=neighbours, share=share)

    def forward(
        self, logits: Float[Tensor, "post label"], embedding: Float[Tensor, "post width"]
    ) -> Float[Tensor, "post label"]:
        """Return the logarithm of the mixture: `share` of it the vote, the rest the head."""
        head = torch.softmax(logits.float(), dim=-1)
        mixed = (1 - self.share) * head + self.share * self.votes(embedding)
        return mixed.clamp(min=_LEAST_PROBABILITY).log()

    def votes(self, embedding: Float[Tensor, "post width"]) -> Float[Tensor, "post label"]:
        """Return the share of each label among the nearest posts.

        The `neighbours` nearest count in full and the next as many less and less, down to nothing.
        So nothing jumps where two posts change places. Cosines are of double precision: those of
        a trained model's neighbours may differ in the fourth digit only.
        """
        near = self._direction(embedding) @ _leave_mps(self.keys).double().T
        count = min(2 * self.neighbours, self.keys.shape[0])
        full = min(self.neighbours, count)
        cosine, place = near.topk(count, dim=1)  # (post, neighbour), nearest first
        above = cosine - cosine[:, -1:] + _COSINE_TOLERANCE
        weight = (above / above[:, full - 1 : full]).clamp(max=1)
        label = torch.arange(self.num_labels, device=place.device)
        voted = (_leave_mps(self.labels)[place][..., None] == label).to(weight.dtype)
        counted = (weight[..., None] * voted).sum(1) + VOTE_PRIOR / self.num_labels
        shares = (counted / counted.sum(1, keepdim=True)).float()
        return shares.to(embedding.device)

    def _direction(self, embedding: Tensor) -> Tensor:
        moved = _leave_mps(embedding.float() - self.centre)
        return functional.normalize(moved.double(), dim=1)


def _leave_mps(tensor: Tensor) -> Tensor:
    """Return the tensor where there is double precision: on the CPU if it is on MPS."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


class MikoClassifier(nn.Module):
    """Two towers and the fusion behind them.

    `fusion` maps the states of the towers to a `ModelOutput`. `decoder` writes the rationale
    while the fusion learns. `vote` is what training posts say of a new one, once they are known.
    """

    def __init__(
        self,
        image_tower: ImageTower | None,
        text_tower: TextTower | None,
        fusion: FusionModule,
        decoder: RationaleDecoder | None = None,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.fusion = fusion
        self.decoder = decoder
        self.vote: nn.Module | None = None

    @property
    def split(self) -> tuple[str, ...]:
        """Inputs whose states may stand in a batch, because their tower sees nothing else."""
        image = ("image",) if self.image_tower is not None else ()
        intention = ("intention",) if self.fusion.reads_intentions else ()
        return (*image, *self.fusion.content_texts, *intention)

    @property
    def reads_ids(self) -> tuple[str, ...]:
        """Texts whose token ids the fusion reads beside their states."""
        return self.fusion.reads_ids

    def train(self, mode: bool = True) -> "MikoClassifier":
        """Set training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        set_frozen_to_eval(self.image_tower, self.text_tower)
        return self

    def forward(self, batch: Batch, *, guess_only: bool = False) -> ModelOutput:
        """Return what the fusion does; a tower runs where the batch holds no states of it.

        With `guess_only` the fusion layers are left out: only the guess is worth reading.
        """
        fused = self.fusion(self.encode(batch), guess_only)
        if guess_only:
            return fused
        if self.vote is not None and not self.training:
            fused = fused._replace(logits=self.vote(fused.logits, fused.embedding))
        if self.decoder is None or "written_ids" not in batch:
            return fused
        ids, mask = batch["written_ids"], batch["written_mask"]
        assert fused.tokens is not None
        assert fused.present is not None
        writing = self.decoder.loss(ids, mask, fused.tokens, fused.present)
        return fused._replace(writing=writing)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with the states of every input."""
        states = dict(batch)
        if self.image_tower is not None:
            states["image_states"] = compute_image_states(self.image_tower, batch)
        if self.text_tower is None:
            return states
        for name in self.fusion.content_texts:
            states[f"{name}_states"] = compute_text_states(self.text_tower, batch, name)
        if self.fusion.reads_intentions:
            states["intention_states"] = compute_intention_states(self.text_tower, batch)
        return states
