"""/experiments: the poisoning study in the background."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import FileResponse

from app.actor import ActorDep, subjects
from app.api.problems import problems
from app.context import ServicesDep
from app.schemas.checkpoints import CheckpointInfo
from app.schemas.experiments import (
    CandidateRequest,
    Changes,
    CurveInfo,
    DatasetList,
    EstimateInfo,
    ExperimentDetail,
    ExperimentList,
    ExperimentRequest,
    PairInfo,
    PresetList,
    RegisterRequest,
    State,
)
from app.services.checkpoints import show_checkpoint
from app.services.errors import InvalidError, NotFoundError
from app.services.experiments import describe
from app.services.experiments.service import Experiment
from app.services.ids import is_id

router = APIRouter(tags=["experiments"])
_NOTICE = "Research use, not for diagnosis."
_ID = "7c9e6679f3b74d0a9d3c0a1b2c3d4e5f"
INFO: dict[str, Any] = {
    "id": _ID,
    "url": f"/experiments/{_ID}",
    "name": "quick",
    "preset": "quick",
    "dataset": "",
    "seed": 1,
    "sweep_id": None,
    "cell": None,
    "job_id": "0f8fad5bd9cb469fa16570867728950e",
    "state": "running",
    "priority": 0,
    "attempt": 1,
    "cancel_requested": False,
    "error": None,
    "created_at": "2026-11-25T20:00:00Z",
    "created_by": "ada",
    "started_at": "2026-11-25T20:00:01Z",
    "finished_at": None,
    "results": None,
}
_DETAIL = {
    **INFO,
    "config": {"name": "quick", "seed": 1, "poison": {"target": "Atelectasis", "rate": 0.1}},
    "progress": {
        "stage": "Training the clean twin", "share": 0.41, "left_s": 212.0, "epoch": 2, "epochs": 3, "step": 61,
        "steps": 96, "loss": 0.21, "images_per_s": 26.2,
    },
    "checkpoints": [],
    "registered": {},
    "files": ["config.toml", "clean/epochs.jsonl"],
    "notice": _NOTICE,
}  # fmt: skip
_ASKED = {
    "a preset": {"value": {"preset": "quick"}},
    "another trigger and rate": {
        "value": {
            "preset": "quick",
            "name": "small-trigger",
            "seed": 7,
            "trigger": {"size_px": 2, "place": "top-left", "value": "white"},
            "poison": {"target": "Effusion", "rate": 0.05},
        }
    },
    "real radiographs": {"value": {"preset": "bundled-pair", "dataset": "nih"}},
}
Asked = Annotated[ExperimentRequest, Body(openapi_examples=_ASKED)]


def example(status: int, description: str, value: Any) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a good answer."""
    return {status: {"description": description, "content": {"application/json": {"example": value}}}}


@router.get("/experiments/presets", responses=problems())
def presets(services: ServicesDep) -> PresetList:
    """Configurations to start from."""
    return PresetList(presets=describe.presets())


@router.get("/datasets", responses=problems())
def datasets(services: ServicesDep) -> DatasetList:
    """Folders in ChestX-ray14's layout that this server knows (OVERREAD_DATASETS); phantoms need none."""
    return DatasetList(datasets=[describe.dataset(one) for one in services.experiments.datasets.all()])


@router.post("/experiments/estimate", responses=problems(403, 413, 422))
def estimate(services: ServicesDep, request: Request, asked: Asked) -> EstimateInfo:
    """What a run would take of time and disk; a configuration that cannot work is refused here too. Changes nothing."""
    subjects(request)
    return describe.estimate(services.experiments.foresee(describe.asked(asked)))


@router.post(
    "/experiments",
    status_code=201,
    responses={**example(201, "Queued", {**_DETAIL, "state": "queued"}), **problems(403, 413, 422)},
)
def create(services: ServicesDep, actor: ActorDep, request: Request, asked: Asked) -> ExperimentDetail:
    """Queues an experiment: it is a job, which the worker runs at low priority, one training at a time."""
    made = services.experiments.start(actor, describe.asked(asked), asked.priority)
    subjects(request, made.id)
    return describe.detail(services.experiments, made)


