"""All trials of an experiment, several at a time, each in a process that can be killed."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miko_clf.errors import MikoError
from miko_clf.experiment import design, trial

_STOPPED = "stopped; the same command goes on from there"


def run_trials(out: Path, split: str, *, cache: Path | None, jobs: int) -> None:
    """Do every trial that is not done; `jobs` processes share the cores.

    What a trial prints goes to `logs/` in the folder. A run that was stopped, or killed, goes on
    when it is called again. Raises the first `MikoError` of a trial, naming its log.
    """
    trials = design.read_experiment(out).trials()
    left = [
        n for n, each in enumerate(trials) if not design.locate_scores(out, each, split).exists()
    ]
    if not left:
        return
    (out / "logs").mkdir(exist_ok=True)
    with _threads(jobs), _bar(len(trials), len(trials) - len(left)) as bar:
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _watch_parent, (os.getpid(),))
        try:
            futures = {pool.submit(_work, out, n, split, cache): trials[n].name for n in left}
            _collect(futures, bar, out)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise KeyboardInterrupt(_STOPPED) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def count_default_jobs() -> int:
    """Return how many trials run at a time unless it is said: one a core, one on a GPU."""
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def _collect(futures: dict[Future[None], str], bar: Progress, out: Path) -> None:
    task = bar.task_ids[0]
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
            log = out / "logs" / f"{name}.log"
            raise MikoError(f"{name}: {error} (log: {log})") from None
        bar.update(task, advance=1, description=name)
        if not bar.console.is_terminal:
            done = int(bar.tasks[0].completed)
            bar.console.print(f"{done} of {bar.tasks[0].total:.0f} trials: {name}", highlight=False)


def _work(out: Path, number: int, split: str, cache: Path | None) -> None:
    """Do one trial in this process; what it prints goes to its log."""
    experiment = design.read_experiment(out)
    each = experiment.trials()[number]
    with _logged(out / "logs" / f"{each.name}.log"):
        trial.run_trial(out, experiment, each, split, cache)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what is printed on stdout and stderr, by any library, to the end of a file."""
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)


@contextmanager
def _threads(jobs: int) -> Iterator[None]:
    """Give each process its share of the cores, unless the user has said how many threads."""
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    try:
        yield
    finally:
        if given is None:
            del os.environ["OMP_NUM_THREADS"]


def _watch_parent(parent: int) -> None:
    """End this process once its parent is gone, as kill -9 lets it do nothing about that."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _bar(total: int, done: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    bar.add_task("training", total=total, completed=done)
    return bar
