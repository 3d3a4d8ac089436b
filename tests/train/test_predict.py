"""Prediction: logits in the order of the posts, on devices without double precision too."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from miko_clf.fuse.outputs import ModelOutput
from miko_clf.train.predict import predict_logits
from tests.support.pretended_mps import PretendedMps, move_to_mps


class _Numbers:
    """Posts that are three numbers each, of lengths out of order."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def length(self, index: int) -> int:
        return 7 * index % 5

    def batch(self, indices: Any) -> dict[str, Tensor]:
        return {"features": self.features[torch.tensor(list(indices))]}


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, batch: dict[str, Tensor]) -> ModelOutput:
        return ModelOutput(self.head(batch["features"]))


def test_logits_are_read_from_a_device_without_double_precision() -> None:
    model, posts = _Linear(), _Numbers(torch.randn(150, 3))
    wanted = predict_logits(model, posts, "without")
    with PretendedMps():
        found = predict_logits(move_to_mps(model), posts, "without")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)
