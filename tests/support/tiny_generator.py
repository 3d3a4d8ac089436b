"""A tiny generator, and batches with every pattern of missing inputs."""

from pathlib import Path

import torch

from miko_clf.encode import t5_tower, tiny_towers
from miko_clf.fuse.mr_harm import MrHarm
from miko_clf.fuse.outputs import Batch

GENERATOR_LABELS = ("not harmful", "harmful", "very harmful indeed")


def build_generator(folder: Path, *, gated: bool = True) -> MrHarm:
    torch.manual_seed(1)
    image = tiny_towers.build_tiny_image_tower(32, 24).requires_grad_(False)
    return MrHarm(
        image,
        t5_tower.load_t5_tower(str(folder)),
        content_texts=("text",),
        labels=GENERATOR_LABELS,
        heads=2 if gated else 1,
        share=1.0 if gated else 0.5,
        gated=gated,
        dropout=0.1 if gated else 0.0,
    ).eval()


def make_batch(size: int = 4, length: int = 6, seed: int = 0) -> Batch:
    """Posts with every pattern of missing inputs: whole, no image, no text, neither, over again."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(1, length + 1, (size, 1), generator=random)
    pattern = torch.arange(size) % 4
    return {
        "pixels": torch.randint(0, 256, (size, 3, 32, 32), generator=random).to(torch.uint8),
        "image_present": pattern % 2 == 0,
        "text_ids": torch.randint(3, 27, (size, length), generator=random),
        "text_mask": (torch.arange(length) < ends) & (pattern < 2)[:, None],
    }
