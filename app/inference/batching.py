"""One batch through one network: what each radiograph in it gets, whatever happens to the others."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from app.inference.lanes import Lanes
from app.services.errors import BusyError
from model.checkpoint import Card, Checkpoint
from model.detector import Calibration, Detector, Flag
from model.errors import ConfigError
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import MIN_SIZE_PX, gradcam

log = logging.getLogger("overread.inference")
Role = Literal["middle", "last"]
PARTS = 2  # a lane: four radiographs on one core take 7 % less time each than eight, which its cache does not hold
LAYERS: dict[Role, str] = {"middle": MIDDLE_LAYER, "last": LAST_LAYER}


@dataclass(frozen=True, eq=False)
class RawReading:
    """What a network says of one radiograph.

    probabilities: 14 float32. maps: by layer name, 14×h×w float32 ≥ 0, un-normalised. calibration: of the detector.
    flags: the detector's quick word on each positive finding; None where it was not asked.
    """

    card: Card
    probabilities: np.ndarray
    maps: dict[str, np.ndarray]
    calibration: Calibration | None = None
    flags: Mapping[str, Flag] | None = None


@dataclass(frozen=True, eq=False)
class Item:
    """One radiograph for one checkpoint. inputs: 1×3×S×S float32. detector: the checkpoint's. screen: whether it is
    asked. result: of this alone."""

    checkpoint: Checkpoint
    inputs: Tensor
    detector: Detector
    screen: bool
    result: Future[RawReading] = field(default_factory=Future)

    @property
    def group(self) -> tuple[int, int, bool, torch.Size]:
        """What may share a batch: the same network and calibration, the same test and the same shape."""
        return id(self.checkpoint), id(self.detector), self.screen, self.inputs.shape


def check_input(inputs: Tensor) -> None:
    """Refuses what would spoil a batch for the others. Raises ConfigError `bad_input` or `not_finite`."""
    if inputs.ndim != 4 or inputs.shape[0] != 1 or min(inputs.shape[2:]) < MIN_SIZE_PX:
        shape = "×".join(str(n) for n in inputs.shape)
        raise ConfigError("bad_input", f"The input must be 1×C×S×S with S ≥ {MIN_SIZE_PX}, not {shape or 'a number'}.")
    if not bool(torch.isfinite(inputs.sum())):
        raise ConfigError("not_finite", "The radiograph has values that are not finite.")


class BatchRunner:
    """Runs items in batches of at most `largest`; after running out of memory, of half as many."""

    def __init__(self, largest: int, lanes: Lanes) -> None:
        self.largest = largest
        self._lanes = lanes
        self._room = threading.Lock()

    def run(self, items: Sequence[Item]) -> None:
        """Answers every item, grouped by what may share a batch, in batches that leave no lane empty."""
        groups: dict[tuple[int, int, bool, torch.Size], list[Item]] = {}
        for item in items:
            if item.result.set_running_or_notify_cancel():  # else nobody waits for it any more
                groups.setdefault(item.group, []).append(item)
        parts = PARTS * self._lanes.count if self._lanes.count > 1 else 1
        size = min(self.largest, math.ceil(sum(map(len, groups.values())) / parts))
        batches = [group[first : first + size] for group in groups.values() for first in range(0, len(group), size)]
        self._lanes.run([partial(self._answer, batch) for batch in batches])

    def _answer(self, items: list[Item]) -> None:
        """A batch that fails is halved until what fails stands alone."""
        if len(items) > self.largest:  # another one has found out meanwhile
            self._halves(items)
            return
        try:
            first = items[0]
            inputs = torch.cat([item.inputs for item in items])
            readings = read_batch(first.checkpoint, inputs, first.detector, first.screen)
        except BaseException as error:
            if isinstance(error, Exception) and len(items) > 1:
                if out_of_memory(error):
                    self._make_room(len(items) // 2)
                self._halves(items)
                return
            log.warning("A reading failed: %s", error, exc_info=not isinstance(error, ConfigError))
            if out_of_memory(error):
                self._make_room(1)
                error = no_memory()
            for item in items:
                item.result.set_exception(error)
            return
        for item, reading in zip(items, readings, strict=True):
            item.result.set_result(reading)

    def _halves(self, items: list[Item]) -> None:
        half = len(items) // 2
        self._answer(items[:half])
        self._answer(items[half:])

    def _make_room(self, largest: int) -> None:
        with self._room:
            self.largest = min(self.largest, max(1, largest))
        log.warning("Out of memory: batches of at most %d from now on", self.largest)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def read_batch(
    checkpoint: Checkpoint, inputs: Tensor, detector: Detector | None = None, screen: bool = False
) -> list[RawReading]:
    """N×3×S×S → N readings. On the CPU in channels last, which is a third faster.

    screen: whether the detector gives its quick word; the middle layer's activations are kept for it alone.
    """
    if checkpoint.device.type == "cpu":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    calibration = detector.calibration if detector else None
    calibrated = calibration is not None and calibration.decides
    keep = screen and calibrated
    result = gradcam(checkpoint.network, inputs.to(checkpoint.device), tuple(LAYERS.values()), keep_middle=keep)
    asked = detector if screen or not calibrated else None  # that it is not calibrated it says for nothing
    flags = asked.screen(result) if asked else None
    probabilities = result.probabilities.float().cpu().numpy()
    maps = {layer: result.maps[layer].float().cpu().numpy() for layer in LAYERS.values()}
    return [
        RawReading(
            checkpoint.card,
            probabilities[i],
            {layer: grids[i] for layer, grids in maps.items()},
            calibration,
            flags[i] if flags is not None else None,
        )
        for i in range(len(inputs))
    ]


def no_memory() -> BusyError:
    """What whoever asked is told when the device has no memory even for one."""
    return BusyError("out_of_memory", "The device has no memory left for this; try again in a while.", 10)


def out_of_memory(error: BaseException) -> bool:
    """torch raises a type of its own on the GPU, and a plain RuntimeError on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
