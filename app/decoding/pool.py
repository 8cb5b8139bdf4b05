"""The decoding processes, and how a thread gets a file read by one of them.

A file has 2 s by default, and as much again for each 4 MB of it: a small one that takes longer means harm, while a
large JPEG 2000 on a busy machine does not. A process that takes longer, or answers what it was not asked, is killed,
and a new one takes its place.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from app.decoding.pixels import VIEWER_PX, Pixels
from app.decoding.wire import (
    ANSWER,
    READY,
    AnswerHead,
    Decoded,
    Garbled,
    Question,
    parse_answer,
    parse_head,
    parse_view,
    request,
)
from app.processes import start_python
from app.services.errors import BusyError
from model.errors import RadiographError
from model.radiograph import Radiograph
from model.radiograph.image import MAX_PIXELS

log = logging.getLogger("overread.decoding")
BYTES_PER_TIMEOUT = 4 * 2**20
_START_S = 60.0
_PATIENCE = 10.0
_CHUNK = 2**20
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
_T = TypeVar("_T")


class _Gone(Exception):
    """The process ended, or answered nonsense."""


class Decoder:
    """A few decoding processes. `read` from any thread; `close` when done."""

    def __init__(
        self,
        processes: int = 2,
        timeout_s: float = 2.0,
        memory_mb: int = 1536,
        files_each: int = 500,
        waiting: int = 64,
    ) -> None:
        """Starts them. timeout_s: for a file, more for a large one; a process that waits for a busy processor is given
        that time back, up to nine times as much. memory_mb: what each may map beyond its own code. files_each: after
        so many a process is replaced, so that what a codec leaks cannot add up. waiting: callers that may wait for a
        free one.
        """
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.files_each = files_each
        self._closed = False
        self._room = threading.BoundedSemaphore(processes + waiting)
        self._free = _Free()
        for _ in range(processes):
            self._free.put(self._start())

    def read(self, data: bytes, name: str = "", *, max_pixels: int = MAX_PIXELS, lateral: bool = False) -> Radiograph:
        """`model.radiograph.read_radiograph`, confined. Raises what `decode` raises."""
        return self.decode(data, name, max_pixels=max_pixels, lateral=lateral).radiograph

    def view(self, data: bytes, name: str = "", longest_px: int = VIEWER_PX) -> Pixels:
        """`viewer_pixels`, confined. Raises what `decode` raises."""
        return self._ask(data, name, Question(view_px=longest_px), parse_view)

    def decode(self, data: bytes, name: str = "", *, max_pixels: int = MAX_PIXELS, lateral: bool = False) -> Decoded:
        """`read_radiograph` and `read_identity`, confined.

        lateral: takes lateral views, with a warning, instead of refusing them. Raises RadiographError, also
        `damaged_image` where the decoder crashed, `decoder_killed` where somebody else ended it, and `too_costly` where
        it took too long; BusyError `busy`.
        """
        return self._ask(
            data,
            name,
            Question(max_pixels, lateral),
            lambda head, text, pixels: parse_answer(head, text, pixels, data, name),
        )

    def _ask(
        self, data: bytes, name: str, question: Question, parse: Callable[[AnswerHead, bytes, bytearray], _T]
    ) -> _T:
        budget_s = self.timeout_s * (1 + len(data) / BYTES_PER_TIMEOUT)
        with self._one() as process:
            try:
                return parse(*process.ask(data, name, question, budget_s))
            except RadiographError:
                raise
            except TimeoutError:
                log.warning("A decoder was stopped after %.1f s over a file of %d bytes", budget_s, len(data))
                process.kill()
                raise RadiographError(
                    "too_costly", f"This file could not be decoded within {budget_s:.0f} s; export it in another way."
                ) from None
            except (Garbled, _Gone, OSError) as error:
                killed = not isinstance(error, Garbled) and process.killed
                process.kill()
                log.warning("A decoder was lost over a file of %d bytes: %s", len(data), type(error).__name__)
                if killed:
                    raise RadiographError(
                        "decoder_killed",
                        "The decoder was ended from outside over this file, perhaps for want of memory; try again.",
                    ) from error
                raise RadiographError(
                    "damaged_image", "The decoder broke down over this file; it is damaged. Export or upload it again."
                ) from error
            except BaseException:  # in the middle of an answer, whose rest the next file must not get
                process.kill()
                raise

    def close(self) -> None:
        """Ends the processes; those at work end after their file."""
        self._closed = True
        while True:
            try:
                self._free.get_nowait().kill()
            except queue.Empty:
                return

    def _start(self) -> _Process:
        return _Process(self.memory_mb, max(2, round(4 * self.timeout_s)))

    def _restarted(self) -> _Process:
        try:
            return self._start()
        except OSError as error:
            raise BusyError("decoder_failed", f"The decoder does not start ({error.strerror}).", 30) from error

    def _successor(self, process: _Process) -> _Process:
        """Starts at once where one has ended, so that the next file need not wait; if it cannot, the next try may."""
        if not process.ended or self._closed:
            return process
        try:
            return self._start()
        except OSError as error:
            log.warning("A decoder cannot be started: %s", error)
            return process

    @contextmanager
    def _one(self) -> Iterator[_Process]:
        """A process that is alive and ready."""
        if self._closed or not self._room.acquire(blocking=False):
            raise BusyError("busy", "Too many radiographs are waiting; try again in a few seconds.")
        try:
            process = self._free.get()
            try:
                if process.ended:
                    process = self._restarted()
                process.wait_ready(_START_S)
                yield process
            finally:
                if process.files >= self.files_each:
                    process.kill()
                self._free.put(self._successor(process))
                if self._closed:
                    self.close()
        finally:
            self._room.release()


class _Free(queue.LifoQueue["_Process"]):
    """Whoever comes next gets the one that was used last, and one that still starts only where all others are busy."""

    def _put(self, item: _Process) -> None:
        if item.ready:
            self.queue.append(item)
        else:
            self.queue.insert(0, item)


class _Process:
    """One decoding process, used by one thread at a time."""

    def __init__(self, memory_mb: int, cpu_s: int) -> None:
        limits = {"OVERREAD_DECODE_MEMORY_MB": str(memory_mb), "OVERREAD_DECODE_CPU_S": str(cpu_s)}
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env = {**kept, **limits, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = start_python("app.decoding.child", env=env, stdout=subprocess.PIPE, bound=False)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self.ready = False
        self.files = 0

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    @property
    def killed(self) -> bool:
        """Whether somebody else has ended it: its own limits and crashes have other signals."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)  # its pipes close a moment before it is gone
        return self._process.returncode == -signal.SIGKILL

    def wait_ready(self, timeout_s: float) -> None:
        """Its imports take a while, which no file is to blame for. Raises BusyError."""
        if self.ready:
            return
        try:
            self.ready = self._receive(1, _Budget(self._process.pid, timeout_s)) == READY
        except (_Gone, TimeoutError, OSError):
            self.ready = False
        if not self.ready:
            self.kill()
            raise BusyError("decoder_failed", "The decoder does not start; the server's log may say why.", 30)

    def ask(self, data: bytes, name: str, question: Question, timeout_s: float) -> tuple[AnswerHead, bytes, bytearray]:
        """Head, text and pixels of the answer. Raises TimeoutError, Garbled, _Gone."""
        left = _Budget(self._process.pid, timeout_s)
        self.files += 1
        for part in request(data, name, question):
            self._send(part, left)
        head = parse_head(bytes(self._receive(ANSWER.size, left)), question)
        text = bytes(self._receive(head.text_bytes, left))
        return head, text, self._receive(head.pixel_bytes, left)

    def kill(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, data: bytes, budget: _Budget) -> None:
        left = memoryview(data)
        while left:
            budget.wait(self._to, select.POLLOUT)
            left = left[os.write(self._to, left[:_CHUNK]) :]

    def _receive(self, count: int, budget: _Budget) -> bytearray:
        received = bytearray(count)
        left = memoryview(received)
        while left:
            budget.wait(self._from, select.POLLIN)
            got = os.readv(self._from, [left[:_CHUNK]])
            if got == 0:
                raise _Gone
            left = left[got:]
        return received


class _Budget:
    """The time that a process has for a file, by the clock but without what it waited for a processor."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid, self._seconds = pid, seconds
        self._start, self._waited = time.monotonic(), _waited_s(pid)

    def wait(self, handle: int, what: int) -> None:
        """Until a pipe is ready. Raises TimeoutError."""
        poll = select.poll()
        poll.register(handle, what)
        while not poll.poll(self._left_s() * 1000):
            pass

    def _left_s(self) -> float:
        taken = time.monotonic() - self._start
        waited = min(max(0.0, _waited_s(self._pid) - self._waited), (_PATIENCE - 1) * self._seconds)
        left = self._seconds + waited - taken
        if left <= 0:
            raise TimeoutError
        return left


def _waited_s(pid: int) -> float:
    """How long a process was ready to run and did not; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
