"""Trials: a system trained from one seed and asked, several at a time, each in a process."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory, fingerprint_posts, is_test_split
from miko_clf.errors import BundleError, MikoError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.evaluate.seeds import SeedPredictions
from miko_clf.experiment.design import Experiment, Trial, read_experiment
from miko_clf.experiment.folds import TrialPosts, split_trial_posts
from miko_clf.pipeline import fit
from miko_clf.progress import ProgressBar

STOPPED = "stopped; the same command goes on from there"


def run_trials(out: Path, split: str, *, cache: Path | None, jobs: int | None) -> None:
    """Do every trial that is not done; `jobs` processes share the cores.

    By default a process has a core, or the GPU, to itself. What a trial prints goes to `logs/` in
    the folder. A run that was stopped, or killed, goes on when it is called again. Raises the
    first `MikoError` of a trial, naming its log.
    """
    jobs = jobs or (1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)))
    trials = read_experiment(out).trials()
    left = [n for n, trial in enumerate(trials) if not trial.locate_scores(out, split).exists()]
    if not left:
        return
    (out / "logs").mkdir(exist_ok=True)
    done = len(trials) - len(left)
    with _share_cores(jobs), ProgressBar("training", len(trials), done=done) as bar:
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _watch_parent, (os.getpid(),))
        try:
            futures = {
                pool.submit(_run_numbered, out, n, split, cache): trials[n].name for n in left
            }
            _wait_for_trials(futures, bar, out)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise KeyboardInterrupt(STOPPED) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _wait_for_trials(futures: dict[Future[None], str], bar: ProgressBar, out: Path) -> None:
    for future in as_completed(futures):
        name = futures[future]
        try:
            future.result()
        except BrokenProcessPool:
            raise MikoError(
                f"{name}: its process was ended from outside, mostly for want of memory; the same "
                "command goes on, with fewer --jobs if need be"
            ) from None
        except MikoError as error:
            raise MikoError(f"{name}: {error} (log: {out / 'logs' / name}.log)") from None
        bar.update(bar.done + 1, what=name)
        if not bar.on_terminal:
            bar.print(f"{bar.done} of {bar.total} trials: {name}")


def _run_numbered(out: Path, number: int, split: str, cache: Path | None) -> None:
    """Do one trial in this process; what it prints goes to its log."""
    experiment = read_experiment(out)
    trial = experiment.trials()[number]
    with _redirect_output(out / "logs" / f"{trial.name}.log"):
        run_trial(out, experiment, trial, split, cache)


@contextmanager
def _redirect_output(path: Path) -> Iterator[None]:
    """Send what is printed on stdout and stderr, by any library, to the end of a file."""
    sys.stdout.flush(), sys.stderr.flush()
    copies = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            for number, copy in zip((1, 2), copies, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def _share_cores(jobs: int) -> Iterator[None]:
    """Give each process its share of the cores, unless the user has said how many threads."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _watch_parent(parent: int) -> None:
    """End this process once its parent is gone, as kill -9 lets it do nothing about that."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_trial(
    out: Path, experiment: Experiment, trial: Trial, split: str, cache: Path | None
) -> None:
    """Train what is not trained and score what is not scored.

    The bundle of a fold is given up once its scores are kept. Raises a `MikoError`.
    """
    scores, place = trial.locate_scores(out, split), trial.locate_bundle(out)
    if scores.exists():
        return
    posts = split_trial_posts(experiment, trial, split)
    if not place.exists():
        if is_test_split(split):
            raise BundleError(f"{place}: not trained; finish the comparison by miko-clf compare")
        _train(experiment, trial, posts, place, cache, asks_val=split == "val")
    manifest.write_json(scores, _predict_arms(bundle.load_bundle(place), trial, posts, cache))
    if trial.fold is not None:
        shutil.rmtree(place)


def _train(
    experiment: Experiment,
    trial: Trial,
    posts: TrialPosts,
    place: Path,
    cache: Path | None,
    *,
    asks_val: bool,
) -> None:
    twin, texts = trial.system.twin, ((post.text, post.description) for post in posts.train)
    words = [len(f"{text or ''} {description or ''}".split()) for text, description in texts]
    fit(
        trial.system.recipe,
        PostsInMemory(Path(experiment.source.path), {"train": posts.train, "val": posts.val}),
        place,
        seed=trial.seed,
        cache=cache,
        positive=experiment.positive,
        leaks=experiment.leaks,
        twin=None if twin is None else twin.model_copy(update={"seed": trial.seed}),
        lengths=words if experiment.one_order else None,
        hold_val=asks_val,
    )


def _predict_arms(
    opened: Bundle, trial: Trial, posts: TrialPosts, cache: Path | None
) -> dict[str, Any]:
    predictor = Predictor(opened, posts.ask, cache)
    arms = {}
    for reported, arm in trial.system.reported.items():
        limit, stated = opened.calibration.thresholds.get(arm), predictor.probabilities(arm)
        limit = limit if isinstance(limit, float) else None
        arms[reported] = {"probabilities": stated.tolist(), "threshold": limit}
    return {
        "rows": posts.rows,
        "labels": list(opened.labels),
        "fingerprint": fingerprint_posts(posts.plain),
        "seconds": opened.manifest["seconds"],
        "arms": arms,
    }


class TrialPredictions(NamedTuple):
    """What a trial says of posts: by reported arm, of which rows, and how long it trained."""

    arms: dict[str, SeedPredictions]
    rows: list[int]
    labels: tuple[str, ...]
    seconds: float


def read_trial_predictions(
    out: Path, trial: Trial, split: str, posts: list[Post]
) -> TrialPredictions:
    """Return what a trial said; raises `BundleError` where it said it of other posts."""
    path = trial.locate_scores(out, split)
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        rows, expected = scores["rows"], scores["fingerprint"]
        fingerprint = fingerprint_posts([posts[row] for row in rows])
        arms = {
            arm: SeedPredictions(np.array(said["probabilities"]), said["threshold"])
            for arm, said in scores["arms"].items()
        }
        predictions = TrialPredictions(arms, rows, tuple(scores["labels"]), scores["seconds"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise BundleError(f"{path}: not readable; delete it and give the command again") from None
    if fingerprint != expected:
        raise BundleError(f"{path}: scores other posts than those of {split}; name another --out")
    return predictions
