"""Calibrating the detector in the background: what `overread calibrate` does, with few threads.

A calibration takes minutes, so one that was interrupted begins anew. The earlier one counts until the new one is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from app.inference import Listed, State, calibration_version, scan
from app.jobs.context import Context, JobCancelled, JobFailed
from app.jobs.ledger import Job, JobState, Ledger
from app.schemas import CalibrationRequest
from app.services.calibrating import Asked, calibrate
from app.services.errors import ConflictError, InvalidError, UnavailableError
from app.services.experiments.compose import without_paths
from app.services.experiments.datasets import Datasets
from app.settings import Settings
from model.detector import Calibration
from model.errors import CheckpointError, DataError, OverreadError

KIND = "calibrate"
_WISHES = ("dataset", "images", "donors")
_STAGES = {"Donors": "drawing the donors"}  # whose names alone would not say what is done
_OWN_DONORS = {"automatic": None, "own": True, "phantoms": False}


def request(
    ledger: Ledger, settings: Settings, datasets: Datasets, listed: Listed, wanted: CalibrationRequest, by: str
) -> Job:
    """Queues a checkpoint's calibration; the job that there is, where the same waits or runs already.

    Raises InvalidError for a data set that it cannot be made on, UnavailableError `checkpoint_failed`, ConflictError
    `already_calibrating` where another one of these weights waits or runs.
    """
    if listed.card is None or listed.state is State.FAILED:
        raise UnavailableError("checkpoint_failed", f"The checkpoint “{listed.id}” cannot be used. {listed.error}")
    if wanted.dataset:
        datasets.to_calibrate_on(wanted.dataset)
    elif wanted.donors == "own":
        raise InvalidError("no_own_donors", "Own donors are patients of a data set: name one, or take phantoms.")
    spec = {
        "checkpoint": listed.id,
        "weights_sha256": listed.card.weights_sha256,
        **wanted.model_dump(),
        "by": by,
        "threads": settings.threads_of_a_training,
    }
    job = ledger.enqueue(KIND, spec, unique_key=_key(listed.card.weights_sha256), anew=True)
    if any(job.spec[name] != spec[name] for name in _WISHES):
        raise ConflictError("already_calibrating", f"“{listed.id}” is being calibrated already: cancel that first.")
    return job


def latest(ledger: Ledger, listed: Listed) -> Job | None:
    """What calibrates these weights, or did last."""
    return ledger.keyed(_key(listed.card.weights_sha256)) if listed.card else None


def is_news(job: Job, known: Calibration | None) -> bool:
    """Whether it has made a calibration since the one that is known."""
    if job.state is not JobState.DONE or job.result is None:
        return False
    return known is None or known.origin.made_at < job.result["made_at"]


def _key(weights_sha256: str) -> str:
    return f"{KIND}:{weights_sha256}"


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: checkpoint (its id), weights_sha256, dataset (a name, or empty), images, donors, by, threads.

    Result: version, and the summary's n, alpha, decides, realised_rate, made_at, minutes. Raises JobFailed for what the
    next attempt would meet again: other weights than were asked for, no radiographs.
    """
    torch.set_num_threads(int(spec["threads"]))
    settings = ctx.settings
    listed = _checkpoint(spec, settings)
    dataset: str = spec["dataset"]
    if dataset and dataset not in settings.datasets:
        raise JobFailed("unknown_dataset", f"There is no data set “{dataset}” on this server any more.")
    asked = Asked(
        data=settings.datasets[dataset] if dataset else None,
        name=dataset,
        images=int(spec["images"]),
        own_donors=_OWN_DONORS[spec["donors"]],
        by=spec["by"],
    )

    def tell(stage: str, done: int, total: int) -> None:
        if ctx.cancelled():
            raise JobCancelled
        ctx.report(done, total, f"· {_STAGES.get(stage, stage.lower())}")

    try:
        made, _ = calibrate(settings, listed.folder, asked, progress=tell)
    except (CheckpointError, DataError) as error:
        raise _failed(error, listed, settings) from error
    except OSError as error:
        raise JobFailed("not_written", f"The calibration could not be made: {error.strerror}.") from error
    kept = ("n", "alpha", "decides", "realised_rate", "made_at", "minutes")
    summary = made.summary()
    return {"version": calibration_version(made), **{name: summary[name] for name in kept}}


def _checkpoint(spec: Mapping[str, Any], settings: Settings) -> Listed:
    for listed in scan(settings.checkpoint_dirs, [spec["checkpoint"]]):
        if listed.card and listed.state is not State.FAILED:
            if listed.card.weights_sha256 == spec["weights_sha256"]:
                return listed
            raise JobFailed("other_weights", f"“{listed.id}” has other weights by now than were to be calibrated.")
    raise JobFailed("unknown_checkpoint", f"There is no checkpoint “{spec['checkpoint']}” that can be used any more.")


def _failed(error: OverreadError, listed: Listed, settings: Settings) -> JobFailed:
    """For people who know checkpoints and data sets by their names, not by their folders."""
    said = str(error).replace(str(listed.folder), f"the checkpoint “{listed.id}”")
    return JobFailed(error.code, without_paths(settings, said))
