"""Reads what was received, behind the requests: one thread that feeds the engine and keeps the worklist's summaries.

Nothing is lost with it: what it had not read when the server stopped is found again by the next start. What was read
before and is to be read again, because the pair or a card is another now, is left to a job: it may be the whole list.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from app.services.analyses import AnalysisService
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.studies import StudyService
from app.services.unread import readers, unread
from model.errors import RadiographError

log = logging.getLogger("overread.background")
_FOUND = 200
_LONGEST_PAUSE_S = 60.0
_LOOK_AGAIN_S = 30.0
_SUMMARIES = 100


class BackgroundReader:
    """`start` it, `put` images in, `stop` it. It waits for the checkpoints, and for the device when that is busy."""

    def __init__(
        self,
        studies: StudyService,
        analyses: AnalysisService,
        read_again: Callable[[], object],
        test_waiting: Callable[[], object],
    ) -> None:
        """read_again: queues what was read before and not by the pair as it is now. test_waiting: queues the full tests
        that nobody has asked for yet.
        """
        self._studies = studies
        self._analyses = analyses
        self._read_again = read_again
        self._test_waiting = test_waiting
        self._waiting: deque[str] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._left: set[str] = set()
        self._changed = True  # cards may have changed on disk while no server ran
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

    def put(self, instance_id: str) -> None:
        """Has an image read, after those that wait already."""
        self._waiting.append(instance_id)
        self._wake.set()

    def pair_changed(self) -> None:
        """Has everything read again, and every summary made anew, that is not of the live pair."""
        self._left.clear()
        self._changed = self._stale = True
        self._wake.set()

    def look(self) -> None:
        """Something may be there that nobody put in: a full test to make."""
        self._wake.set()

    def recalibrated(self) -> None:
        """A calibration may have been made or changed: takes it up, and has everything read again by it."""
        if self._analyses.engine.recalibrated():
            self.pair_changed()

    @property
    def pending(self) -> bool:
        """Whether something is still to be read or summarised."""
        return bool(self._waiting) or self._changed or self._stale or self._working

    def _run(self) -> None:
        while not self._analyses.engine.wait_settled(0.2):
            if self._stopping.is_set():
                return
        failures = 0
        looked = time.monotonic()
        while not self._stopping.is_set():
            self._wake.clear()
            self._working = True
            try:
                worked = self._step()
                failures = 0
            except Exception:  # a full disk, a database that is away: the others go on, after a while
                log.exception("An image could not be read in the background")
                worked, failures = True, failures + 1
                self._stopping.wait(min(_LONGEST_PAUSE_S, 2**failures))
            finally:
                self._working = False
            if not worked:
                self._wake.wait(max(0.0, looked + _LOOK_AGAIN_S - time.monotonic()))
            if time.monotonic() - looked >= _LOOK_AGAIN_S:  # however much there is to do
                self._look_again()
                looked = time.monotonic()

    def _step(self) -> bool:
        """One image read, or some summaries made; False when there was nothing to do."""
        if self._waiting:
            instance_id = self._waiting.popleft()
            try:
                self._read(instance_id)
            except Exception:
                self._left.discard(instance_id)  # it is found again, after the pause
                raise
            return True
        if self._changed:
            self._changed = False  # before the look: who changes the pair during it says so again
            try:
                self._read_again()
            except Exception:
                self._changed = True
                raise
            return True
        if self._stale:
            self._stale = False
            ids = self._studies.stale_summaries(_SUMMARIES)
            if ids:
                self._stale = True
                self._studies.refresh_summaries(ids)
            return True
        return self._find_work()

    def _find_work(self) -> bool:
        """Whether something is to be read or summarised that nobody put in."""
        reading = readers(self._analyses.engine, self._analyses.pair).values()
        found = unread(self._analyses.db, reading, seen=False, without=self._left, limit=_FOUND)
        self._waiting.extend(found)
        self._stale = self._stale or bool(self._studies.stale_summaries(1))
        if not found:
            self._test_waiting()
        return bool(found) or self._stale

    def _look_again(self) -> None:
        """What a job, another server or an earlier failure left, and what a new calibration changes."""
        try:
            self.recalibrated()
            if not self._waiting:  # what waits is no find, and would be put in twice
                self._find_work()
        except Exception:  # as above: the next look may go better
            log.exception("The background could not look for work")

    def _read(self, instance_id: str) -> None:
        self._left.add(instance_id)  # whatever happens, it is not found again before the next start
        try:
            self._analyses.analyse(instance_id)
        except BusyError as error:
            self._waiting.appendleft(instance_id)
            self._stopping.wait(error.retry_after_s)
        except (UnavailableError, NotFoundError, RadiographError) as error:  # its page says why
            log.warning("Image %s is left unread: %s", instance_id, error)
