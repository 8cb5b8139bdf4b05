"""Screening a folder: every file in it, in the order of their paths, a line each.

A line is durable before the next is begun, so that a scan that was killed goes on where it stopped: files that have a
line are skipped, and a last line that was cut short is taken away and written again. A line is final: what the machine
had trouble with is tried again after the others, and has no line as long as that does not help.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.decoding import Decoder
from app.inference import InferenceEngine, RawReading
from app.schemas import Prediction, TestLevel
from app.services.analyses import choose
from app.services.errors import BusyError, passes
from app.services.readings import tested, to_reading
from app.settings import Settings
from model.errors import DataError, OverreadError
from model.radiograph import Radiograph

PATIENCE = 5.0  # times what an upload's decoder may take: nobody waits, and the machine may be busy
TRIES = 3
_LOCK_S = 3.0
_PAUSE_S = 2.0


@dataclass(frozen=True)
class Line:
    """What was written for one file. file: relative to the folder. problem: why it could not be read, else empty."""

    file: str
    problem: str


class Scan:
    """One scan of one folder into one file. `with scan.open():` first, then `run`.

    total: files in the folder. done: of them, those that have a line. refused: lines with a problem.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        checkpoint_ids: Sequence[str],
        settings: Settings,
        pair: tuple[str, str],
        test: TestLevel = "screen",
    ) -> None:
        """pair: reads where no checkpoint is named. test: how far positive findings are tested.

        Raises DataError `not_a_folder`.
        """
        if not folder.is_dir():
            raise DataError("not_a_folder", f"{folder} is not a folder.")
        self.folder, self.out = folder, out
        self.settings = settings
        self._checkpoint_ids, self._pair, self._test = checkpoint_ids, pair, test
        self._postponed: dict[str, str] = {}
        self._files: list[str] = []
        self.total = self.done = self.refused = 0
        self._sink: BinaryIO | None = None

    @contextmanager
    def open(self) -> Iterator[Scan]:
        """Locks and mends the output, looks what is left. Raises DataError `in_use`, `not_a_scan`; OSError."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a+b") as sink:
            self._lock(sink)
            known = self._mend(sink)
            files = [name for name in list_files(self.folder) if self.folder / name != self.out]
            self._files = [name for name in files if name not in known]
            self.total, self.done = len(files), len(files) - len(self._files)
            self.refused = sum(known[name] for name in files if name in known)
            self._sink = sink
            try:
                yield self
            finally:
                self._sink = None

    def run(self, engine: InferenceEngine, decoder: Decoder, pause_s: float = _PAUSE_S) -> Iterator[Line]:
        """Yields each line after it is on the disk. Decoding goes on beside inference.

        pause_s: before what the machine had trouble with is tried again. Raises BusyError `not_all_read` at the end for
        what it had trouble with every time, and what concerns all files alike: BusyError, UnavailableError,
        NotFoundError, OSError, and CheckpointError `bad_calibration` where a full test's donors are gone.
        """
        chosen = choose(engine, self._checkpoint_ids, self._pair)
        for checkpoint_id in chosen:
            engine.require(checkpoint_id)
            if self._test == "full":
                engine.check_donors(checkpoint_id)
        left = self._files
        for turn in range(TRIES):
            if turn:
                time.sleep(pause_s)
            self._postponed = {}
            yield from self._over(left, engine, decoder, chosen)
            left = list(self._postponed)
            if not left:
                return
        name, why = next(iter(self._postponed.items()))
        raise BusyError(
            "not_all_read",
            f"{len(left)} of {self.total} files could not be read for now ({name}: {why}) The same scan, begun again, "
            "goes on with them.",
        )

    def _over(
        self, files: Sequence[str], engine: InferenceEngine, decoder: Decoder, chosen: Sequence[str]
    ) -> Iterator[Line]:
        ahead: deque[tuple[str, Future[_Begun]]] = deque()
        pool = ThreadPoolExecutor(self.settings.decoders, thread_name_prefix="scan")
        try:
            for name in files:
                ahead.append((name, pool.submit(self._begin, engine, decoder, name, chosen)))
                if len(ahead) >= window(engine):
                    yield from self._write(engine, *ahead.popleft())
            while ahead:
                yield from self._write(engine, *ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _lock(self, sink: BinaryIO) -> None:
        """Whoever was killed while writing may take a moment to be gone."""
        end = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise DataError("in_use", f"Another scan is writing to {self.out}; wait for it to end.") from None
                time.sleep(0.1)

    def _begin(self, engine: InferenceEngine, decoder: Decoder, name: str, chosen: Sequence[str]) -> _Begun:
        """Decodes, and hands over to the device without waiting for it."""
        with engine.arriving():
            path = self.folder / name
            radiograph = decoder.read(path.read_bytes(), path.name, max_pixels=self.settings.max_pixels)
        return _Begun(radiograph, engine.submit(radiograph.grey(), chosen, self._test != "none"))

    def _write(self, engine: InferenceEngine, name: str, begun: Future[_Begun]) -> Iterator[Line]:
        """The file's line, or none where it must be tried again."""
        problem = ""
        content: dict[str, Any]
        try:
            content = {"file": name, **begun.result().prediction(engine, self._test).model_dump(mode="json")}
        except (OverreadError, OSError) as error:
            code = error.code if isinstance(error, OverreadError) else "cannot_open"
            problem = str(error) if isinstance(error, OverreadError) else f"It cannot be opened ({error.strerror})."
            if passes(error):
                self._postponed[name] = problem
                return
            content = {"file": name, "problem": {"code": code, "detail": problem}}
            self.refused += 1
        assert self._sink is not None
        self._sink.write(json.dumps(content).encode() + b"\n")
        self._sink.flush()
        os.fsync(self._sink.fileno())
        self.done += 1
        yield Line(name, problem)

    def _mend(self, sink: BinaryIO) -> dict[str, bool]:
        """Cuts a torn last line off; gives the files that have a line, and whether it tells of a problem."""
        known: dict[str, bool] = {}
        sink.seek(0)
        end = 0
        for line in sink:
            if not line.endswith(b"\n"):
                break
            try:
                content = json.loads(line)
                known[content["file"]] = "problem" in content
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    "not_a_scan", f"{self.out} is there already and is no scan of ours; choose another name."
                ) from None
            end += len(line)
        sink.truncate(end)
        return known


