"""The training loop: one stage at a time, resumable at any step."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from miko_clf.encode.learn import depths
from miko_clf.errors import MikoError, RecipeError
from miko_clf.fuse.fused import Batch
from miko_clf.fuse.model import Model
from miko_clf.recipe import Recipe
from miko_clf.train import checkpoint, optim
from miko_clf.train.average import Average
from miko_clf.train.bar import Bar
from miko_clf.train.checkpoint import Progress
from miko_clf.train.feed import Feed
from miko_clf.train.losses import vary
from miko_clf.train.optim import Pace
from miko_clf.train.order import Order
from miko_clf.train.stages import Stage, TaskStage


class StoppedError(MikoError):
    """Training was interrupted after it had written a checkpoint."""


@dataclass(frozen=True)
class Run:
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


def run(settings: Run, model: Model, stage: Stage, train: Feed, val: Feed) -> None:
    """Train one stage to its end and leave its best weights in the model.

    A stage that an earlier process finished or left in the middle goes on from there; on a
    CPU the weights are those of an uninterrupted run. Raises `StoppedError` on Ctrl-C, and
    `RecipeError` once what is computed is no longer finite.
    """
    folder = settings.folder / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    if not checkpoint.is_done(folder):
        _Training(settings, model, stage, train, val, folder).run()
    checkpoint.load_best(model, folder)


class _Training:
    """One stage under way."""

    def __init__(
        self,
        settings: Run,
        model: Model,
        stage: Stage,
        train: Feed,
        val: Feed,
        folder: Path,
    ) -> None:
        self.settings, self.stage, self.val, self.folder = settings, stage, val, folder
        recipe, rates = settings.recipe, stage.settings.optimiser
        self.accelerator = Accelerator(
            mixed_precision=precision(),
            log_with=list(settings.trackers) or None,
            project_dir=str(settings.folder),
        )
        if settings.trackers:
            self.accelerator.init_trackers("miko_clf", {"recipe": recipe.name})
        lengths = settings.lengths or [train.length(index) for index in range(len(train))]
        self.order = Order(lengths, recipe.batch_size, recipe.seed)
        optimiser = optim.optimiser(model, rates, _paces(recipe, model, rates.tower_rate))
        schedule = optim.schedule(optimiser, rates, stage.settings.epochs * len(self.order))
        indices: Any = range(len(train))
        loader = DataLoader(indices, batch_sampler=self.order, collate_fn=train.batch)
        self.model, self.optimiser, self.schedule, self.loader = self.accelerator.prepare(
            model, optimiser, schedule, loader
        )
        self.progress, self.average = Progress(), Average(model, rates.average)
        state = [self.progress, self.average]
        if isinstance(stage, TaskStage) and stage.retrieving is not None:
            state.append(stage.retrieving)
        self.accelerator.register_for_checkpointing(*state)
        checkpoint.keep_frozen_out(self.accelerator)
        checkpoint.restore(self.accelerator, folder)
        checkpoint.trim(settings.metrics, stage.name, self.progress.step)

    def run(self) -> None:
        """Train epoch by epoch until the last one, or until validation stops improving."""
        with interrupts() as asked, Bar(self.stage.name, self.accelerator) as bar:
            while not self.progress.finished:
                self._epoch(bar, asked)
                self._validate(bar)
                checkpoint.save(self.accelerator, self.folder, self.progress.step)
        self.accelerator.end_training()
        checkpoint.finish(
            self.folder, {"best": self.progress.best, "epoch": self.progress.best_epoch}
        )
        self.accelerator.free_memory()

    def _epoch(self, bar: Bar, asked: list[int]) -> None:
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
                checkpoint.save(self.accelerator, self.folder, progress.step)
                raise StoppedError(
                    f"stopped in stage {self.stage.name} at step {progress.step}, "
                    "which is saved; the same command goes on from there"
                )
            if time.monotonic() - saved > 60 * self.settings.minutes:
                checkpoint.save(self.accelerator, self.folder, progress.step)
                saved = time.monotonic()

    def _step(self, batch: Batch) -> float:
        """Optimise once; what is random is a function of seed, stage and step alone."""
        seeds = [self.settings.recipe.seed, len(self.stage.name), self.progress.step]
        random = np.random.default_rng(seeds)
        torch.manual_seed(int(random.integers(2**62)))
        batch = vary(batch, self.settings.recipe, random)
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

    def _validate(self, bar: Bar) -> None:
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
                    checkpoint.save_best(model, self.folder)
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
def interrupts() -> Iterator[list[int]]:
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


def precision() -> str:
    """Return bf16 where the GPU computes in it, else full precision."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _paces(recipe: Recipe, model: Model, usual: float) -> dict[str, Pace]:
    """Return how fast each tower learns that does not start from scratch, by prefix."""
    towers = {
        "image_tower.": (recipe.image, model.image_tower),
        "text_tower.": (recipe.text, model.text_tower),
    }
    return {
        prefix: Pace(section.rate or usual, section.layer_decay, depths(tower))
        for prefix, (section, tower) in towers.items()
        if section is not None and tower is not None and section.source != "tiny"
    }
