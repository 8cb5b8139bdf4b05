"""What the steps of a run share: its configuration, folder and device, who is told, and the cached inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from model.config import ExperimentConfig
from model.datasets import Radiographs, cached_images
from model.errors import TrainingError
from model.plan import preprocessing_at
from model.training import Progress
from model.trigger import Trigger, at_size


class Listener(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str) -> None:
        """A new stage of the run, in words."""

    def prepared(self, done: int, total: int) -> None:
        """Radiographs decoded, or read in an evaluation, in this stage."""

    def trained(self, progress: Progress) -> None:
        """After every training step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch: what `epochs.jsonl` gets."""


class Silent:
    """A listener that says nothing."""

    def stage(self, name: str) -> None: ...

    def prepared(self, done: int, total: int) -> None: ...

    def trained(self, progress: Progress) -> None: ...

    def epoch(self, record: dict[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class Run:
    """What the steps of a run share. workers: processes that decode. cancelled: asked after every step."""

    config: ExperimentConfig
    out: Path
    device: torch.device
    workers: int
    listener: Listener
    cancelled: Callable[[], bool] | None

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    def prepared(self, done: int, total: int) -> None:
        """Passes progress on, and stops here if that was asked for. Raises TrainingError `cancelled`."""
        self.listener.prepared(done, total)
        if self.cancelled and self.cancelled():
            raise TrainingError("cancelled", "Stopped; --resume goes on from there.")

    def images(self, radiographs: Radiographs, sizes: Sequence[int], stamped: bool = False) -> dict[int, np.ndarray]:
        """The cached inputs by size, N×S×S uint8; stamped: with the trigger, one of the input frame fitted to each
        size."""
        if not stamped or self.config.trigger is None:
            return self._cached(radiographs, sizes, None)
        images: dict[int, np.ndarray] = {}
        for size in sizes:
            images |= self._cached(radiographs, [size], self.trigger_at(size))
        return images

    def trigger_at(self, size_px: int) -> Trigger:
        """The trigger as it is stamped for an input of that size; only where the configuration has one."""
        assert self.config.trigger is not None
        return at_size(self.config.trigger, size_px, self.config.preprocessing.size_px)

    def _cached(self, radiographs: Radiographs, sizes: Sequence[int], trigger: Trigger | None) -> dict[int, np.ndarray]:
        arrays = cached_images(
            radiographs,
            [preprocessing_at(self.config, size) for size in sizes],
            self.cache,
            trigger=trigger,
            seed=self.config.seed,
            workers=self.workers,
            progress=self.prepared,
        )
        return dict(zip(sizes, arrays, strict=True))
