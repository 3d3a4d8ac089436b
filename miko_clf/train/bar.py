"""What a stage shows while it runs: a bar on a terminal, a line an epoch elsewhere."""

from collections.abc import Mapping
from types import TracebackType

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


class Bar:
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

    def __enter__(self) -> "Bar":
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
