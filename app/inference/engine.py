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
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from app.inference.batching import BatchRunner, Item, RawReading, check_input, no_memory, out_of_memory
from app.inference.examining import Examination, examine, find_calibration, make_detector, need_donors
from app.inference.lanes import Lanes
from app.inference.registry import Listed, State, scan
from app.services.errors import BusyError, NotFoundError, UnavailableError, busy, shutting_down
from model.checkpoint import Checkpoint, load_checkpoint
from model.detector import Detector
from model.errors import OverreadError
from model.network import resolve_device
from model.preprocess import Preprocessing

log = logging.getLogger("overread.inference")
GATHER_S = 0.005
LATER_S = 1.0  # that a long call waits at most for a moment without radiographs
LOOK_S = 0.25  # between two looks whether somebody still waits for a long call
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class _Call:
    """Something else to do on the device. long: it lets others in meanwhile, and does not interrupt another."""

    act: Callable[[], Any]
    result: Future[Any]
    long: bool = False
    since: float = field(default_factory=time.monotonic)


_Work = tuple[Item, ...] | _Call


class InferenceEngine:
    """Registry and device in one place. `start` it, `read` from any thread, `stop` it."""

    def __init__(
        self,
        folders: Sequence[Path],
        device: str,
        queue_size: int,
        only: Sequence[str] = (),
        batch_size: int = 8,
        data_dir: Path | None = None,
    ) -> None:
        """folders: parents of checkpoint folders. queue_size: radiographs that may wait. only: ids to load, all when
        empty; the others are not listed. batch_size: radiographs that one pass reads at most. data_dir: where own
        calibrations of the detector are; None knows those beside the weights alone.
        """
        self.device = resolve_device(device)
        self.batch_size = batch_size
        self._data_dir = data_dir
        self._folders, self._only = list(folders), list(only)
        self._seen = self._changed_at()
        self._listed = scan(folders, only, data_dir)
        self._new: deque[int] = deque()  # places in _listed
        self._looking, self._changing = threading.Lock(), threading.Lock()
        self._loaded: dict[str, Checkpoint] = {}
        self._detectors: dict[str, Detector] = {}
        self._detectors_lock = threading.Lock()
        self._later: deque[_Call] = deque()  # long calls that came during another; of the inference thread alone
        self._jobs: queue.Queue[_Work] = queue.Queue(maxsize=queue_size)
        self._lanes = Lanes(self.device)
        self._runner = BatchRunner(batch_size, self._lanes)
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
        self._lanes.close()
        self._drop_waiting()

    @property
    def settled(self) -> bool:
        """Whether loading is over, well or badly."""
        return self._settled.is_set()

    @property
    def waiting(self) -> int:
        """Radiographs in the queue, and what else waits for the device."""
        return self._jobs.qsize() + len(self._later)

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
            raise busy()

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

    def recalibrated(self) -> bool:
        """Looks for calibrations that were made, changed or taken away since; gives whether there are any."""
        changed = False
        for i, listed in enumerate(self._listed):
            if listed.card is None or listed.state is State.FAILED:
                continue
            calibration, why_not = find_calibration(self._data_dir, listed.folder, listed.card)
            before = listed.calibration
            if (calibration and calibration.to_json()) != (before and before.to_json()):
                changed = True
            elif why_not == listed.calibration_error:
                continue
            self._change(i, calibration=calibration, calibration_error=why_not)
        return changed

    def read(self, grey: np.ndarray, checkpoint_ids: Sequence[str], screen: bool = True) -> list[RawReading]:
        """Reads one radiograph (H×W float32 in 0..1) with each checkpoint; blocks until done.

        screen: whether the detector gives its quick word.

        Preparation runs in the caller's thread, the networks in the one inference thread. In a batch the order of
        summation differs, so a reading may differ from that of the radiograph alone, by about 1e-6 in a probability.
        Raises BusyError `busy` when too many wait, `out_of_memory`; ConfigError `bad_input`, `not_finite`, which touch
        nobody else's reading; and what `require` raises.
        """
        try:
            return [one.result() for one in self.submit(grey, checkpoint_ids, screen)]
        except CancelledError:
            raise shutting_down() from None

    def submit(self, grey: np.ndarray, checkpoint_ids: Sequence[str], screen: bool = True) -> list[Future[RawReading]]:
        """`read` without waiting: a future for each checkpoint. One that is cancelled in time is not computed."""
        checkpoints = [self.require(checkpoint_id) for checkpoint_id in checkpoint_ids]
        with self.arriving():
            prepared: dict[Preprocessing, Tensor] = {}
            for checkpoint in checkpoints:
                preprocessing = checkpoint.card.preprocessing
                if preprocessing not in prepared:
                    prepared[preprocessing] = inputs = preprocessing.tensor(grey)
                    check_input(inputs)
        items = tuple(Item(one, prepared[one.card.preprocessing], self._detector(one), screen) for one in checkpoints)
        self._put(items, [item.result for item in items])
        return [item.result for item in items]

    def call(self, checkpoint_id: str, act: Callable[[Checkpoint], _T], wait_s: float = 0.0) -> _T:
        """Runs `act` with the loaded checkpoint in the inference thread, between two batches, and gives its result.

        Everybody's radiographs wait meanwhile: split what takes long into several calls, and what came between goes
        first. wait_s: for room in the queue. Raises what `act` and `require` raise, and BusyError `busy` or
        `out_of_memory`.
        """
        try:
            return self._begin(checkpoint_id, act, wait_s, long=False).result()
        except CancelledError:
            raise shutting_down() from None

    def examine(
        self, checkpoint_id: str, grey: np.ndarray, meanwhile: Callable[[], None], wait_s: float = 0.0
    ) -> Examination:
        """The detector's full test of one radiograph (H×W float32 in 0..1), in the inference thread; blocks until done.

        It takes seconds to minutes on a CPU. Between two of its batches what waits is read and done, but for another
        such test. meanwhile: called in this thread every now and then; what it raises ends the test and is raised here.
        wait_s: for room in the queue. Raises what `call` raises.
        """
        image = self.require(checkpoint_id).card.preprocessing.input_grey(grey)
        given_up = threading.Event()

        def pause() -> None:
            self._breathe()
            if given_up.is_set():
                raise BusyError("given_up", "Nobody waited for this test any more.", 1)

        def act(checkpoint: Checkpoint) -> Examination:
            return examine(self._detector(checkpoint), image, pause)

        result = self._begin(checkpoint_id, act, wait_s, long=True)
        try:
            while not wait([result], LOOK_S).done:
                meanwhile()
            return result.result()
        except CancelledError:
            raise shutting_down() from None
        finally:
            given_up.set()
            result.cancel()

    def check_donors(self, checkpoint_id: str) -> None:
        """Has what full tests need ready. Raises CheckpointError `bad_calibration`, and what `call` raises."""
        self.call(checkpoint_id, lambda checkpoint: need_donors(self._detector(checkpoint)))

    def _detector(self, checkpoint: Checkpoint) -> Detector:
        """With the calibration that is known now."""
        calibration = self.find(checkpoint.card.id).calibration
        with self._detectors_lock:
            detector = self._detectors.get(checkpoint.card.id)
            if detector is None or detector.calibration is not calibration:
                self._detectors[checkpoint.card.id] = detector = make_detector(checkpoint, calibration)
            return detector

    def _begin(self, checkpoint_id: str, act: Callable[[Checkpoint], _T], wait_s: float, long: bool) -> Future[_T]:
        checkpoint = self.require(checkpoint_id)
        result: Future[_T] = Future()
        self._put(_Call(lambda: act(checkpoint), result, long), [result], wait_s)
        return result

    def _put(self, work: _Work, results: Sequence[Future[Any]], wait_s: float = 0.0) -> None:
        if self._stopping.is_set():
            raise shutting_down()
        try:
            if wait_s > 0:
                self._jobs.put(work, timeout=wait_s)
            else:
                self._jobs.put_nowait(work)
        except queue.Full:
            raise busy() from None
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
            for listed in scan(self._folders, self._only, self._data_dir):
                if listed.folder not in known and listed.id not in ids:
                    self._listed.append(listed)
                    self._new.append(len(self._listed) - 1)

    def _change(self, place: int, **fields: Any) -> None:
        """Of one entry, whatever another thread says of it meanwhile."""
        with self._changing:
            self._listed[place] = replace(self._listed[place], **fields)

    def _changed_at(self) -> list[int]:
        return [folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in self._folders]

    def _run(self) -> None:
        self._load_all()
        self._settled.set()
        while not self._stopping.is_set():
            while self._new:
                self._load(self._new.popleft())
            try:
                work = self._jobs.get(timeout=0.02 if self._later else 0.2)
            except queue.Empty:
                if self._later:
                    self._do(self._later.popleft())
                continue
            self._serve(work)
            if self._later and time.monotonic() - self._later[0].since > LATER_S:
                self._do(self._later.popleft())
        self._lanes.settle()
        self._drop_waiting()

    def _breathe(self) -> None:
        """In the middle of a long call: reads and does what waits, so that nobody waits for its end."""
        items: list[Item] = []
        while not self._stopping.is_set():
            try:
                work = self._jobs.get_nowait()
            except queue.Empty:
                self._runner.run(items)
                self._lanes.settle()
                return
            if not isinstance(work, _Call):
                items += work
            elif work.long:
                self._later.append(work)
            else:
                self._do(work)
        for item in items:
            item.result.cancel()
        raise shutting_down()

    def _serve(self, work: _Work) -> None:
        """One batch, and the call that ended its gathering if one did."""
        radiographs: list[tuple[Item, ...]] = []
        end = time.monotonic() + GATHER_S
        while not isinstance(work, _Call):
            radiographs.append(work)
            if len(radiographs) >= self.batch_size:
                break
            try:
                left_s = end - time.monotonic() if self._arriving else 0.0
                work = self._jobs.get(timeout=left_s) if left_s > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
        self._runner.run([item for items in radiographs for item in items])
        if isinstance(work, _Call):
            if work.long and self._later:
                self._later.append(work)  # in its turn
                work = self._later.popleft()
            self._do(work)

    def _do(self, work: _Call) -> None:
        self._lanes.settle()  # it has the device to itself
        if work.result.set_running_or_notify_cancel():
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
            self._change(place, state=State.READY)
        except Exception as error:  # whatever a damaged file does to its reader must not stop the others
            reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__}: {error}"
            log.warning("Checkpoint %s cannot be used: %s", listed.id, reason)
            self._change(place, state=State.FAILED, error=reason)

    def _drop_waiting(self) -> None:
        while self._later:
            self._later.popleft().result.cancel()
        while True:
            try:
                work = self._jobs.get_nowait()
            except queue.Empty:
                return
            for result in [work.result] if isinstance(work, _Call) else [item.result for item in work]:
                result.cancel()
