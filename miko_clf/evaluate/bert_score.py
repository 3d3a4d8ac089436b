"""BERTScore (Zhang et al., ICLR 2020) by a model in a local folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from miko_clf.errors import EncoderError

logging.disable_progress_bar()
_TOGETHER = 1024  # pairs at a time
_KEPT = 20_000  # texts whose vectors are kept for other pairs: the reference comes again and again
_BATCH = 64
_LONGEST = 128  # tokens


class BertScore:
    """F1 of greedily matched tokens of the last layer, without idf weights or rescaling.

    The figures are those of torchmetrics for one pair. For several pairs of different lengths
    torchmetrics 1.9 puts its sorted texts back in a wrong order, so the matching stands here.
    Raises `EncoderError` where the folder or name holds no encoder.
    """

    def __init__(self, name: str | Path, device: str | None = None) -> None:
        self.name = Path(name).name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self.words = AutoTokenizer.from_pretrained(name)
            model = AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise EncoderError(f"{name}: no encoder to compare texts with: {error}") from None
        self.model = model.to(self.device).eval()
        self._kept: dict[str, Tensor] = {}

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return F1 for each pair of a written text and a reference, 0 where one has no token."""
        scores: list[float] = []
        for start in range(0, len(pairs), _TOGETHER):
            part = pairs[start : start + _TOGETHER]
            if len(self._kept) > _KEPT:
                self._kept.clear()
            new = {text for pair in part for text in pair} - self._kept.keys()
            self._kept.update(self._vectors(sorted(new, key=len)))
            scores += [_f1(self._kept[one], self._kept[other]) for one, other in part]
        return scores

    @torch.inference_mode()
    def _vectors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return (token, width) of unit length for each text, special tokens left out."""
        found: dict[str, Tensor] = {}
        for start in range(0, len(texts), _BATCH):
            part = texts[start : start + _BATCH]
            read = self.words(
                part,
                truncation=True,
                max_length=_LONGEST,
                padding=True,
                return_tensors="pt",
                return_special_tokens_mask=True,
            ).to(self.device)
            own = torch.eq(read.pop("special_tokens_mask"), 0)
            hidden = self.model(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).last_hidden_state
            hidden = functional.normalize(hidden, dim=-1).cpu()
            found.update(
                zip(part, (h[o] for h, o in zip(hidden, own.cpu(), strict=True)), strict=True)
            )
        return found


def _f1(one: Tensor, other: Tensor) -> float:
    if not len(one) or not len(other):
        return 0.0
    alike = (one @ other.T).clamp_min(0)  # padding, at 0, bounds every maximum of the original
    precision, recall = float(alike.max(1).values.mean()), float(alike.max(0).values.mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
