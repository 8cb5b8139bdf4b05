"""Experiments and sweeps as JSON: what the API answers and the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.schemas.experiments import (
    CellInfo,
    Changes,
    CurveInfo,
    DatasetInfo,
    EstimateInfo,
    ExperimentDetail,
    ExperimentInfo,
    ExperimentRequest,
    FigureInfo,
    PhaseInfo,
    PresetInfo,
    Progress,
    SweepDetail,
    SweepInfo,
)
from app.services.experiments.compose import Request, needs_folder
from app.services.experiments.datasets import Dataset
from app.services.experiments.results import MEASURES
from app.services.experiments.service import Experiment, ExperimentService, Foreseen
from app.services.experiments.sweeps import Cell, Sweep, group
from app.services.experiments.watch import Curve
from model.config import load_config, preset_names


def asked(request: Changes) -> Request:
    """What the service is asked for."""
    preset, config = "", None
    if isinstance(request, ExperimentRequest):
        preset, config = request.preset, request.config
    return Request(
        preset, config, request.name, request.seed, request.dataset, request.accept, request.trigger, request.poison
    )


def info(one: Experiment) -> ExperimentInfo:
    """Of a list."""
    return ExperimentInfo(**_plain(one))


def detail(service: ExperimentService, one: Experiment) -> ExperimentDetail:
    """Of one."""
    live = service.live(one)
    return ExperimentDetail(
        **_plain(one),
        config=dict(one.config),
        progress=Progress(**asdict(live)) if live else None,
        checkpoints=[twin for twin in ("clean", "backdoored") if twin in one.checkpoints],
        registered=service.registered(one),
        files=service.files(one),
    )


def curve(found: Curve) -> CurveInfo:
    """Both kinds."""
    return CurveInfo(epochs=found.epochs, losses=found.losses)


def estimate(found: Foreseen) -> EstimateInfo:
    """In whole seconds and megabytes."""
    phases = found.estimate.phases
    whole = sum(phase.reference_s for phase in phases) or 1.0
    return EstimateInfo(
        seconds=round(found.estimate.seconds),
        measured=found.measured,
        disk_mb=round(found.estimate.disk_mb),
        peak_mb=round(found.estimate.peak_mb),
        free_mb=round(found.free_mb),
        fits=found.fits,
        training_rows=found.training_rows,
        poisoned_rows=found.poisoned_rows,
        phases=[PhaseInfo(name=phase.name, share=round(phase.reference_s / whole, 3)) for phase in phases],
    )


def dataset(found: Dataset) -> DatasetInfo:
    """As it is."""
    return DatasetInfo(**asdict(found))


def presets() -> list[PresetInfo]:
    """All of them."""
    configs = ((name, load_config(name)) for name in preset_names())
    return [
        PresetInfo(name=name, needs_dataset=needs_folder(config), config=config.model_dump(mode="json"))
        for name, config in configs
    ]


def sweep(found: Sweep) -> SweepInfo:
    """Of a list."""
    return SweepInfo(**_sweep(found))


def sweep_detail(found: Sweep, runs: Sequence[Experiment]) -> SweepDetail:
    """Of one."""
    return SweepDetail(
        **_sweep(found), cells=[_cell(cell) for cell in group(runs)], experiments=[info(r) for r in runs]
    )


def _cell(cell: Cell) -> CellInfo:
    figures = {measure: cell.figure(measure) for measure in MEASURES}
    return CellInfo(
        at=dict(cell.at),
        experiments=[run.id for run in cell.runs],
        done=cell.done,
        figures={
            measure: FigureInfo(value=one.value, interval=one.interval)
            for measure, one in figures.items()
            if one.value is not None
        },
    )


def _sweep(found: Sweep) -> dict[str, Any]:
    return {
        "id": found.id,
        "url": f"/sweeps/{found.id}",
        "name": found.name,
        "grid": {axis: list(values) for axis, values in found.grid.items()},
        "created_at": found.created_at,
        "created_by": found.created_by,
        "counts": dict(found.counts),
    }


def _plain(one: Experiment) -> dict[str, Any]:
    job = one.job
    results = {name: job.result[name] for name in ("weights", "tests")} if job.result else None
    return {
        "id": one.id,
        "url": f"/experiments/{one.id}",
        "name": one.name,
        "preset": one.preset,
        "dataset": one.dataset,
        "seed": one.config["seed"],
        "sweep_id": one.sweep_id,
        "cell": dict(one.cell) if one.cell is not None else None,
        "job_id": job.id,
        "state": job.state.value,
        "priority": job.priority,
        "attempt": job.attempt,
        "cancel_requested": job.cancel_requested,
        "error": job.error,
        "created_at": one.created_at,
        "created_by": one.created_by,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "results": results,
    }