@dataclass(frozen=True, eq=False)
class _Begun:
    """A decoded radiograph whose readings are on their way."""

    radiograph: Radiograph
    readings: list[Future[RawReading]]

    def prediction(self, engine: InferenceEngine, test: TestLevel) -> Prediction:
        """Waits for them, and for the full tests where they are wanted."""
        readings = [to_reading(self.radiograph, one.result()) for one in self.readings]
        if test == "full":
            readings = [tested(engine, self.radiograph, one) for one in readings]
        return Prediction(analyses=[one.analysis for one in readings], warnings=list(self.radiograph.warnings))


def list_files(folder: Path) -> list[str]:
    """Paths of the files in it and in its folders, relative to it, sorted; without hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        base = Path(where).relative_to(folder)
        found += [(base / name).as_posix() for name in files if name[0] != "."]
    return sorted(found)


def window(engine: InferenceEngine) -> int:
    """Files in progress at once: a batch on the device, one that waits for it, one that is being decoded."""
    return 3 * engine.batch_size


@contextmanager
def scanning_engine(
    settings: Settings, checkpoint_ids: Sequence[str], pair: tuple[str, str]
) -> Iterator[tuple[InferenceEngine, Decoder]]:
    """An engine with the checkpoints loaded, and decoders, for one scan. Raises NotFoundError `unknown_checkpoint`."""
    batch = settings.batch_size
    folder = settings.data_dir
    everything = InferenceEngine(
        settings.checkpoint_dirs, settings.device, 4 * batch, batch_size=batch, data_dir=folder
    )
    for checkpoint_id in checkpoint_ids:
        everything.find(checkpoint_id)
    only = list(checkpoint_ids) or list(pair)
    chosen = InferenceEngine(settings.checkpoint_dirs, settings.device, 4 * batch, only, batch, folder)
    engine = chosen if chosen.checkpoints() else everything
    decoder = Decoder(settings.decoders, PATIENCE * settings.decode_timeout_s, settings.decode_memory_mb)
    engine.start()
    try:
        engine.wait_settled()
        yield engine, decoder
    finally:
        engine.stop()
        decoder.close()
