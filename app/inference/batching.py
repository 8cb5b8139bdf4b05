"""One batch through one network: what each radiograph in it gets, whatever happens to the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from app.services.errors import BusyError
from model.checkpoint import Card, Checkpoint
from model.detector import Calibration, Detector, Flag
from model.errors import ConfigError
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import MIN_SIZE_PX, gradcam

log = logging.getLogger("overread.inference")
Role = Literal["middle", "last"]
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

    def __init__(self, largest: int) -> None:
        self.largest = largest

    def run(self, items: Sequence[Item]) -> None:
        """Answers every item, grouped by checkpoint and input size, in the order in which the groups came."""
        groups: dict[tuple[int, int, bool, torch.Size], list[Item]] = {}
        for item in items:
            if item.result.set_running_or_notify_cancel():  # else nobody waits for it any more
                groups.setdefault(item.group, []).append(item)
        for group in groups.values():
            while group:
                batch, group = group[: self.largest], group[self.largest :]
                self._answer(batch)

    def _answer(self, items: list[Item]) -> None:
        """A batch that fails is halved until what fails stands alone."""
        try:
            first = items[0]
            inputs = torch.cat([item.inputs for item in items])
            readings = read_batch(first.checkpoint, inputs, first.detector, first.screen)
        except BaseException as error:
            if isinstance(error, Exception) and len(items) > 1:
                half = len(items) // 2
                if out_of_memory(error):
                    self._make_room(half)
                self._answer(items[:half])
                self._answer(items[half:])
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

    def _make_room(self, largest: int) -> None:
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
