"""Systems trained on some data sets, tried on those and on others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miko_clf import bundle
from miko_clf.bundle import Bundle
from miko_clf.data.dataset import DataFolder
from miko_clf.data.post import Post
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate import predictions
from miko_clf.evaluate.analysis import estimates
from miko_clf.evaluate.formatting import convert_to_json
from miko_clf.evaluate.lockbox import open_lockbox
from miko_clf.intervals import Interval, draw_resamples


@dataclass(frozen=True)
class TransferCell:
    """One system on one data set; `home` says that it learned from the train split of that set."""

    train: str
    test: str
    posts: int
    home: bool
    value: Interval


@dataclass(frozen=True)
class TransferMatrix:
    """Every system on the same split of every data set; intervals are over posts."""

    metric: str
    split: str
    cells: list[TransferCell]

    def as_json(self) -> dict[str, Any]:
        """Return plain values: an interval as an object, what is undefined as null."""
        plain: dict[str, Any] = convert_to_json(asdict(self))
        return plain


def measure_transfer(
    bundles: Sequence[Path],
    folders: Sequence[DataFolder],
    split: str,
    cache: Path | None,
    *,
    metric: str = "macro_f1",
    num_resamples: int = estimates.NUM_RESAMPLES,
    command: str = "",
) -> TransferMatrix:
    """Return what each bundle scores on the split of each data folder, in its usual arm.

    Thresholds and temperatures stay those of the bundle's own validation posts. Where a bundle
    answers several questions it is of the first. A test split is opened, and counted with the
    `command`, in every bundle. Raises a `MikoError` where a folder has a label that a bundle does
    not know, or names do not tell bundles or folders apart.
    """
    opened = [bundle.load_bundle(path) for path in bundles]
    predictions.refuse_equal_names(opened)
    names = _name_folders(folders)
    read = [(name, folder, folder.read(split)) for name, folder in zip(names, folders, strict=True)]
    for folder in folders:
        open_lockbox(opened, folder, split, command)
    homes = [folder.fingerprint("train") if "train" in folder.splits else "" for folder in folders]
    cells = [
        TransferCell(
            train=system.path.name,
            test=name,
            posts=len(posts),
            home=system.manifest["data"]["train"] == home,
            value=_score_transfer(system, posts, folder, split, cache, metric, num_resamples),
        )
        for system in opened
        for (name, folder, posts), home in zip(read, homes, strict=True)
    ]
    return TransferMatrix(metric, split, cells)


def _score_transfer(
    opened: Bundle,
    posts: list[Post],
    folder: DataFolder,
    split: str,
    cache: Path | None,
    metric: str,
    num_resamples: int,
) -> Interval:
    where = folder.path
    try:
        first = predictions.list_questions(posts, [], opened.questions, where, split)[0]
    except PostError as error:
        raise PostError(f"{opened.path.name} cannot be tried on this data: {error}") from None
    seen = predictions.predict_system(
        opened, predictions.Predictor(opened, first.posts, cache), first.here, [], cache
    )
    if seen is None:
        raise BundleError(f"{opened.path}: any number of its labels may hold; one is needed here")
    rows = estimates.decide_posts(seen)
    weights = draw_resamples(len(rows.truth), num_resamples, 0, rows.groups)
    return estimates.bootstrap_decided_posts(rows, weights, (metric,))[metric]


def _name_folders(folders: Sequence[DataFolder]) -> list[str]:
    """Return the names of the folders, whole paths where two have the same name."""
    counts = Counter(folder.path.name for folder in folders)
    for path, count in Counter(folder.path for folder in folders).items():
        if count > 1:
            raise PostError(f"{path}: was given twice")
    return [f.path.name if counts[f.path.name] == 1 else str(f.path) for f in folders]
