"""What the nearest training posts say of a new one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

PRIOR = 1.0  # weight of an even vote beside the neighbours' (Laplace): no label has nothing
SAME = 1e-6  # cosines that differ by less are one
LEAST = 1e-12  # least probability whose logarithm is taken


class Vote(nn.Module):
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
        self.register_buffer("keys", self._direction(keys).half())
        self.register_buffer("labels", labels.clone())

    @classmethod
    def blank(
        cls, num_keys: int, width: int, *, num_labels: int, neighbours: int, share: float
    ) -> "Vote":
        """Return a vote of that size, to load a state into."""
        keys, labels = torch.zeros(num_keys, width), torch.zeros(num_keys, dtype=torch.int64)
        return cls(keys, labels, num_labels=num_labels, neighbours=neighbours, share=share)

    def forward(
        self, logits: Float[Tensor, "post label"], embedding: Float[Tensor, "post width"]
    ) -> Float[Tensor, "post label"]:
        """Return the logarithm of the mixture: `share` of it the vote, the rest the head."""
        head = torch.softmax(logits.float(), dim=-1)
        mixed = (1 - self.share) * head + self.share * self.votes(embedding)
        return mixed.clamp(min=LEAST).log()

    def votes(self, embedding: Float[Tensor, "post width"]) -> Float[Tensor, "post label"]:
        """Return the share of each label among the nearest posts.

        The `neighbours` nearest count in full and the next as many less and less, down to nothing.
        So nothing jumps where two posts change places. Cosines are of double precision: those of
        a trained model's neighbours may differ in the fourth digit only.
        """
        near = self._direction(embedding) @ self.keys.double().T
        count = min(2 * self.neighbours, self.keys.shape[0])
        full = min(self.neighbours, count)
        cosine, place = near.topk(count, dim=1)  # (post, neighbour), nearest first
        above = cosine - cosine[:, -1:] + SAME
        weight = (above / above[:, full - 1 : full]).clamp(max=1)
        label = torch.arange(self.num_labels, device=place.device)
        voted = (self.labels[place][..., None] == label).to(weight.dtype)
        counted = (weight[..., None] * voted).sum(1) + PRIOR / self.num_labels
        return (counted / counted.sum(1, keepdim=True)).float()

    def _direction(self, embedding: Tensor) -> Tensor:
        return functional.normalize((embedding.float() - self.centre).double(), dim=1)
