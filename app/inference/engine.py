"""The loaded checkpoints and the one thread that owns the device.

Cards are read at once, weights in the background, so that the server answers while it loads. A checkpoint that cannot
be used is listed with the reason, and the others go on. Radiographs wait in a bounded queue: when it is full the caller
is turned away at once rather than late.

What waits together is read together. The thread waits for more, a few milliseconds, only while somebody is known to be
on the way: a radiograph that comes alone is read at once.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from app.inference.batching import BatchRunner, Item, RawReading, check_input, no_memory, out_of_memory
from app.inference.registry import Listed, State, scan
from app.services.errors import BusyError, NotFoundError, UnavailableError
from model.checkpoint import Checkpoint, load_checkpoint
from model.errors import OverreadError
from model.network import resolve_device
from model.preprocess import Preprocessing

log = logging.getLogger("overread.inference")
GATHER_S = 0.005
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class _Call:
    """Something else to do on the device."""

    act: Callable[[], Any]
    result: Future[Any]


_Work = tuple[Item, ...] | _Call


class InferenceEngine:
    """Registry and device in one place. `start` it, `read` from any thread, `stop` it."""

    def __init__(
        self, folders: Sequence[Path], device: str, queue_size: int, only: Sequence[str] = (), batch_size: int = 8
    ) -> None:
        """folders: parents of checkpoint folders. queue_size: radiographs that may wait. only: ids to load, all when
        empty; the others are not listed. batch_size: radiographs that one pass reads at most.
        """
        self.device = resolve_device(device)
        self.batch_size = batch_size
        self._folders, self._only = list(folders), list(only)
        self._seen = self._changed_at()
        self._listed = scan(folders, only)
        self._new: deque[int] = deque()  # places in _listed
        self._looking = threading.Lock()
        self._loaded: dict[str, Checkpoint] = {}
        self._jobs: queue.Queue[_Work] = queue.Queue(maxsize=queue_size)
        self._runner = BatchRunner(batch_size)
        self._arriving = 0
        self._arriving_lock = threading.Lock()
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begins loading and serving."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Lets the batch in progress finish and turns the waiting ones away."""
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
        """Everything in the registry, usable or not; with what came into its folders since."""
        self._look_again()
        return list(self._listed)

    def find(self, checkpoint_id: str) -> Listed:
        """One entry. Raises NotFoundError `unknown_checkpoint`."""
        found = self._find(checkpoint_id)
        if found is None:
            self._look_again()
            found = self._find(checkpoint_id)
        if found is not None:
            return found
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

    def check_room(self) -> None:
        """Turns a caller away before anything was done for it. Raises BusyError `busy`."""
        if self._jobs.full():
            raise _busy()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Around what is done before `read`, decoding say: others' radiographs wait a moment to be read with this."""
        with self._arriving_lock:
            self._arriving += 1
        try:
            yield
        finally:
            with self._arriving_lock:
                self._arriving -= 1

    def read(self, grey: np.ndarray, checkpoint_ids: Sequence[str]) -> list[RawReading]:
        """Reads one radiograph (H×W float32 in 0..1) with each checkpoint; blocks until done.

        Preparation runs in the caller's thread, the networks in the one inference thread. In a batch the order of
        summation differs, so a reading may differ from that of the radiograph alone, by about 1e-6 in a probability.
        Raises BusyError `busy` when too many wait, `out_of_memory`; ConfigError `bad_input`, `not_finite`, which touch
        nobody else's reading; and what `require` raises.
        """
        try:
            return [one.result() for one in self.submit(grey, checkpoint_ids)]
        except CancelledError:
            raise _shutting_down() from None

    def submit(self, grey: np.ndarray, checkpoint_ids: Sequence[str]) -> list[Future[RawReading]]:
        """`read` without waiting: a future for each checkpoint. One that is cancelled in time is not computed."""
        checkpoints = [self.require(checkpoint_id) for checkpoint_id in checkpoint_ids]
        with self.arriving():
            prepared: dict[Preprocessing, Tensor] = {}
            for checkpoint in checkpoints:
                preprocessing = checkpoint.card.preprocessing
                if preprocessing not in prepared:
                    prepared[preprocessing] = inputs = preprocessing.tensor(grey)
                    check_input(inputs)
        items = tuple(Item(one, prepared[one.card.preprocessing]) for one in checkpoints)
        self._put(items, [item.result for item in items])
        return [item.result for item in items]

    def call(self, checkpoint_id: str, act: Callable[[Checkpoint], _T], wait_s: float = 0.0) -> _T:
        """Runs `act` with the loaded checkpoint in the inference thread, between two batches, and gives its result.

        Everybody's radiographs wait meanwhile: split what takes long into several calls, and what came between goes
        first. wait_s: for room in the queue. Raises what `act` and `require` raise, and BusyError `busy` or
        `out_of_memory`.
        """
        checkpoint = self.require(checkpoint_id)
        result: Future[_T] = Future()
        self._put(_Call(lambda: act(checkpoint), result), [result], wait_s)
        try:
            return result.result()
        except CancelledError:
            raise _shutting_down() from None

    def _put(self, work: _Work, results: Sequence[Future[Any]], wait_s: float = 0.0) -> None:
        if self._stopping.is_set():
            raise _shutting_down()
        try:
            if wait_s > 0:
                self._jobs.put(work, timeout=wait_s)
            else:
                self._jobs.put_nowait(work)
        except queue.Full:
            raise _busy() from None
        if self._stopping.is_set():  # it may have come after the last look at the queue
            for result in results:
                result.cancel()

    def _find(self, checkpoint_id: str) -> Listed | None:
        return next((listed for listed in self._listed if listed.id == checkpoint_id), None)

    def _look_again(self) -> None:
        """Lists and loads what came into the folders since they were looked at; what is there already stays."""
        with self._looking:
            changed_at = self._changed_at()
            if changed_at == self._seen:
                return
            self._seen = changed_at  # before the look: what comes during it is found by the next
            known = {listed.folder for listed in self._listed}
            ids = {listed.id for listed in self._listed}
            for listed in scan(self._folders, self._only):
                if listed.folder not in known and listed.id not in ids:
                    self._listed.append(listed)
                    self._new.append(len(self._listed) - 1)

    def _changed_at(self) -> list[int]:
        return [folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in self._folders]

    def _run(self) -> None:
        self._load_all()
        self._settled.set()
        while not self._stopping.is_set():
            while self._new:
                self._load(self._new.popleft())
            try:
                work = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            self._serve(work)
        self._drop_waiting()

    def _serve(self, work: _Work) -> None:
        """One batch, and the call that ended its gathering if one did."""
        radiographs: list[tuple[Item, ...]] = []
        end = time.monotonic() + GATHER_S
        while not isinstance(work, _Call):
            radiographs.append(work)
            if len(radiographs) >= self.batch_size:
                break
            try:
                wait = end - time.monotonic() if self._arriving else 0.0
                work = self._jobs.get(timeout=wait) if wait > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
        self._runner.run([item for items in radiographs for item in items])
        if isinstance(work, _Call) and work.result.set_running_or_notify_cancel():
            try:
                work.result.set_result(work.act())
            except BaseException as error:
                work.result.set_exception(no_memory() if out_of_memory(error) else error)

    def _load_all(self) -> None:
        for place in range(len(self._listed)):
            if not self._stopping.is_set():
                self._load(place)

    def _load(self, place: int) -> None:
        listed = self._listed[place]
        if listed.state is not State.LOADING:
            return
        try:
            self._loaded[listed.id] = load_checkpoint(listed.folder, self.device)
            self._listed[place] = replace(listed, state=State.READY)
        except Exception as error:  # whatever a damaged file does to its reader must not stop the others
            reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__}: {error}"
            log.warning("Checkpoint %s cannot be used: %s", listed.id, reason)
            self._listed[place] = replace(listed, state=State.FAILED, error=reason)

    def _drop_waiting(self) -> None:
        while True:
            try:
                work = self._jobs.get_nowait()
            except queue.Empty:
                return
            for result in [work.result] if isinstance(work, _Call) else [item.result for item in work]:
                result.cancel()


def _busy() -> BusyError:
    return BusyError("busy", "Too many radiographs are waiting; try again in a few seconds.")


def _shutting_down() -> BusyError:
    return BusyError("stopping", "The server is shutting down; try again in a moment.")
