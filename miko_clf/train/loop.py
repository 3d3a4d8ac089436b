"""The training loop: one stage at a time, resumable at any step."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from miko_clf.bundle import METRICS_FILE
from miko_clf.errors import MikoError, RecipeError
from miko_clf.fuse.outputs import Batch
from miko_clf.progress import ProgressBar
from miko_clf.train import checkpoint, optim
from miko_clf.train.checkpoint import StageProgress
from miko_clf.train.dataloader import LengthGroupedBatchSampler
from miko_clf.train.optim import LayerwiseRate, WeightAverage


class StoppedError(MikoError):
    """Training was interrupted after it had written a checkpoint."""

    code = 130


# What launchers tell each of several processes: torchrun and accelerate, then three kinds of MPI.
_PROCESS_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class Stage(Protocol):
    """One thing to learn. `salt` seeds it beside the run's seed and the step."""

    name: str
    salt: tuple[int, ...]

    @property
    def settings(self) -> Any:
        """Its `epochs`, `optimiser` and `early`, as sections of a recipe."""

    def set_rates(self, model: Any) -> Mapping[str, LayerwiseRate]:
        """Return how fast parameters learn that have a rate of their own, by prefix."""

    def list_state(self) -> Sequence[Any]:
        """Return what else has a state that checkpoints must keep."""

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch."""

    def vary(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Return the batch as this step shows it."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch."""

    def validate(self, model: Any, val: Any) -> Mapping[str, float]:
        """Return what validation measures, `loss` among it."""


@dataclass(frozen=True)
class TrainingRun:
    """What stays the same over the stages of one training run.

    `minutes` pass between checkpoints within an epoch; `trackers` are accelerate's names. Posts of
    like `lengths` are batched, by default of as many tokens.
    """

    name: str
    folder: Path
    seed: int
    batch_size: int
    minutes: float = 10.0
    trackers: Sequence[str] = ()
    lengths: Sequence[int] | None = None

    @property
    def metrics(self) -> Path:
        """The log of the run, one JSON object a line."""
        return self.folder / METRICS_FILE


def train_stage(run: TrainingRun, model: Any, stage: Stage, train: Any, val: Any) -> None:
    """Train one stage to its end and leave its best weights in the model.

    `train` and `val` are data sets with a `length` and a `batch`. A stage that an earlier process
    finished or left in the middle goes on from there; on a CPU the weights are those of an
    uninterrupted run. Raises `StoppedError` on Ctrl-C, and `RecipeError` once what is computed is
    no longer finite.
    """
    folder = run.folder / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    if not checkpoint.is_stage_done(folder):
        _StageTraining(run, model, stage, train, val, folder).train()
    checkpoint.load_best_weights(model, folder)


