"""The process that runs one attempt of one job. It dies with the worker that started it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import OperationalError

from app.db import Database
from app.jobs.context import JobCancelled, JobFailed, StaleAttempt
from app.jobs.kinds import kind
from app.jobs.ledger import Ledger, Progress
from app.processes import end_with_stdin
from app.settings import Settings
from model.errors import OverreadError

BEAT_S = 1.0
_NICENESS = 10  # people who wait for an answer come first


def main() -> None:
    """Reads from its standard input which job to run, under which attempt, and where the data is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends us
    told = json.loads(sys.stdin.buffer.readline())
    end_with_stdin()
    os.nice(_NICENESS)
    settings = Settings(**told["settings"])
    ledger = Ledger(Database(settings.resolved_database_url))
    run_attempt(ledger, told["job"], int(told["attempt"]), settings)


def run_attempt(ledger: Ledger, job_id: str, attempt: int, settings: Settings) -> None:
    """Runs the job to one of its ends, and records it."""
    job = ledger.get(job_id)
    context = ChildContext(ledger, job_id, attempt, settings, job.checkpoint)
    try:
        with context:
            result = kind(job.kind)(job.spec, context)
        ledger.finish(job_id, attempt, result)
    except StaleAttempt:
        return
    except JobCancelled:
        ledger.cancelled(job_id, attempt)
    except JobFailed as error:
        ledger.fail(job_id, attempt, str(error), final=True)
    except OverreadError as error:
        ledger.fail(job_id, attempt, str(error))
    except Exception as error:
        ledger.fail(job_id, attempt, f"{type(error).__name__}: {error}")
        raise


class ChildContext:
    """`app.jobs.Context` on the ledger. Within a `with` block a thread writes heartbeats."""

    def __init__(
        self, ledger: Ledger, job_id: str, attempt: int, settings: Settings, resumed: Mapping[str, Any] | None
    ) -> None:
        self.settings = settings
        self.resumed = resumed
        self._ledger, self._job_id, self._attempt = ledger, job_id, attempt
        self._progress: Progress | None = None
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> ChildContext:
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beats.join()
        self._ledger.beat(self._job_id, self._attempt, self._progress)

    def report(self, done: int, total: int, note: str = "") -> None:
        """Kept until the next heartbeat or checkpoint."""
        self._progress = Progress(done, total, note)

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Written before this returns."""
        self._ledger.checkpoint(self._job_id, self._attempt, state, self._progress)

    def cancelled(self) -> bool:
        """As of the last heartbeat."""
        return self._cancelled.is_set()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                if self._ledger.beat(self._job_id, self._attempt, self._progress):
                    self._cancelled.set()
            except OperationalError:
                continue  # a database that is busy or away for a moment; the next beat will tell
            except StaleAttempt:
                os._exit(3)  # at once: whatever it would still do, another does by now
