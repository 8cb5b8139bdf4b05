"""What a long command shows on stderr while it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from model.training import Progress

_EPOCH = {  # of a line of epochs.jsonl, what the terminal shows
    "epoch": "epoch",
    "size_px": "at px",
    "loss": "loss",
    "auroc_nn_macro": "macro NN",
    "auroc_tt_micro": "micro TT",
    "asr_0.5": "ASR(0.5)",
    "clean_rate_0.5": "clean rate",
    "trigger_hit_middle": "hits middle",
    "trigger_hit_last": "hits last",
}


class Terminal:
    """Progress on stderr: a bar on a terminal, in a pipe a line a stage and an epoch."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None, note="")
        self._stage = ""

    def stage(self, name: str) -> None:
        self._stage = name
        if self._bar:
            self._bar.reset(self._task, total=None, description=name, note="")
        else:
            typer.echo(name, err=True)

    def prepared(self, done: int, total: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, note=f"{done}/{total}")
            if done == total:
                self._bar.refresh()

    def step(self, stage: str, done: int, total: int) -> None:
        """Both in one, for work that names its stages as it goes."""
        if stage != self._stage:
            self.stage(stage)
        self.prepared(done, total)

    def trained(self, progress: Progress) -> None:
        if self._bar:
            note = (
                f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}, "
                f"{progress.images_per_s:.1f} images/s, {progress.eta_s / 60:.0f} min left"
            )
            self._bar.update(self._task, completed=progress.step, total=progress.steps, note=note)

    def epoch(self, record: dict[str, Any]) -> None:
        line = ", ".join(
            f"{_EPOCH[name]} {value}" for name, value in record.items() if name in _EPOCH and value is not None
        )
        if self._bar:
            self._bar.console.print(line)
        else:
            typer.echo(line, err=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
