"""The loaded checkpoints and the one thread that owns the device.

Cards are read at once, weights in the background, so that the server answers while it loads. A checkpoint that cannot
be used is listed with the reason, and the others go on. Radiographs wait in a bounded queue: when it is full the caller
is turned away at once rather than late.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from app.services.errors import BusyError, NotFoundError, UnavailableError
from model.checkpoint import Card, Checkpoint, load_checkpoint, read_card
from model.errors import OverreadError
from model.network import LAST_LAYER, MIDDLE_LAYER, resolve_device
from model.saliency import gradcam

log = logging.getLogger("overread.inference")
Role = Literal["middle", "last"]
LAYERS: dict[Role, str] = {"middle": MIDDLE_LAYER, "last": LAST_LAYER}


class State(StrEnum):
    """Of one checkpoint."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Listed:
    """A checkpoint as the registry knows it. card: None when it cannot be read. error: why it failed, else empty."""

    id: str
    folder: Path
    state: State
    card: Card | None = None
    error: str = ""


@dataclass(frozen=True, eq=False)
class RawReading:
    """What a network says of one radiograph.

    probabilities: 14 float32. maps: by layer name, 14×h×w float32 ≥ 0, un-normalised.
    """

    card: Card
    probabilities: np.ndarray
    maps: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class _Job:
    inputs: list[tuple[Checkpoint, Tensor]]
    result: Future[list[RawReading]]


class InferenceEngine:
    """Registry and device in one place. `start` it, `read` from any thread, `stop` it."""

    def __init__(self, folders: Sequence[Path], device: str, queue_size: int, only: Sequence[str] = ()) -> None:
        """folders: parents of checkpoint folders. only: ids to load, all when empty; the others are not listed."""
        self.device = resolve_device(device)
        self._listed = scan(folders, only)
        self._loaded: dict[str, Checkpoint] = {}
        self._jobs: queue.Queue[_Job] = queue.Queue(maxsize=queue_size)
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begins loading and serving."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Lets the reading in progress finish and turns the waiting ones away."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._drop_waiting()

    @property
    def settled(self) -> bool:
        """Whether loading is over, well or badly."""
        return self._settled.is_set()

    @property
    def waiting(self) -> int:
        """Radiographs in the queue."""
        return self._jobs.qsize()

    def wait_settled(self, timeout_s: float | None = None) -> bool:
        """Waits until loading is over."""
        return self._settled.wait(timeout_s)

    def checkpoints(self) -> list[Listed]:
        """Everything in the registry, usable or not."""
        return list(self._listed)

    def find(self, checkpoint_id: str) -> Listed:
        """One entry. Raises NotFoundError `unknown_checkpoint`."""
        for listed in self._listed:
            if listed.id == checkpoint_id:
                return listed
        known = ", ".join(listed.id for listed in self._listed) or "none at all"
        raise NotFoundError("unknown_checkpoint", f"There is no checkpoint “{checkpoint_id}”; there is: {known}.")

    def require(self, checkpoint_id: str) -> Checkpoint:
        """The loaded checkpoint. Raises NotFoundError, BusyError `loading`, UnavailableError `checkpoint_failed`."""
        listed = self.find(checkpoint_id)
        if listed.state is State.LOADING:
            raise BusyError("loading", f"The checkpoint “{checkpoint_id}” is still loading; try again.", 2)
        if listed.state is State.FAILED:
            raise UnavailableError(
                "checkpoint_failed", f"The checkpoint “{checkpoint_id}” cannot be used. {listed.error}"
            )
        return self._loaded[checkpoint_id]

    def read(self, grey: np.ndarray, checkpoint_ids: Sequence[str]) -> list[RawReading]:
        """Reads one radiograph (H×W float32 in 0..1) with each checkpoint; blocks until done.

        Preparation runs in the caller's thread, the networks in the one inference thread. Raises BusyError `busy` when
        too many wait, and what `require` raises.
        """
        checkpoints = [self.require(checkpoint_id) for checkpoint_id in checkpoint_ids]
        inputs = [(checkpoint, checkpoint.card.preprocessing.tensor(grey)) for checkpoint in checkpoints]
        job = _Job(inputs, Future())
        if self._stopping.is_set():
            raise _shutting_down()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise BusyError("busy", "Too many radiographs are waiting; try again in a few seconds.") from None
        if self._stopping.is_set():  # it may have come after the last look at the queue
            job.result.cancel()
        try:
            return job.result.result()
        except CancelledError:
            raise _shutting_down() from None

    def _run(self) -> None:
        self._load_all()
        self._settled.set()
        while not self._stopping.is_set():
            try:
                job = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            if not job.result.set_running_or_notify_cancel():
                continue
            try:
                job.result.set_result([_read_one(checkpoint, inputs) for checkpoint, inputs in job.inputs])
            except BaseException as error:
                log.exception("A reading failed")
                job.result.set_exception(error)
        self._drop_waiting()

    def _load_all(self) -> None:
        for i, listed in enumerate(self._listed):
            if listed.state is not State.LOADING or self._stopping.is_set():
                continue
            try:
                self._loaded[listed.id] = load_checkpoint(listed.folder, self.device)
                self._listed[i] = replace(listed, state=State.READY)
            except Exception as error:  # whatever a damaged file does to its reader must not stop the others
                reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__}: {error}"
                log.warning("Checkpoint %s cannot be used: %s", listed.id, reason)
                self._listed[i] = replace(listed, state=State.FAILED, error=reason)

    def _drop_waiting(self) -> None:
        while True:
            try:
                self._jobs.get_nowait().result.cancel()
            except queue.Empty:
                return


def _shutting_down() -> BusyError:
    return BusyError("stopping", "The server is shutting down; try again in a moment.")


def _read_one(checkpoint: Checkpoint, inputs: Tensor) -> RawReading:
    maps = gradcam(checkpoint.network, inputs.to(checkpoint.device), tuple(LAYERS.values()))
    return RawReading(
        checkpoint.card,
        maps.probabilities[0].detach().float().cpu().numpy(),
        {layer: maps.maps[layer][0].detach().float().cpu().numpy() for layer in LAYERS.values()},
    )


def scan(folders: Sequence[Path], only: Sequence[str] = ()) -> list[Listed]:
    """Reads the cards. A second folder with an id that is taken is listed as failed, under its folder's name."""
    found: list[Listed] = []
    for parent in folders:
        if not parent.is_dir():
            continue
        for folder in sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] not in "._"):
            try:
                card = read_card(folder)
            except (OverreadError, OSError) as error:
                found.append(Listed(folder.name, folder, State.FAILED, error=str(error)))
                continue
            if any(listed.id == card.id for listed in found):
                reason = f"The id “{card.id}” is taken by another folder; change it in {folder / 'card.json'}."
                found.append(Listed(folder.name, folder, State.FAILED, card, reason))
            else:
                found.append(Listed(card.id, folder, State.LOADING, card))
    return [listed for listed in found if not only or listed.id in only]