@router.get(
    "/experiments",
    responses={
        **example(200, "A page", {"experiments": [INFO], "next_cursor": None, "notice": _NOTICE}),
        **problems(422),
    },
)
def index(
    services: ServicesDep,
    state: Annotated[list[State], Query(description="Only in these states.")] = [],  # noqa: B006
    cursor: Annotated[str | None, Query(max_length=200, description="Of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ExperimentList:
    """Experiments, the newest first."""
    found = services.experiments.page(limit + 1, _after(cursor) if cursor else None, state)
    following = _cursor(found[limit - 1]) if len(found) > limit else None
    return ExperimentList(experiments=[describe.info(one) for one in found[:limit]], next_cursor=following)


@router.get("/experiments/{experiment_id}", responses={**example(200, "It", _DETAIL), **problems(404, 422)})
def show(services: ServicesDep, experiment_id: str) -> ExperimentDetail:
    """One experiment; poll it while its state is `queued` or `running`."""
    return describe.detail(services.experiments, services.experiments.get(experiment_id))


@router.get("/experiments/{experiment_id}/curve", responses=problems(404, 422))
def curve(services: ServicesDep, experiment_id: str) -> CurveInfo:
    """Loss by step, and AUROC-NN, -TT, -TN, ASR and trigger hits by epoch, as far as the run is."""
    return describe.curve(services.experiments.curve(services.experiments.get(experiment_id)))


@router.get(
    "/experiments/{experiment_id}/report",
    response_model=None,
    responses={200: {"content": {"application/json": {}}, "description": "report.json"}, **problems(404, 422)},
)
def report(services: ServicesDep, experiment_id: str) -> dict[str, Any]:
    """The whole report of a finished run: every figure with its interval, acceptance, hit rates, provenance."""
    found = services.experiments.report(services.experiments.get(experiment_id))
    if found is None:
        raise NotFoundError("no_report", "This run is not finished: it has no report yet.")
    return found


@router.get(
    "/experiments/{experiment_id}/files/{name:path}",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file"}, **problems(404, 422)},
)
def file(services: ServicesDep, experiment_id: str, name: str) -> Response:
    """One file of a run, by its path as `files` names it: report, figure, manifest, weights."""
    return download(services, experiment_id, name)


def download(services: ServicesDep, experiment_id: str, name: str) -> Response:
    """A file to be saved: pages of a run have styles of their own, which this server's policy would refuse to show."""
    path = services.experiments.file(experiment_id, name)
    saved = f"{path.parent.parent.name if 'checkpoint' in name else path.parent.name}-{path.name}"
    return FileResponse(path, filename=saved, content_disposition_type="attachment")


@router.post("/experiments/{experiment_id}/cancel", responses=problems(403, 404, 422))
def cancel(services: ServicesDep, experiment_id: str) -> ExperimentDetail:
    """Stops it: at once if it waits, within five seconds if it runs. What is done is kept."""
    return describe.detail(services.experiments, services.experiments.cancel(experiment_id))


@router.post("/experiments/{experiment_id}/resume", responses=problems(403, 404, 422))
def resume(services: ServicesDep, experiment_id: str) -> ExperimentDetail:
    """Goes on with what failed or was cancelled, from its last saved state; the weights will be the same."""
    return describe.detail(services.experiments, services.experiments.resume(experiment_id))


@router.post("/experiments/{experiment_id}/first", responses=problems(403, 404, 422))
def first(services: ServicesDep, experiment_id: str) -> ExperimentDetail:
    """Puts what waits before all others that wait."""
    return describe.detail(services.experiments, services.experiments.first(experiment_id))


@router.post("/experiments/{experiment_id}/clone", status_code=201, responses=problems(403, 404, 413, 422))
def clone(
    services: ServicesDep,
    actor: ActorDep,
    request: Request,
    experiment_id: str,
    changes: Annotated[Changes, Body(openapi_examples={"another seed": {"value": {"seed": 2}}})],
) -> ExperimentDetail:
    """The same once more, with what differs."""
    made = services.experiments.clone(actor, experiment_id, describe.asked(changes))
    subjects(request, made.id)
    return describe.detail(services.experiments, made)


@router.delete("/experiments/{experiment_id}", status_code=204, responses=problems(403, 404, 409, 422))
def remove(services: ServicesDep, experiment_id: str) -> None:
    """Removes it with its files, unless it runs. Checkpoints that were registered stay."""
    services.experiments.remove(experiment_id)


@router.post("/experiments/{experiment_id}/checkpoints", status_code=201, responses=problems(403, 404, 409, 413, 422))
def register(services: ServicesDep, experiment_id: str, asked: RegisterRequest) -> CheckpointInfo:
    """Copies a twin into the registry: it can read from then on, and be made a part of the live pair."""
    card = services.experiments.register(experiment_id, asked.twin, asked.id, asked.title)
    return show_checkpoint(services.engine, services.pair, card.id)


@router.post("/experiments/{experiment_id}/candidate", responses=problems(403, 404, 413, 422))
def make_candidate(services: ServicesDep, actor: ActorDep, experiment_id: str, asked: CandidateRequest) -> PairInfo:
    """Makes a twin the live candidate (or reference); every study is then read again by the new pair."""
    reference, candidate = services.make_live(experiment_id, asked.twin, asked.role, actor)
    return PairInfo(reference=reference, candidate=candidate)


def _cursor(one: Experiment) -> str:
    return base64.urlsafe_b64encode(json.dumps([one.created_at.isoformat(), one.id]).encode()).decode().rstrip("=")


def _after(cursor: str) -> tuple[datetime, str]:
    try:
        at, last = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        moment = datetime.fromisoformat(at)
        if not is_id(last) or moment.tzinfo is None:
            raise ValueError(last)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidError("bad_cursor", "This cursor is not one of this list; begin again.") from error
    return moment, last
