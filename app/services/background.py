"""Reads what was received, behind the requests: one thread that feeds the engine and keeps the worklist's summaries.

Nothing is lost with it: what it had not read when the server stopped is found again by the next start.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from app.services.analyses import AnalysisService
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.studies import StudyService
from model.errors import RadiographError

log = logging.getLogger("overread.background")
_FOUND = 200
_LONGEST_PAUSE_S = 60.0
_LOOK_AGAIN_S = 30.0
_SUMMARIES = 100


class BackgroundReader:
    """`start` it, `put` studies in, `stop` it. It waits for the checkpoints, and for the device when that is busy."""

    def __init__(self, studies: StudyService, analyses: AnalysisService) -> None:
        self._studies = studies
        self._analyses = analyses
        self._waiting: deque[str] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._left: set[str] = set()
        self._stale = True
        self._working = False
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        """Begins, with what the last server left unread."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Lets the reading in progress finish."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def put(self, study_id: str) -> None:
        """Has a study read, after those that wait already."""
        self._waiting.append(study_id)
        self._wake.set()

    def summarise(self) -> None:
        """Has every summary made anew that is not of the live pair."""
        self._left.clear()
        self._stale = True
        self._wake.set()

    @property
    def pending(self) -> bool:
        """Whether something is still to be read or summarised."""
        return bool(self._waiting) or self._stale or self._working

    def _run(self) -> None:
        while not self._analyses.engine.wait_settled(0.2):
            if self._stopping.is_set():
                return
        failures = 0
        while not self._stopping.is_set():
            self._wake.clear()
            self._working = True
            try:
                worked = self._step()
                failures = 0
            except Exception:  # a full disk, a database that is away: the others go on, after a while
                log.exception("A study could not be read in the background")
                worked, failures = True, failures + 1
                self._stopping.wait(min(_LONGEST_PAUSE_S, 2**failures))
            finally:
                self._working = False
            if not worked and not self._wake.wait(_LOOK_AGAIN_S):
                self._find_work()  # what a job, another server or an earlier failure left

    def _step(self) -> bool:
        """One study read, or some summaries made; False when there was nothing to do."""
        if self._waiting:
            study_id = self._waiting.popleft()
            try:
                self._read(study_id)
            except Exception:
                self._left.discard(study_id)  # it is found again, after the pause
                raise
            return True
        if self._stale:
            self._stale = False  # before the look: who changes the pair during it says so again
            ids = self._studies.stale_summaries(_SUMMARIES)
            if ids:
                self._stale = True
                self._studies.refresh_summaries(ids)
            return True
        return self._find_work()

    def _find_work(self) -> bool:
        """Whether something is to be read or summarised that nobody put in."""
        found = self._studies.to_read(_FOUND, self._left)
        self._waiting.extend(found)
        self._stale = self._stale or bool(self._studies.stale_summaries(1))
        return bool(found) or self._stale

    def _read(self, study_id: str) -> None:
        self._left.add(study_id)  # whatever happens, it is not found again before the next start
        for instance in self._studies.instances_to_read(study_id):
            try:
                self._analyses.analyse(instance)
            except BusyError as error:
                self._waiting.appendleft(study_id)
                self._stopping.wait(error.retry_after_s)
                return
            except (UnavailableError, NotFoundError, RadiographError) as error:  # its page says why
                log.warning("Study %s is left unread: %s", study_id, error)