class _StageTraining:
    """One stage under way."""

    def __init__(
        self, run: TrainingRun, model: Any, stage: Stage, train: Any, val: Any, folder: Path
    ) -> None:
        self.run, self.stage, self.val, self.folder = run, stage, val, folder
        self.settings, rates = stage.settings, stage.settings.optimiser
        # Steps alone are of mixed precision, by `_step`: accelerate would leave it on the model.
        self.accelerator = Accelerator(
            mixed_precision="no",
            log_with=list(run.trackers) or None,
            project_dir=str(run.folder),
        )
        self.fast = choose_precision() == "bf16"
        if run.trackers:
            self.accelerator.init_trackers("miko_clf", {"recipe": run.name})
        lengths = run.lengths or [train.length(index) for index in range(len(train))]
        self.order = LengthGroupedBatchSampler(lengths, run.batch_size, run.seed)
        optimiser = optim.build_optimiser(model, rates, stage.set_rates(model))
        schedule = optim.build_schedule(optimiser, rates, self.settings.epochs * len(self.order))
        indices: Any = range(len(train))
        loader = DataLoader(indices, batch_sampler=self.order, collate_fn=train.batch)
        # Not to be wrapped for other processes, which a launcher of one alone would have it be.
        self.model = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimiser, self.schedule, self.loader = self.accelerator.prepare(
            optimiser, schedule, loader
        )
        self.progress, self.average = StageProgress(), WeightAverage(model, rates.average)
        state = [self.progress, self.average, *stage.list_state()]
        self.accelerator.register_for_checkpointing(*state)
        checkpoint.exclude_frozen_weights(self.accelerator)
        checkpoint.restore_checkpoint(self.accelerator, folder)
        checkpoint.trim_metrics(run.metrics, stage.name, self.progress.step)

    def train(self) -> None:
        """Train epoch by epoch until the last one, or until validation stops improving."""
        quiet = not self.accelerator.is_main_process
        with catch_interrupts() as signals, ProgressBar(self.stage.name, quiet=quiet) as bar:
            while not self.progress.finished:
                mean_loss = self._train_epoch(bar, signals)
                bar.print(self._validate(mean_loss))
                checkpoint.save_checkpoint(self.accelerator, self.folder, self.progress.step)
        for tracker in self.accelerator.trackers:  # `end_training` would end a launcher's group too
            tracker.finish()
        checkpoint.finish_stage(
            self.folder, {"best": self.progress.best, "epoch": self.progress.best_epoch}
        )
        self.accelerator.free_memory()

    def _train_epoch(self, bar: ProgressBar, signals: list[int]) -> float:
        """Return the mean loss of the steps, NaN where none was left to do."""
        progress, num_steps = self.progress, len(self.order)
        self.order.epoch = progress.epoch
        self.order.start = progress.step - progress.epoch * num_steps
        what = f"{self.stage.name} {progress.epoch + 1}/{self.settings.epochs}"
        bar.restart(what, num_steps, self.order.start)
        self.stage.begin(self.model, progress.epoch)
        self.model.train()
        saved, total, mean_loss = time.monotonic(), 0.0, math.nan
        for count, batch in enumerate(self.loader, 1):
            loss, rate = self._step(batch), self.schedule.get_last_lr()[0]
            total += loss
            mean_loss = total / count
            bar.update(self.order.start + count, note=f"loss {mean_loss:.4f} rate {rate:.1e}")
            if progress.step % 20 == 0:
                self._log({"loss": loss, "rate": rate})
            if signals:
                checkpoint.save_checkpoint(self.accelerator, self.folder, progress.step)
                raise StoppedError(
                    f"stopped in stage {self.stage.name} at step {progress.step}, "
                    "which is saved; the same command goes on from there"
                )
            if time.monotonic() - saved > 60 * self.run.minutes:
                checkpoint.save_checkpoint(self.accelerator, self.folder, progress.step)
                saved = time.monotonic()
        return mean_loss

    def _step(self, batch: Batch) -> float:
        """Optimise once; what is random is a function of seed, stage and step alone."""
        random = np.random.default_rng([self.run.seed, *self.stage.salt, self.progress.step])
        torch.manual_seed(int(random.integers(2**62)))
        batch = self.stage.vary(batch, random)
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.fast):
            loss = self.stage.loss(self.model, batch)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.optimiser.clip)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update()
        self.progress.step += 1
        return float(loss.detach())

    def _validate(self, mean_loss: float) -> str:
        """Keep the weights if they are the best so far; return a line on what was measured."""
        progress, early = self.progress, self.settings.early
        model = self.accelerator.unwrap_model(self.model)
        progress.epoch += 1
        with self.average.applied():
            measured = self.stage.validate(model, self.val)
            self._refuse_diverged(measured["loss"])
            value = measured[early.metric]
            signed = -value if early.metric == "loss" else value
            if progress.best is None or signed > progress.best:
                progress.best, progress.best_epoch = signed, progress.epoch
                if self.accelerator.is_main_process:
                    checkpoint.save_best_weights(model, self.folder)
        waited = progress.epoch - progress.best_epoch
        progress.finished = waited >= early.patience or progress.epoch >= self.settings.epochs
        self._log({"validation": dict(measured)})
        shown = ("loss", "macro_f1", "auroc")
        known = [name for name in shown if name in measured]
        values = " ".join(f"{name} {_format_measure(measured[name])}" for name in known)
        loss = "" if math.isnan(mean_loss) else f"loss {mean_loss:.4f}, "
        mark = "" if waited else " (best so far)"
        return f"{self.stage.name} epoch {progress.epoch}: {loss}validation {values}{mark}"

    def _refuse_diverged(self, loss: float) -> None:
        if not math.isfinite(loss):
            name, rate = self.stage.name, self.settings.optimiser.rate
            raise RecipeError(
                f"training diverged: the validation loss of stage {name} is not finite at step "
                f"{self.progress.step}; lower {name}.optimiser.rate, which is {rate:g}"
            )

    def _log(self, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        stage, step = self.stage.name, self.progress.step
        row = {"stage": stage, "epoch": self.progress.epoch, "step": step, **values}
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(_dump_row(row))
        if self.run.trackers:
            flat = values.get("validation", values)
            self.accelerator.log({f"{stage}/{name}": flat[name] for name in flat}, step=step)


@contextmanager
def catch_interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that a step is never cut in two."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_validation(
    run: TrainingRun, stage: str, epoch: int, measured: Mapping[str, float], **found: Any
) -> None:
    """Write what validation measures of what no epoch trained, and what else was found, as a row.

    A row that a stopped run wrote before is replaced.
    """
    row = {"stage": stage, "epoch": epoch, "step": epoch, "validation": dict(measured), **found}
    checkpoint.trim_metrics(run.metrics, stage, -1)
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(_dump_row(row))


def _dump_row(row: Mapping[str, Any]) -> str:
    """Return a line of the log, in which what validation leaves undefined is null."""
    measured = {
        name: value if math.isfinite(value) else None
        for name, value in row.get("validation", {}).items()
    }
    whole = {**row, "validation": measured} if "validation" in row else row
    return json.dumps(whole, allow_nan=False) + "\n"


def _format_measure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"


def choose_precision() -> str:
    """Return bf16 where the GPU itself computes in it, else full precision."""
    # Older GPUs emulate it, more slowly than they compute in full precision.
    real = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if real else "no"


def check_single_process() -> None:
    """Raise `MikoError` where a launcher started several processes of this command."""
    for name in _PROCESS_COUNTS:
        if os.environ.get(name, "1") not in ("", "0", "1"):
            raise MikoError(
                f"{name}={os.environ[name]}: one process may train, as several would write the "
                "same files; start it without accelerate launch, torchrun or mpirun (compare "
                "makes processes of its own by --jobs, and CUDA_VISIBLE_DEVICES names the GPU)"
            )
