"""What people do with experiments: the same for the pages, the API and the command line."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app.db import Database
from app.inference import scan
from app.jobs import Job, JobState, Ledger
from app.jobs.ledger import add_job, remove_job
from app.services.errors import ConflictError, InvalidError, NotFoundError
from app.services.experiments import watch
from app.services.experiments.compose import Request, compose, planned
from app.services.experiments.datasets import Datasets
from app.services.experiments.places import file_of, files_of, place_of
from app.services.ids import is_id
from app.services.users import Actor
from app.settings import Settings
from app.tables import ExperimentRow, JobRow, SweepRow, utc
from model.checkpoint import Card, check_id, copy_checkpoint
from model.config import ExperimentConfig
from model.errors import CheckpointError
from model.experiment import Estimate, estimate

KIND = "experiment"
PRIORITY = 0


@dataclass(frozen=True)
class Experiment:
    """A row and its job. run: its run folder, which need not be there yet."""

    id: str
    name: str
    config: Mapping[str, Any]
    dataset: str
    preset: str
    cell: Mapping[str, Any] | None
    created_at: datetime
    created_by: str
    sweep_id: str | None
    job: Job
    run: Path

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Twin → the folder of its finished checkpoint."""
        folders = {twin: self.run / twin / "checkpoint" for twin in self.config["twins"]}
        return {twin: folder for twin, folder in folders.items() if (folder / "card.json").is_file()}


@dataclass(frozen=True)
class Foreseen:
    """An estimate and what it rests on. measured: by a training before, here. free_mb: of the data folder."""

    estimate: Estimate
    measured: bool
    free_mb: float
    training_rows: int
    poisoned_rows: int

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.estimate.peak_mb < self.free_mb


