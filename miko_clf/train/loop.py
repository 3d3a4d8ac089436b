"""The training loop: one stage at a time, resumable at any step."""

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.data import DataLoader

from miko_clf.encode.finetune import count_blocks_above
from miko_clf.errors import MikoError, RecipeError
from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch
from miko_clf.recipe.schema import Recipe
from miko_clf.train import checkpoint, optim
from miko_clf.train.checkpoint import StageProgress
from miko_clf.train.dataloader import EncodedDataset, LengthGroupedBatchSampler
from miko_clf.train.optim import LayerwiseRate, WeightAverage
from miko_clf.train.predict import drop_inputs
from miko_clf.train.stages import Stage, TaskStage


class EpochBar:
    """Loss, rate and time left of the epoch under way; shown by the main process alone."""

    def __init__(self, stage: str, accelerator: Accelerator) -> None:
        self.stage = stage
        self.console = Console(stderr=True, quiet=not accelerator.is_main_process)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.total, self.count = 0.0, 0

    def __enter__(self) -> "EpochBar":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def begin(self, epoch: int, epochs: int, num_steps: int, start: int) -> None:
        """Start the bar of an epoch at the step it goes on from."""
        self.total, self.count = 0.0, 0
        name = f"{self.stage} {epoch + 1}/{epochs}"
        self.task = self.progress.add_task(name, total=num_steps, completed=start, note="")

    def step(self, loss: float, rate: float) -> None:
        """Move on by one step."""
        self.total, self.count = self.total + loss, self.count + 1
        note = f"loss {self.total / self.count:.4f} rate {rate:.1e}"
        self.progress.update(self.task, advance=1, note=note)

    def end(self, epoch: int, measured: Mapping[str, float], *, improved: bool) -> None:
        """Close the bar and leave a line with what validation measured."""
        self.progress.remove_task(self.task)
        shown = ("loss", "macro_f1", "auroc")
        values = " ".join(f"{name} {measured[name]:.4f}" for name in shown if name in measured)
        loss = f"loss {self.total / self.count:.4f}, " if self.count else ""
        mark = " (best so far)" if improved else ""
        line = f"{self.stage} epoch {epoch}: {loss}validation {values}{mark}"
        self.console.print(line, highlight=False)


class StoppedError(MikoError):
    """Training was interrupted after it had written a checkpoint."""


@dataclass(frozen=True)
class TrainingRun:
    """What stays the same over the stages of one training run.

    `minutes` pass between checkpoints within an epoch; `trackers` are accelerate's names. Posts of
    like `lengths` are batched, by default of as many tokens.
    """

    recipe: Recipe
    folder: Path
    minutes: float = 10.0
    trackers: tuple[str, ...] = ()
    lengths: tuple[int, ...] | None = None

    @property
    def metrics(self) -> Path:
        """The log of the run, one JSON object a line."""
        return self.folder / "metrics.jsonl"


def train_stage(
    settings: TrainingRun, model: Model, stage: Stage, train: EncodedDataset, val: EncodedDataset
) -> None:
    """Train one stage to its end and leave its best weights in the model.

    A stage that an earlier process finished or left in the middle goes on from there; on a
    CPU the weights are those of an uninterrupted run. Raises `StoppedError` on Ctrl-C, and
    `RecipeError` once what is computed is no longer finite.
    """
    folder = settings.folder / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    if not checkpoint.is_stage_done(folder):
        _StageTraining(settings, model, stage, train, val, folder).run()
    checkpoint.load_best_weights(model, folder)


