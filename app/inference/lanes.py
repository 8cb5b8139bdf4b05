"""Batches side by side, each with its share of the processor's cores.

Two batches with a core each take less time than one after the other with two cores: the parts of a layer that two
threads compute wait for each other after every operation, above all while the other core decodes the next file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch


class Lanes:
    """As many as torch has threads on the CPU; one, which is the caller's own thread, on any other device."""

    def __init__(self, device: torch.device) -> None:
        self._cores = torch.get_num_threads()
        self.count = self._cores if device.type == "cpu" else 1
        self._running: set[Future[None]] = set()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="lane") if self.count > 1 else None

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Runs them, and returns once a lane is free: what comes next need not wait for the last of them.

        A single one has all cores, and is done at the return. What a task raises is its own affair.
        """
        if self._pool is None or len(tasks) < 2:
            self.settle()
            for task in tasks:
                task()
            return
        share = max(1, self._cores // min(len(tasks), self.count))
        self._running |= {self._pool.submit(_with_threads, share, task) for task in tasks}
        while len(self._running) >= self.count:
            self._running = wait(self._running, return_when=FIRST_COMPLETED).not_done

    def settle(self) -> None:
        """Waits for the last of them, and gives the caller's thread all cores again."""
        if self._running:
            wait(self._running)
            self._running = set()
            torch.set_num_threads(self._cores)  # MKL's number is the process's, not the thread's

    def close(self) -> None:
        """Ends the threads as soon as what they run is done."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _with_threads(threads: int, task: Callable[[], None]) -> None:
    torch.set_num_threads(threads)
    task()
