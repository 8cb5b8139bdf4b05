"""Batches side by side, each with its share of the processor's cores.

Two batches with a core each take less time than one after the other with two cores: the parts of a layer that two
threads compute wait for each other after every operation, above all while the other core decodes the next file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch


class Lanes:
    """As many as torch has threads on the CPU; one, which is the caller's own thread, on any other device."""

    def __init__(self, device: torch.device) -> None:
        self._cores = torch.get_num_threads()
        self.count = self._cores if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="lane") if self.count > 1 else None

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Runs them all and returns when the last is done. Raises what the first failing one raised."""
        if self._pool is None or len(tasks) < 2:
            for task in tasks:
                task()
            return
        share = max(1, self._cores // min(len(tasks), self.count))
        running = [self._pool.submit(_with_threads, share, task) for task in tasks]
        try:
            for one in running:
                one.result()
        finally:
            torch.set_num_threads(self._cores)  # MKL's number is the process's, not the thread's

    def close(self) -> None:
        """Ends the threads as soon as what they run is done."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _with_threads(threads: int, task: Callable[[], None]) -> None:
    torch.set_num_threads(threads)
    task()
