"""A classifier: two towers and the fusion behind them."""

from torch import nn

from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.fuse.decoder import Decoder
from miko_clf.fuse.fused import Batch, Fused, Fusion
from miko_clf.fuse.states import image_states, intention_states, text_states


class MikoClassifier(nn.Module):
    """Two towers and the fusion behind them.

    `fusion` maps the states of the towers to what is `Fused`. `decoder` writes the rationale
    while the fusion learns. `vote` is what training posts say of a new one, once they are known.
    """

    def __init__(
        self,
        image_tower: ImageTower | None,
        text_tower: TextTower | None,
        fusion: Fusion,
        decoder: Decoder | None = None,
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

    def train(self, mode: bool = True) -> "MikoClassifier":
        """Set training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        still(self.image_tower, self.text_tower)
        return self

    def forward(self, batch: Batch, *, guess_only: bool = False) -> Fused:
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
            states["image_states"] = image_states(self.image_tower, batch)
        if self.text_tower is None:
            return states
        for name in self.fusion.content_texts:
            states[f"{name}_states"] = text_states(self.text_tower, batch, name)
        if self.fusion.reads_intentions:
            states["intention_states"] = intention_states(self.text_tower, batch)
        return states


def still(*towers: ImageTower | TextTower | None) -> None:
    """Put the towers in evaluation mode of which nothing learns."""
    for tower in towers:
        if tower is not None and not any(p.requires_grad for p in tower.parameters()):
            tower.eval()
