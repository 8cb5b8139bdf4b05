"""The worker: claims jobs from the ledger, and runs each in a process of its own.

Only one dispatches at a time, others wait for its lock. Whoever gets the lock knows that nothing is running any more:
jobs die with their worker. So what the ledger calls running goes back into the queue at once, without waiting for a
heartbeat to grow old.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from app.db import Database
from app.jobs import Job, JobState, Ledger
from app.jobs.kinds import ALONE
from app.jobs.lock import DispatcherLock
from app.processes import end_with_stdin, start_python
from app.settings import Settings
from app.tables import now

log = logging.getLogger("overread.worker")
POLL_S = 0.3
CANCEL_S = 3.0  # for a job to stop by itself
STALL_S = 120.0  # without a heartbeat
_RESTART_S = 2.0


@dataclass
class _Running:
    """A job and its process. cancelling_since: monotonic seconds."""

    job: Job
    process: subprocess.Popen[bytes]
    cancelling_since: float | None = None
    killed: bool = False

    def kill(self) -> None:
        """With everything that it started; once, for its number may be another's afterwards."""
        if self.killed:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.killed = True
        if self.process.stdin is not None:
            self.process.stdin.close()


class Worker:
    """`run` until `stop`, in a thread that outlives it, because its jobs die with that thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError `bad_database`."""
        self.settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.db = Database(settings.resolved_database_url)
        self.db.migrate()
        self.ledger = Ledger(self.db)
        self._lock = DispatcherLock(self.db, settings.data_dir)
        self._running: list[_Running] = []
        self._stopping = threading.Event()

    def stop(self) -> None:
        """From any thread or a signal."""
        self._stopping.set()

    def run(self) -> None:
        """Dispatches until it is told to stop; then its jobs go back into the queue."""
        if not self._wait_for_lock():
            return
        try:
            for job_id in self.ledger.put_back_lost("the worker that ran it is gone"):
                log.warning("Job %s goes on after its worker was lost", job_id)
            while not self._stopping.wait(POLL_S) and self._lock.held():
                try:
                    self._turn()
                except OperationalError as error:  # a database that is busy or away for a moment
                    log.warning("The database does not answer: %s", error.orig)
        finally:
            for running in self._running:
                running.kill()
                self.ledger.put_back(running.job.id, running.job.attempt, "the worker was stopped")
            self._lock.release()
            self.db.close()

    def _wait_for_lock(self) -> bool:
        told = False
        while not self._lock.acquire():
            if not told:
                log.info("Another worker is at work; this one waits until it ends.")
                told = True
            if self._stopping.wait(POLL_S):
                return False
        return True

    def _turn(self) -> None:
        for running in list(self._running):
            self._look_after(running)
        settings = self.settings
        self._fill(settings.trainings_at_once, ["experiment"])
        self._fill(1, ["calibrate"])
        self._fill(settings.jobs_at_once, ["scan"])
        self._fill(settings.jobs_at_once, [])

    def _fill(self, places: int, kinds: Sequence[str]) -> None:
        """Starts what waits of these kinds, or of all that have no places of their own, as long as there are places."""
        others = () if kinds else ALONE
        while sum(r.job.kind in kinds if kinds else r.job.kind not in others for r in self._running) < places:
            job = self.ledger.claim(kinds, others)
            if job is None:
                return
            self._start(job)

    def _start(self, job: Job) -> None:
        log.info("Job %s (%s), attempt %d", job.id, job.kind, job.attempt)
        process = start_python("app.jobs.child", new_session=True, stdout=subprocess.DEVNULL)
        told = {"job": job.id, "attempt": job.attempt, "settings": self.settings.model_dump(mode="json")}
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already: the next turn sees it
            process.stdin.write(json.dumps(told).encode() + b"\n")
        self._running.append(_Running(job, process))

    def _look_after(self, running: _Running) -> None:
        job = self.ledger.get(running.job.id)
        ours = job.attempt == running.job.attempt and job.state is JobState.RUNNING
        if running.process.poll() is not None:
            running.kill()  # what it left behind
            if ours and job.cancel_requested:
                self.ledger.cancelled(job.id, job.attempt)
            elif ours:
                self._record_crash(running)
            self._running.remove(running)  # only now: where the database does not answer, the next turn records it
        elif not ours:
            if running.cancelling_since is None:
                running.cancelling_since = time.monotonic()  # it has written its end, and needs a moment to leave
            elif time.monotonic() - running.cancelling_since > CANCEL_S:
                self._end(running)
        elif job.cancel_requested:
            if running.cancelling_since is None:
                running.cancelling_since = time.monotonic()
            elif time.monotonic() - running.cancelling_since > CANCEL_S:
                running.kill()
                self.ledger.cancelled(job.id, job.attempt)
                self._running.remove(running)
        elif job.heartbeat_at and (now() - job.heartbeat_at).total_seconds() > STALL_S:
            running.kill()
            self.ledger.fail(job.id, job.attempt, f"It gave no sign of life for {STALL_S:.0f} s and was stopped.")
            self._running.remove(running)

    def _end(self, running: _Running) -> None:
        running.kill()
        self._running.remove(running)

    def _record_crash(self, running: _Running) -> None:
        code = running.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        self.ledger.fail(running.job.id, running.job.attempt, f"Its process {how} before it was finished.")


def run_worker(settings: Settings) -> None:
    """A worker for this process, until SIGINT or SIGTERM."""
    worker = Worker(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()


def main() -> None:
    """A worker that `serve` starts: its settings come through its standard input."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    settings = Settings(**json.loads(sys.stdin.buffer.readline()))
    end_with_stdin()
    run_worker(settings)


@contextmanager
def worker_beside(settings: Settings) -> Iterator[None]:
    """A worker process for as long as the block lasts, started again should it die. None where settings say so."""
    if not settings.worker:
        yield
        return
    stopping = threading.Event()
    keeper = threading.Thread(target=_keep, args=(settings, stopping), name="worker", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join(10)


def _keep(settings: Settings, stopping: threading.Event) -> None:
    while not stopping.is_set():
        process = start_python("app.worker", stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(settings.model_dump_json().encode() + b"\n")
        while process.poll() is None and not stopping.wait(0.2):
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdin.close()
        if not stopping.wait(_RESTART_S):
            log.warning("The worker has ended (code %s); it is started again", process.returncode)
