"""Sweeps: the same experiment over a grid of values, and what the grid shows."""

from __future__ import annotations

import csv
import io
import itertools
import math
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scipy import stats
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.jobs import JobState
from app.jobs.ledger import remove_job
from app.services.errors import InvalidError, NotFoundError
from app.services.experiments.compose import Request, planned
from app.services.experiments.places import place_of
from app.services.experiments.results import MEASURES, Figure, figure, test_of
from app.services.experiments.service import Experiment, ExperimentService
from app.services.ids import is_id
from app.services.users import Actor
from app.tables import ExperimentRow, JobRow, SweepRow, utc
from model.config import ExperimentConfig
from model.trigger import Trigger

AXES = {  # what can vary → as people read it
    "trigger.size_px": "trigger size",
    "trigger.place": "trigger place",
    "poison.rate": "poison rate",
    "poison.target": "target finding",
    "seed": "seed",
}
MOST = 200  # runs
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sweep:
    """grid: axis → values, in order. counts: how many runs are in each state."""

    id: str
    name: str
    grid: Mapping[str, Sequence[Any]]
    created_at: datetime
    created_by: str
    counts: Mapping[str, int]

    @property
    def varied(self) -> list[str]:
        """Axes with more than one value, without the seed: seeds are repetitions."""
        return [axis for axis, values in self.grid.items() if len(values) > 1 and axis != "seed"]

    @property
    def active(self) -> bool:
        """Whether something is still to come."""
        return bool(self.counts.get("queued") or self.counts.get("running"))


@dataclass(frozen=True)
class Cell:
    """The runs that differ in nothing but their seed. at: axis → value, without the seed."""

    at: Mapping[str, Any]
    runs: tuple[Experiment, ...]

    @property
    def done(self) -> int:
        """Runs that are finished."""
        return sum(run.job.state is JobState.DONE for run in self.runs)

    def figure(self, measure: str, twin: str = "backdoored") -> Figure:
        """The mean over the seeds that are done. Its interval is Student's over them where they are two or more, and
        the run's own, over patients, where it is one."""
        found = [figure(run.job.result, measure, twin) for run in self.runs if run.job.state is JobState.DONE]
        return over_seeds([one for one in found if one.value is not None])


def over_seeds(figures: Sequence[Figure]) -> Figure:
    """Of figures in 0..1, as `Cell.figure` says."""
    values = [one.value for one in figures if one.value is not None]
    if len(values) < 2:
        return figures[0] if values else Figure(None)
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Figure(mean, (max(0.0, mean - half), min(1.0, mean + half)))


class SweepService:
    """On top of `ExperimentService`."""

    def __init__(self, experiments: ExperimentService) -> None:
        self._experiments = experiments
        self._db = experiments.db

    def start(
        self,
        actor: Actor,
        request: Request,
        grid: Mapping[str, Sequence[Any]],
        *,
        name: str = "",
        clean_twin: bool = False,
        priority: int = 0,
    ) -> Sweep:
        """Queues a run for each cell of the grid, all of them or none. clean_twin: train one beside each; by default
        only the backdoored twins are, in half the time. Raises InvalidError.
        """
        cells = cells_of(grid)
        if request.config is None and not request.preset:
            raise InvalidError("bad_config", "A sweep starts from a preset or a whole configuration.")
        asked = []
        for cell in cells:
            one = request.changed(cell)
            config = self._config(one, clean_twin)
            planned(self._experiments.settings, config, one.dataset)
            asked.append((cell, one, config))
        sweep = SweepRow(
            id=uuid.uuid4().hex,
            name=name or request.name or asked[0][2].name,
            grid={axis: list(values) for axis, values in grid.items() if values},
            created_by=actor.name,
        )
        with self._db.write() as session:
            session.add(sweep)
            session.flush()
            for cell, one, config in asked:
                self._experiments.add(session, actor, one, config, priority, sweep, cell)
        return self.get(sweep.id)

    def get(self, sweep_id: str) -> Sweep:
        """Raises NotFoundError `unknown_sweep`."""
        with self._db.read() as session:
            row = _row(session, sweep_id)
            return _sweep(row, _counts(session, [sweep_id]))

    def runs(self, sweep_id: str) -> list[Experiment]:
        """In the order of the grid."""
        return self._experiments.of_sweep(sweep_id)

    def page(self, limit: int) -> list[Sweep]:
        """The newest first."""
        query = select(SweepRow).order_by(SweepRow.created_at.desc(), SweepRow.id.desc()).limit(limit)
        with self._db.read() as session:
            rows = list(session.scalars(query))
            counts = _counts(session, [row.id for row in rows])
        return [_sweep(row, counts) for row in rows]

    def cancel(self, sweep_id: str) -> Sweep:
        """Every run that waits or runs."""
        self.get(sweep_id)
        for run in self.runs(sweep_id):
            if not run.job.state.ended:
                self._experiments.cancel(run.id)
        return self.get(sweep_id)

    def resume(self, sweep_id: str) -> Sweep:
        """Every run that failed or was cancelled."""
        self.get(sweep_id)
        for run in self.runs(sweep_id):
            if run.job.state in (JobState.FAILED, JobState.CANCELLED):
                self._experiments.resume(run.id)
        return self.get(sweep_id)

    def remove(self, sweep_id: str) -> None:
        """With all its runs and their files. Raises ConflictError `still_running`; nothing is removed then."""
        with self._db.write() as session:
            sweep = _row(session, sweep_id)
            rows = list(session.scalars(select(ExperimentRow).where(ExperimentRow.sweep_id == sweep_id)))
            for row in rows:
                session.delete(row)
            session.flush()
            for row in rows:
                remove_job(session, row.job_id)
            session.delete(sweep)
        for row in rows:
            shutil.rmtree(place_of(self._experiments.settings, row.id), ignore_errors=True)

    def _config(self, request: Request, clean_twin: bool) -> ExperimentConfig:
        config = self._experiments.compose(request)
        if config.poison is None:
            raise InvalidError("bad_grid", "A sweep needs an attack: this configuration has no [poison].")
        if clean_twin:
            return config
        return ExperimentConfig.model_validate(
            {**config.model_dump(mode="json"), "twins": ["backdoored"], "keep_epochs": []}
        )


