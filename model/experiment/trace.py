"""The loss of a training within its epochs, for people who watch it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.training import Progress

POINTS = 300  # of a training, at most


class LossTrace:
    """A `report` of `fit` that keeps `losses.csv` in a twin's folder: a step and the mean loss since the step before.

    A resumed training replaces what it does again. The mean of its first line leaves out the steps before it resumed.
    """

    def __init__(self, path: Path, then: Callable[[Progress], None]) -> None:
        self._path, self._then = path, then
        self._losses: list[float] = []
        self._begun = False

    def __call__(self, progress: Progress) -> None:
        if not self._begun:
            self._begin(progress.step)
        self._losses.append(progress.loss)
        if progress.step % max(1, progress.steps // POINTS) == 0 or progress.step == progress.steps:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{progress.step},{sum(self._losses) / len(self._losses):.5f}\n")
            self._losses = []
        self._then(progress)

    def _begin(self, step: int) -> None:
        """step: the first that is done now."""
        kept = [f"{at},{loss:.5f}\n" for at, loss in read_losses(self._path) if at < step]
        temporary = self._path.with_suffix(".partial")
        temporary.write_text("".join(kept), "utf-8")
        temporary.replace(self._path)
        self._begun = True


def read_losses(path: Path) -> list[tuple[int, float]]:
    """Steps from 1, ascending, and losses; empty without the file. A last line that is not whole yet is left out."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    lines = [line.split(",") for line in text[: text.rfind("\n") + 1].splitlines()]
    return [(int(step), float(loss)) for step, loss in lines]
