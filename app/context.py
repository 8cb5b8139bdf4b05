"""What a running server holds, and how routes get at it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, cast

from anyio import from_thread
from fastapi import Depends, Request

from app.blobs import BlobStore
from app.db import Database
from app.decoding import Decoder
from app.inference import InferenceEngine
from app.jobs import Job, Ledger
from app.jobs.kinds import calibrate, examine, reanalyse
from app.jobs.ledger import unknown_job
from app.outgoing import Outgoing
from app.schemas import CalibrationRequest, CheckpointInfo
from app.services.analyses import AnalysisService
from app.services.audit import AuditService
from app.services.background import BackgroundReader
from app.services.calibrations import CalibrationService
from app.services.checkpoints import PairChoice, list_checkpoints
from app.services.experiments.service import ExperimentService
from app.services.experiments.sweeps import SweepService
from app.services.exports import ExportService
from app.services.read_first import ReadFirst
from app.services.reviews import ReviewService
from app.services.samples import add_samples
from app.services.studies import StudyService
from app.services.summaries import LivePair, live_pair
from app.services.unread import readers
from app.services.users import Actor, UserService
from app.services.viewing import ViewingService
from app.services.worklist import Worklist
from app.settings import Settings

log = logging.getLogger("overread")


class Services:
    """Built once for a server: opens the data folder and brings the database up to date; weights load after `start`.

    Raises ConfigError `no_such_device` or `bad_database`, and OSError when the data folder cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.db = Database(settings.resolved_database_url)
        self.db.migrate()
        self.engine = InferenceEngine(
            settings.checkpoint_dirs,
            settings.device,
            settings.queue_size,
            batch_size=settings.batch_size,
            data_dir=settings.data_dir,
        )
        self.decoder = Decoder(
            settings.decoders, settings.decode_timeout_s, settings.decode_memory_mb, waiting=settings.queue_size
        )
        self.jobs = Ledger(self.db)
        self._pair = PairChoice(self.db, settings.pair)
        blobs = BlobStore(settings.data_dir / "blobs")
        self.analyses = AnalysisService(
            self.db, blobs, self.engine, self._pair, settings.max_pixels, self.decoder, self._have_tested
        )
        self.read_first = ReadFirst(self.db, settings.read_first)
        self.studies = StudyService(
            self.db, blobs, self.live_pair, settings.max_pixels, self.decoder, Worklist(self.db, self.read_first)
        )
        self.background = BackgroundReader(self.studies, self.analyses, self._read_again, self._test_waiting)
        self.calibrations = CalibrationService(self.db, self.engine, self.read_first)
        self.viewing = ViewingService(self.analyses)
        self.outgoing = Outgoing()
        self.users = UserService(
            self.db, timedelta(minutes=settings.session_idle_min), timedelta(hours=settings.session_max_h)
        )
        self.audit = AuditService(self.db)
        self.reviews = ReviewService(self.db, self.audit, self.analyses.shown, self.read_first)
        self.exports = ExportService(self.analyses, self.reviews)
        self.experiments = ExperimentService(self.db, self.jobs, settings)
        self.sweeps = SweepService(self.experiments)
        self._stopping = threading.Event()
        self._samples = threading.Thread(target=self._add_samples, name="samples", daemon=True)
        self._wants_samples = settings.samples and self.studies.is_empty()

    def start(self) -> None:
        """Begins to load, and to draw samples for a worklist that never held anything."""
        self.engine.start()
        self.background.start()
        if self._wants_samples:
            self._samples.start()

    def stop(self) -> None:
        """Finishes what is being read."""
        self._stopping.set()
        self.engine.stop()
        self.background.stop()
        if self._samples.is_alive():
            self._samples.join(10)
        self.decoder.close()
        self.db.close()

    @property
    def pair(self) -> tuple[str, str]:
        """Ids of the live reference and candidate, in that order."""
        return self._pair()

    def live_pair(self) -> LivePair:
        """The same with the fingerprints of their cards."""
        return live_pair(self.engine, self.pair)

    def choose_pair(self, reference: str, candidate: str, actor: Actor) -> None:
        """Changes the live pair. Raises NotFoundError `unknown_checkpoint`, InvalidError `same_checkpoint`."""
        self._pair.choose(self.engine, reference, candidate)
        self.audit.note(actor, "checkpoints.pair", candidate, {"reference": reference, "candidate": candidate})
        self.background.pair_changed()

    def make_live(self, experiment_id: str, twin: str, role: str, actor: Actor) -> tuple[str, str]:
        """Makes a run's twin the live `candidate` or `reference`, registered first where it is not; the new pair.

        Raises NotFoundError `unknown_experiment`, `no_checkpoint`; InvalidError `same_checkpoint`.
        """
        one = self.experiments.get(experiment_id)
        known = self.experiments.registered(one).get(twin)
        chosen = known or self.experiments.register(experiment_id, twin).id
        reference, candidate = self.pair
        pair = (chosen, candidate) if role == "reference" else (reference, chosen)
        self.choose_pair(*pair, actor)
        return pair

    def calibrate(self, checkpoint_id: str, wanted: CalibrationRequest, actor: Actor) -> Job:
        """Queues a calibration. Raises NotFoundError `unknown_checkpoint`, and what `calibrate.request` raises."""
        listed = self.engine.find(checkpoint_id)
        job = calibrate.request(self.jobs, self.settings, self.experiments.datasets, listed, wanted, actor.name)
        detail = {"job": job.id, "dataset": wanted.dataset or "phantoms", "images": wanted.images}
        self.audit.note(actor, "calibrations.create", listed.id, detail)
        return job

    def calibration_job(self, checkpoint_id: str) -> Job | None:
        """What calibrates a checkpoint, or did last; what it has made counts from now on.

        Raises NotFoundError `unknown_checkpoint`.
        """
        listed = self.engine.find(checkpoint_id)
        job = calibrate.latest(self.jobs, listed)
        if job is not None and calibrate.is_news(job, listed.calibration):
            self.background.recalibrated()
        return job

    def pending(self, actor: Actor) -> bool:
        """Whether the worklist is about to change by itself, as far as this reader may know."""
        if self.adding_samples or self.background.pending:
            return True
        return not self.kept_from(actor) and self.jobs.any_active(examine.KIND)

    def kept_from(self, actor: Actor) -> tuple[str, ...]:
        """Kinds of jobs that this reader may not see: that there is a full test tells what was found before it."""
        return (examine.KIND,) if self.read_first.owes_any(actor) else ()

    def job(self, job_id: str, actor: Actor) -> Job:
        """Raises NotFoundError `unknown_job`, also for one that is kept from this reader."""
        job = self.jobs.get(job_id)
        if job.kind in self.kept_from(actor):
            raise unknown_job()
        return job

    @property
    def adding_samples(self) -> bool:
        """Whether samples are still on their way to the worklist."""
        return self._samples.is_alive()

    def _read_again(self) -> None:
        reanalyse.request(self.jobs, self.engine, self.pair, seen=True)

    def _have_tested(self) -> None:
        self.background.look()

    def _test_waiting(self) -> None:
        examine.request_waiting(self.jobs, readers(self.engine, self.pair).values())

    def _add_samples(self) -> None:
        try:
            add_samples(self.studies, self.engine, self.pair[1], self.background.put, self._stopping.is_set)
        except Exception:  # the samples are a courtesy: without them everything else works
            log.exception("The sample radiographs could not be added")

    def checkpoints(self) -> list[CheckpointInfo]:
        """The registry, the pair first."""
        listed = list_checkpoints(self.engine, self.pair)
        return sorted(listed, key=lambda info: {"reference": 0, "candidate": 1}.get(info.role or "", 2))


def services(request: Request) -> Services:
    """The server's services."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]


def gone(request: Request) -> Callable[[], bool]:
    """Tells a route that is not `async`, in the middle of what takes long, whether whoever asked has hung up."""
    return lambda: from_thread.run(request.is_disconnected)


GoneDep = Annotated[Callable[[], bool], Depends(gone)]
