"""Several fusions behind the same towers, alike but for the seed they learned from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from miko_clf.fuse.outputs import Batch, FusionModule, ModelOutput


class EnsembleFusion(nn.Module):
    """The mean of the members' logits (deep ensembles; Lakshminarayanan et al., NeurIPS 2017).

    So its probabilities are the geometric mean of theirs. The guess is their mean too, and the
    embedding is theirs side by side. All members read the same states, which the towers compute
    once, and there is one graph.
    """

    def __init__(self, members: Sequence[FusionModule]) -> None:
        super().__init__()
        first = members[0]
        self.content_texts = first.content_texts
        self.reads_intentions = first.reads_intentions
        self.reads_ids = first.reads_ids
        self.members = nn.ModuleList(member for member in members if isinstance(member, nn.Module))

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the mean logits of each label; tokens are each member's own and left out."""
        outputs = [member(states, guess_only) for member in self.members]
        guesses = [output.guess for output in outputs if output.guess is not None]
        embeddings = [output.embedding for output in outputs if output.embedding is not None]
        return ModelOutput(
            _average([output.logits for output in outputs]),
            guess=_average(guesses) if guesses else None,
            embedding=torch.cat(embeddings, dim=1) if embeddings else None,
        )


def _average(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(0)