class ExperimentService:
    """Every method that changes something is one transaction."""

    def __init__(self, db: Database, ledger: Ledger, settings: Settings) -> None:
        self.db, self.ledger, self.settings = db, ledger, settings
        self.datasets = Datasets(settings)

    # Before it begins

    def compose(self, request: Request) -> ExperimentConfig:
        """Raises InvalidError."""
        return compose(self.settings, request)

    def foresee(self, request: Request) -> Foreseen:
        """What it will take. Raises InvalidError for what cannot work."""
        config = self.compose(request)
        plan = planned(self.settings, config, request.dataset)
        pace = self.pace()
        poisoned = int(plan.poisoned.poisoned.sum()) if plan.poisoned else 0
        free = shutil.disk_usage(self.settings.data_dir).free / 1e6
        return Foreseen(estimate(config, plan, pace), "train" in (pace or {}), free, len(plan.training), poisoned)

    def pace(self) -> dict[str, float] | None:
        """Of this machine, by kind of work, as the last run of as many threads that could tell it did; None without."""
        known: dict[str, float] = {}
        query = (
            select(JobRow)
            .where(JobRow.kind == KIND, JobRow.state == "done")
            .order_by(JobRow.finished_at.desc())
            .limit(20)
        )
        with self.db.read() as session:
            for row in session.scalars(query):
                pace = (row.result or {}).get("pace")
                if pace and row.spec.get("threads") == self.settings.threads_of_a_training:
                    known = {**{str(kind): float(factor) for kind, factor in pace.items()}, **known}
        return known or None

    # What there is

    def get(self, experiment_id: str) -> Experiment:
        """Raises NotFoundError `unknown_experiment`."""
        with self.db.read() as session:
            row = _row(session, experiment_id)
        for found in self._with_jobs([row]):
            return found
        raise _unknown()

    def page(
        self, limit: int, before: tuple[datetime, str] | None = None, states: Sequence[str] = ()
    ) -> list[Experiment]:
        """The newest first. before: the created_at and id of the last one of the page before."""
        query = select(ExperimentRow).order_by(ExperimentRow.created_at.desc(), ExperimentRow.id.desc()).limit(limit)
        if before is not None:
            at, last = before
            query = query.where(
                or_(ExperimentRow.created_at < at, (ExperimentRow.created_at == at) & (ExperimentRow.id < last))
            )
        if states:
            query = query.join(JobRow, JobRow.id == ExperimentRow.job_id).where(JobRow.state.in_(states))
        return self._read(query)

    def queue(self) -> list[Experiment]:
        """What runs, then what waits, in the order in which it will run."""
        query = (
            select(ExperimentRow)
            .join(JobRow, JobRow.id == ExperimentRow.job_id)
            .where(JobRow.state.in_(["queued", "running"]))
            .order_by(JobRow.state.desc(), JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        )
        return self._read(query)

    def several(self, ids: Sequence[str]) -> list[Experiment]:
        """These, in their order. Raises NotFoundError `unknown_experiment`."""
        return [self.get(one) for one in dict.fromkeys(ids)]

    def of_sweep(self, sweep_id: str) -> list[Experiment]:
        """All of a sweep, in the order of its cells."""
        query = select(ExperimentRow).join(JobRow, JobRow.id == ExperimentRow.job_id)
        ordered = query.where(ExperimentRow.sweep_id == sweep_id).order_by(ExperimentRow.created_at, ExperimentRow.id)
        return self._read(ordered)

    def curve(self, one: Experiment) -> watch.Curve:
        """As far as it is."""
        return watch.curve(one.run)

    def live(self, one: Experiment) -> watch.Live | None:
        """What its process said last; None unless it runs."""
        return watch.live(one.run.parent) if one.job.state is JobState.RUNNING else None

    def report(self, one: Experiment) -> dict[str, Any] | None:
        """Of a finished run."""
        return watch.report(one.run)

    def files(self, one: Experiment) -> list[str]:
        """What can be downloaded."""
        return files_of(one.run)

    def file(self, experiment_id: str, name: str) -> Path:
        """Raises NotFoundError `unknown_experiment`, `unknown_file`."""
        return file_of(self.get(experiment_id).run, name)

    # What people do

    def start(self, actor: Actor, request: Request, priority: int = PRIORITY) -> Experiment:
        """Queues a run. Raises InvalidError for what can be known not to work."""
        config = self.compose(request)
        planned(self.settings, config, request.dataset)
        with self.db.write() as session:
            row = self.add(session, actor, request, config, priority)
        return self._with_jobs([row])[0]

    def add(
        self,
        session: Session,
        actor: Actor,
        request: Request,
        config: ExperimentConfig,
        priority: int,
        sweep: SweepRow | None = None,
        cell: Mapping[str, Any] | None = None,
    ) -> ExperimentRow:
        """The row and its job, in the caller's transaction; the configuration is one that was planned."""
        experiment_id, dumped = uuid.uuid4().hex, config.model_dump(mode="json")
        spec = {
            "experiment": experiment_id,
            "config": dumped,
            "dataset": request.dataset,
            "threads": self.settings.threads_of_a_training,
            "pace": self.pace() if sweep is None else None,
        }
        job = JobRow(id=uuid.uuid4().hex, kind=KIND, spec=spec, priority=priority, sweep_id=sweep.id if sweep else None)
        add_job(session, job)
        row = ExperimentRow(
            id=experiment_id,
            name=config.name,
            config=dumped,
            dataset=request.dataset,
            preset=request.preset,
            cell=dict(cell) if cell is not None else None,
            created_by=actor.name,
            job_id=job.id,
            sweep_id=sweep.id if sweep else None,
        )
        session.add(row)
        session.flush()
        return row

    def clone(self, actor: Actor, experiment_id: str, changes: Request | None = None) -> Experiment:
        """The same once more, with what `changes` says. Raises NotFoundError, InvalidError."""
        one = self.get(experiment_id)
        asked = changes or Request()
        again = Request(
            config=one.config,
            name=asked.name,
            seed=asked.seed,
            dataset=asked.dataset or one.dataset,
            accept=asked.accept,
            trigger=asked.trigger,
            poison=asked.poison,
        )
        return self.start(actor, again)

    def cancel(self, experiment_id: str) -> Experiment:
        """At once if it waits, within five seconds if it runs; what is done is kept."""
        self.ledger.cancel(self.get(experiment_id).job.id)
        return self.get(experiment_id)

    def resume(self, experiment_id: str) -> Experiment:
        """Goes on with what failed or was cancelled, from the last saved state."""
        self.ledger.retry(self.get(experiment_id).job.id)
        return self.get(experiment_id)

    def first(self, experiment_id: str) -> Experiment:
        """Puts what waits before all others that do."""
        self.ledger.first(self.get(experiment_id).job.id)
        return self.get(experiment_id)

    def remove(self, experiment_id: str) -> None:
        """With its files. Registered checkpoints stay. Raises ConflictError `still_running`."""
        with self.db.write() as session:
            row = _row(session, experiment_id)
            session.delete(row)
            session.flush()
            remove_job(session, row.job_id)
        shutil.rmtree(place_of(self.settings, experiment_id), ignore_errors=True)

    def register(self, experiment_id: str, twin: str, checkpoint_id: str = "", title: str = "") -> Card:
        """Copies a twin's checkpoint into the registry. By default it is called NAME-TWIN-ID.

        Raises NotFoundError `no_checkpoint`, InvalidError `bad_id`, ConflictError `exists`.
        """
        one = self.get(experiment_id)
        source = one.checkpoints.get(twin)
        if source is None:
            raise NotFoundError("no_checkpoint", f"This run has no finished {twin} twin.")
        name = checkpoint_id or default_id(one, twin)
        try:
            check_id(name)
        except CheckpointError as error:
            raise InvalidError(error.code, str(error)) from error
        self._require_free(name)
        words = title or f"{one.name}, {twin} twin, seed {one.config['seed']}"
        try:
            return copy_checkpoint(source, self.settings.data_dir / "checkpoints" / name, name, words)
        except CheckpointError as error:
            if error.code == "exists":
                raise _taken(name) from error
            raise

    def registered(self, one: Experiment) -> dict[str, str]:
        """Twin → the id under which its checkpoint is in the registry, where it is."""
        weights = (one.job.result or {}).get("weights") or {}
        known = {c.card.weights_sha256: c.id for c in scan(self.settings.checkpoint_dirs) if c.card}
        return {twin: known[digest] for twin, digest in weights.items() if digest in known}

    def _require_free(self, name: str) -> None:
        if any(listed.id == name for listed in scan(self.settings.checkpoint_dirs)):
            raise _taken(name)

    def _read(self, query: Select[ExperimentRow]) -> list[Experiment]:
        with self.db.read() as session:
            rows = list(session.scalars(query))
        return self._with_jobs(rows)

    def _with_jobs(self, rows: Sequence[ExperimentRow]) -> list[Experiment]:
        jobs = self.ledger.several([row.job_id for row in rows])
        return [
            Experiment(
                row.id,
                row.name,
                row.config,
                row.dataset,
                row.preset,
                row.cell,
                utc(row.created_at),
                row.created_by,
                row.sweep_id,
                jobs[row.job_id],
                place_of(self.settings, row.id) / row.name,
            )
            for row in rows
            if row.job_id in jobs  # else somebody removes it at this moment
        ]


def default_id(one: Experiment, twin: str) -> str:
    """Of a twin's checkpoint in the registry."""
    return f"{one.name[:40]}-{twin}-{one.id[:6]}"


def _row(session: Session, experiment_id: str) -> ExperimentRow:
    row = session.get(ExperimentRow, experiment_id) if is_id(experiment_id) else None
    if row is None:
        raise _unknown()
    return row


def _unknown() -> NotFoundError:
    return NotFoundError("unknown_experiment", "There is no such experiment here.")


def _taken(name: str) -> ConflictError:
    return ConflictError("exists", f"There is a checkpoint “{name}” already; choose another id.")