class _StageTraining:
    """One stage under way."""

    def __init__(
        self,
        settings: TrainingRun,
        model: Model,
        stage: Stage,
        train: EncodedDataset,
        val: EncodedDataset,
        folder: Path,
    ) -> None:
        self.settings, self.stage, self.val, self.folder = settings, stage, val, folder
        recipe, rates = settings.recipe, stage.settings.optimiser
        self.accelerator = Accelerator(
            mixed_precision=choose_precision(),
            log_with=list(settings.trackers) or None,
            project_dir=str(settings.folder),
        )
        if settings.trackers:
            self.accelerator.init_trackers("miko_clf", {"recipe": recipe.name})
        lengths = settings.lengths or [train.length(index) for index in range(len(train))]
        self.order = LengthGroupedBatchSampler(lengths, recipe.batch_size, recipe.seed)
        optimiser = optim.build_optimiser(
            model, rates, _set_tower_rates(recipe, model, rates.tower_rate)
        )
        schedule = optim.build_schedule(optimiser, rates, stage.settings.epochs * len(self.order))
        indices: Any = range(len(train))
        loader = DataLoader(indices, batch_sampler=self.order, collate_fn=train.batch)
        self.model, self.optimiser, self.schedule, self.loader = self.accelerator.prepare(
            model, optimiser, schedule, loader
        )
        self.progress, self.average = StageProgress(), WeightAverage(model, rates.average)
        state = [self.progress, self.average]
        if isinstance(stage, TaskStage) and stage.retrieving is not None:
            state.append(stage.retrieving)
        self.accelerator.register_for_checkpointing(*state)
        checkpoint.exclude_frozen_weights(self.accelerator)
        checkpoint.restore_checkpoint(self.accelerator, folder)
        checkpoint.trim_metrics(settings.metrics, stage.name, self.progress.step)

    def run(self) -> None:
        """Train epoch by epoch until the last one, or until validation stops improving."""
        with catch_interrupts() as asked, EpochBar(self.stage.name, self.accelerator) as bar:
            while not self.progress.finished:
                self._epoch(bar, asked)
                self._validate(bar)
                checkpoint.save_checkpoint(self.accelerator, self.folder, self.progress.step)
        self.accelerator.end_training()
        checkpoint.finish_stage(
            self.folder, {"best": self.progress.best, "epoch": self.progress.best_epoch}
        )
        self.accelerator.free_memory()

    def _epoch(self, bar: EpochBar, asked: list[int]) -> None:
        progress = self.progress
        self.order.epoch = progress.epoch
        self.order.start = progress.step - progress.epoch * len(self.order)
        bar.begin(progress.epoch, self.stage.settings.epochs, len(self.order), self.order.start)
        self.stage.begin(self.model, progress.epoch)
        self.model.train()
        saved = time.monotonic()
        for batch in self.loader:
            loss = self._step(batch)
            bar.step(loss, self.schedule.get_last_lr()[0])
            if progress.step % 20 == 0:
                self._log({"loss": loss, "rate": self.schedule.get_last_lr()[0]})
            if asked:
                checkpoint.save_checkpoint(self.accelerator, self.folder, progress.step)
                raise StoppedError(
                    f"stopped in stage {self.stage.name} at step {progress.step}, "
                    "which is saved; the same command goes on from there"
                )
            if time.monotonic() - saved > 60 * self.settings.minutes:
                checkpoint.save_checkpoint(self.accelerator, self.folder, progress.step)
                saved = time.monotonic()

    def _step(self, batch: Batch) -> float:
        """Optimise once; what is random is a function of seed, stage and step alone."""
        seeds = [self.settings.recipe.seed, len(self.stage.name), self.progress.step]
        random = np.random.default_rng(seeds)
        torch.manual_seed(int(random.integers(2**62)))
        batch = drop_inputs(batch, self.settings.recipe, random)
        with self.accelerator.autocast():
            loss = self.stage.loss(self.model, batch)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(
            self.model.parameters(), self.stage.settings.optimiser.clip
        )
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update()
        self.progress.step += 1
        return float(loss.detach())

    def _validate(self, bar: EpochBar) -> None:
        progress, early = self.progress, self.stage.settings.early
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
        progress.finished = waited >= early.patience or progress.epoch >= self.stage.settings.epochs
        self._log({"validation": dict(measured)})
        bar.end(progress.epoch, measured, improved=not waited)

    def _refuse_diverged(self, loss: float) -> None:
        if not math.isfinite(loss):
            name, rate = self.stage.name, self.stage.settings.optimiser.rate
            raise RecipeError(
                f"training diverged: the validation loss of stage {name} is not finite at step "
                f"{self.progress.step}; lower {name}.optimiser.rate, which is {rate:g}"
            )

    def _log(self, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        where = {
            "stage": self.stage.name,
            "epoch": self.progress.epoch,
            "step": self.progress.step,
        }
        with self.settings.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**where, **values}) + "\n")
        if self.settings.trackers:
            flat = values.get("validation", values)
            self.accelerator.log(
                {f"{self.stage.name}/{name}": value for name, value in flat.items()},
                step=self.progress.step,
            )


@contextmanager
def catch_interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that a step is never cut in two."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda given, _: asked.append(given))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def choose_precision() -> str:
    """Return bf16 where the GPU computes in it, else full precision."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _set_tower_rates(recipe: Recipe, model: Model, usual: float) -> dict[str, LayerwiseRate]:
    """Return how fast each tower learns that does not start from scratch, by prefix."""
    towers = {
        "image_tower.": (recipe.image, model.image_tower),
        "text_tower.": (recipe.text, model.text_tower),
    }
    return {
        prefix: LayerwiseRate(section.rate or usual, section.layer_decay, count_blocks_above(tower))
        for prefix, (section, tower) in towers.items()
        if section is not None and tower is not None and section.source != "tiny"
    }
