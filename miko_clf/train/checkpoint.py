"""Checkpoints of a stage: complete or absent, the newest wins."""

import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from miko_clf.manifest import write_atomically, write_json, write_text

BEST_WEIGHTS = "best.safetensors"
STAGE_DONE = "done.json"


@dataclass
class StageProgress:
    """Where a stage stands. `step` counts optimisation steps, `best` is a validation value."""

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    finished: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Return every field by name."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take every field from `state`."""
        for field in fields(self):
            setattr(self, field.name, state[field.name])


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write the state of everything that was prepared, then drop older checkpoints."""
    path = folder / f"checkpoint-{step:08d}"
    if accelerator.is_main_process and not path.exists():
        with write_atomically(path) as beside:
            accelerator.save_state(str(beside))
        for old in _list_checkpoints(folder)[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def restore_checkpoint(accelerator: Accelerator, folder: Path) -> bool:
    """Load the newest checkpoint, if there is one; say whether there was."""
    paths = _list_checkpoints(folder)
    if paths:
        accelerator.load_state(str(paths[-1]), strict=False)
    return bool(paths)


def exclude_frozen_weights(accelerator: Accelerator) -> None:
    """Leave weights that never change out of checkpoints, and second names of tied ones."""

    def drop(models: list[nn.Module], weights: list[dict[str, Any]], _: str) -> None:
        for model, state in zip(models, weights, strict=True):
            for name in _list_left_out(accelerator.unwrap_model(model)):
                state.pop(name, None)

    accelerator.register_save_state_pre_hook(drop)


def save_best_weights(model: nn.Module, folder: Path) -> None:
    """Write what learns of the model as the best so far."""
    left_out = _list_left_out(model)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in left_out}
    with write_atomically(folder / BEST_WEIGHTS) as beside:
        save_file(state, beside)


def load_best_weights(model: nn.Module, folder: Path) -> None:
    """Load what `save_best_weights` wrote."""
    model.load_state_dict(load_file(folder / BEST_WEIGHTS), strict=False)


def finish_stage(folder: Path, facts: dict[str, Any]) -> None:
    """Mark the stage as done and drop its checkpoints."""
    write_json(folder / STAGE_DONE, facts)
    for path in _list_checkpoints(folder):
        shutil.rmtree(path)


def is_stage_done(folder: Path) -> bool:
    """Say whether the stage was finished."""
    return (folder / STAGE_DONE).exists()


def trim_metrics(path: Path, stage: str, step: int) -> None:
    """Drop the lines of a metrics file that a resumed stage will write again."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line a killed run was at
        if row["stage"] != stage or row["step"] <= step:
            lines.append(line + "\n")
    write_text(path, "".join(lines))


def _list_checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def _list_left_out(model: nn.Module) -> set[str]:
    """Return the names of what is frozen, and every name of a tied weight but the first."""
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - learns
