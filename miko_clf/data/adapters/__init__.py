"""Published layouts of research data, read as their authors publish them."""

from pathlib import Path

from miko_clf.data.adapters import (
    harmeme,
    hateful_memes,
    mami,
    mmsd,
    multioff,
    mustard,
    pridemm,
)
from miko_clf.data.adapters.known import Known, Wish
from miko_clf.data.layout import Layout

# Hateful Memes stands before HarMeme: both may keep `annotations/train.jsonl` beside `images/`.
_ADAPTERS = (hateful_memes, harmeme, mmsd, mami, multioff, pridemm, mustard)


def known() -> list[Known]:
    """Return what there is an adapter for, in the order in which a folder is held against it."""
    return [each for adapter in _ADAPTERS for each in adapter.KNOWN]


def adapted(path: Path, wish: Wish) -> Layout | None:
    """Return the published layout that the files of a folder are in, or None.

    Raises PostError for a task that the data set does not have.
    """
    found = (adapter.layout(path, wish) for adapter in _ADAPTERS)
    return next((layout for layout in found if layout is not None), None)