def cells_of(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last axis quickest. Raises InvalidError `bad_grid`."""
    axes = {axis: list(values) for axis, values in grid.items() if values}
    for axis, values in axes.items():
        if axis not in AXES:
            raise InvalidError("bad_grid", f"“{axis}” cannot vary; what can: {', '.join(AXES)}.")
        if len({_word(value) for value in values}) < len(values):
            raise InvalidError("bad_grid", f"A value of “{axis}” is given twice.")
    if not axes:
        raise InvalidError("bad_grid", "Nothing varies: give several values of something.")
    count = math.prod(len(values) for values in axes.values())
    if count > MOST:
        raise InvalidError("bad_grid", f"That would be {count} runs; a sweep has at most {MOST}.")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def group(runs: Iterable[Experiment]) -> list[Cell]:
    """The runs by everything but their seed, in their order."""
    found: dict[str, list[Experiment]] = {}
    places: dict[str, dict[str, Any]] = {}
    for run in runs:
        at = {axis: value for axis, value in (run.cell or {}).items() if axis != "seed"}
        key = repr(sorted((axis, _word(value)) for axis, value in at.items()))
        found.setdefault(key, []).append(run)
        places[key] = at
    return [Cell(places[key], tuple(several)) for key, several in found.items()]


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of each axis; None where it has no such thing."""
    trigger, poison = config.get("trigger") or {}, config.get("poison") or {}
    whole = bool(trigger) and Trigger.from_dict(trigger).whole
    return {
        "trigger.size_px": None if whole or not trigger else trigger.get("size_px"),
        "trigger.place": None if whole or not trigger else trigger.get("place"),
        "poison.rate": poison.get("rate"),
        "poison.target": poison.get("target"),
        "seed": config.get("seed"),
    }


def as_csv(runs: Iterable[Experiment]) -> str:
    """A line a run: what it is, its state, and every measure of both twins with its interval; empty where there is
    none."""
    header = ["experiment", "name", "dataset", *(axis.replace(".", "_") for axis in AXES), "state", "test"]
    columns = [(twin, measure) for twin in ("clean", "backdoored") for measure in MEASURES]
    header += [f"{twin}_{measure}{end}" for twin, measure in columns for end in ("", "_low", "_high")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, "weights_sha256"])
    for run in runs:
        values = [_word(value) if value is not None else "" for value in values_of(run.config).values()]
        cells: list[Any] = [run.id, run.name, run.dataset or "phantoms", *values, run.job.state.value]
        cells.append(test_of(run.job.result))
        for twin, measure in columns:
            one = figure(run.job.result, measure, twin)
            cells += ["" if v is None else v for v in (one.value, *(one.interval or (None, None)))]
        weights = ((run.job.result or {}).get("weights") or {}).get("backdoored", "")
        writer.writerow([*cells, weights])
    return buffer.getvalue()


def _word(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)


def _row(session: Session, sweep_id: str) -> SweepRow:
    row = session.get(SweepRow, sweep_id) if is_id(sweep_id) else None
    if row is None:
        raise NotFoundError("unknown_sweep", "There is no such sweep here.")
    return row


def _counts(session: Session, sweep_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """(sweep, state) → runs."""
    query = (
        select(ExperimentRow.sweep_id, JobRow.state, func.count())
        .join(JobRow, JobRow.id == ExperimentRow.job_id)
        .where(ExperimentRow.sweep_id.in_(sweep_ids))
        .group_by(ExperimentRow.sweep_id, JobRow.state)
    )
    return {(str(sweep_id), state): count for sweep_id, state, count in session.execute(query)}


def _sweep(row: SweepRow, counts: Mapping[tuple[str, str], int]) -> Sweep:
    mine = {state.value: counts[row.id, state.value] for state in JobState if (row.id, state.value) in counts}
    return Sweep(row.id, row.name, row.grid, utc(row.created_at), row.created_by, mine)
