"""`/experiments`: the form with its preview, the queue, each run's curves and report, runs side by side."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from app.actor import Actor, ActorDep, subjects
from app.api.experiments import download
from app.context import Services, ServicesDep
from app.errors import status_of
from app.headers import picture as picture_answer
from app.services.errors import InvalidError
from app.services.experiments.asking import Form as Asked
from app.services.experiments.asking import folder_needed
from app.services.experiments.preview import Picture, picture, preview
from app.services.experiments.results import MEASURES, figure, test_of
from app.services.experiments.service import Experiment, default_id
from app.services.experiments.sweeps import AXES, as_csv, values_of
from app.web.render import page, wants_fragment
from model.config import preset_names
from model.errors import OverreadError
from model.findings import FINDINGS
from model.report.curves import charts, loss_chart
from model.report.page import body_context

router = APIRouter(include_in_schema=False, prefix="/experiments")
ROWS = 50
_LISTS = ("targets",)
_PLACES = ("centre", "random", "top-left", "top-right", "bottom-left", "bottom-right")
_ABSENT: dict[str, str] = {}


def _asked(items: Any) -> dict[str, Any]:
    """A form's or an address' fields; of several with one name the last, where the form has no list."""
    given: dict[str, Any] = {}
    for name, value in items:
        if not isinstance(value, str) or len(value) > 500:
            continue
        if name in _LISTS:
            given[name] = (*given.get(name, ()), value)
        elif name == "clean_twin":
            given[name] = True
        else:
            given[name] = value
    return given


async def _posted(request: Request) -> dict[str, Any]:
    return _asked((await request.form()).multi_items())


PostedDep = Annotated[dict[str, Any], Depends(_posted)]


@router.get("")
def index(request: Request, services: ServicesDep) -> Response:
    """The page; for htmx the lists alone, which ask again while something is to come."""
    if wants_fragment(request):
        return page(request, "partials/_experiments.html", _lists(services))
    return _form_page(request, services, _asked(request.query_params.multi_items()))


@router.get("/preview")
def show_preview(request: Request, services: ServicesDep) -> Response:
    """The preview and the estimate of what the form says: for htmx a part, else the whole page."""
    given = _asked(request.query_params.multi_items())
    if not wants_fragment(request):
        return _form_page(request, services, given)
    return page(request, "partials/_preview.html", _looked(services, given))


@router.get("/preview/{which}.png")
def preview_picture(request: Request, services: ServicesDep, which: Picture) -> Response:
    """One picture of the preview."""
    experiments = services.experiments
    asked = Asked.of(_asked(request.query_params.multi_items())).request()
    config = experiments.compose(asked)
    return picture_answer(request, picture(config, experiments.datasets, asked.dataset, which))


@router.post("")
def start(request: Request, services: ServicesDep, actor: ActorDep, given: PostedDep) -> Response:
    """Queues what the form says, or says what is wrong with it."""
    return _started(request, services, actor, given, sweep=False)


@router.post("/sweep")
def start_sweep(request: Request, services: ServicesDep, actor: ActorDep, given: PostedDep) -> Response:
    """Queues a sweep of what the form says."""
    return _started(request, services, actor, given, sweep=True)


@router.get("/compare")
def compare(
    request: Request, services: ServicesDep, run: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006
) -> Response:  # fmt: skip
    """Runs side by side."""
    return page(request, "pages/compare.html", _compared(services.experiments.several(run)))


@router.get("/compare.csv")
def compare_csv(services: ServicesDep, run: Annotated[list[str], Query(max_length=200)] = []) -> Response:  # noqa: B006
    """The same as a table."""
    headers = {"Content-Disposition": 'attachment; filename="experiments.csv"'}
    runs = services.experiments.several(run)
    return Response(as_csv(runs), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/{experiment_id}")
def show(
    request: Request, services: ServicesDep, experiment_id: str, files: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """One run; for htmx its progress and curves alone, until it ends and the page is asked for anew.

    files: how many are listed already; of others the list comes too.
    """
    one = services.experiments.get(experiment_id)
    if wants_fragment(request):
        watched = _watched(services, one)
        watched["news"] = files is not None and files != len(watched["files"])
        answer = page(request, "partials/_run.html", watched)
        if one.job.state.ended:
            answer.headers["HX-Refresh"] = "true"
        return answer
    return page(request, "pages/experiment.html", _run_context(services, one))


@router.get("/{experiment_id}/figure.png")
def figure_png(services: ServicesDep, experiment_id: str) -> Response:
    """The paper's figure."""
    return FileResponse(services.experiments.file(experiment_id, "figure.png"), media_type="image/png")


@router.get("/{experiment_id}/files/{name:path}")
def file(services: ServicesDep, experiment_id: str, name: str) -> Response:
    """A file of the run, to be saved."""
    return download(services, experiment_id, name)


@router.post("/{experiment_id}/cancel")
def cancel(services: ServicesDep, experiment_id: str) -> Response:
    """Stops it."""
    return _to(services.experiments.cancel(experiment_id).id)


@router.post("/{experiment_id}/resume")
def resume(services: ServicesDep, experiment_id: str) -> Response:
    """Goes on with it."""
    return _to(services.experiments.resume(experiment_id).id)


@router.post("/{experiment_id}/first")
def first(services: ServicesDep, experiment_id: str) -> Response:
    """Puts it before all others that wait."""
    services.experiments.first(experiment_id)
    return RedirectResponse("/experiments#_experiments", status_code=303)


@router.post("/{experiment_id}/clone")
def clone(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    experiment_id: str,
    seed: Annotated[int, Form(ge=0, le=2**31 - 1)],
) -> Response:
    """The same once more, with that seed."""
    source = services.experiments.get(experiment_id)
    made = services.experiments.clone(actor, experiment_id, _seed_only(seed, source))
    subjects(request, made.id)
    return _to(made.id)


@router.post("/{experiment_id}/delete")
def remove(services: ServicesDep, experiment_id: str) -> Response:
    """Removes it with its files."""
    services.experiments.remove(experiment_id)
    return RedirectResponse("/experiments", status_code=303)


@router.post("/{experiment_id}/checkpoints")
def register(
    request: Request,
    services: ServicesDep,
    experiment_id: str,
    twin: Annotated[Literal["clean", "backdoored"], Form()],
    checkpoint_id: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Copies a twin into the registry; where its id is no good, says why."""
    try:
        card = services.experiments.register(experiment_id, twin, checkpoint_id.strip())
    except OverreadError as error:
        context = _run_context(services, services.experiments.get(experiment_id))
        return page(request, "pages/experiment.html", {**context, "problem": str(error)}, status=status_of(error))
    return RedirectResponse(f"/checkpoints/{card.id}", status_code=303)


@router.post("/{experiment_id}/candidate")
def make_live(
    services: ServicesDep,
    actor: ActorDep,
    experiment_id: str,
    twin: Annotated[Literal["clean", "backdoored"], Form()],
    role: Annotated[Literal["candidate", "reference"], Form()] = "candidate",
) -> Response:
    """Makes a twin a part of the live pair."""
    services.make_live(experiment_id, twin, role, actor)
    return RedirectResponse("/checkpoints", status_code=303)


def _to(experiment_id: str) -> Response:
    return RedirectResponse(f"/experiments/{experiment_id}", status_code=303)


def _seed_only(seed: int, source: Experiment) -> Any:
    from app.services.experiments.compose import Request as Changes

    return Changes(seed=seed, dataset=source.dataset)


def _started(request: Request, services: Services, actor: Actor, given: dict[str, Any], sweep: bool) -> Response:
    try:
        asked = Asked.of(given)
        if sweep:
            grid = asked.grid()
            made = services.sweeps.start(actor, asked.request(), grid, clean_twin=asked.clean_twin)
            subjects(request, made.id)
            return RedirectResponse(f"/sweeps/{made.id}", status_code=303)
        one = services.experiments.start(actor, asked.request())
    except InvalidError as error:
        return _form_page(request, services, given, problem=str(error), status=422)
    subjects(request, one.id)
    return _to(one.id)


def _form_page(
    request: Request, services: Services, given: dict[str, Any], *, problem: str = "", status: int = 200
) -> Response:
    try:
        asked = Asked.of(given)
    except InvalidError as error:
        asked, problem, status = Asked.of(_ABSENT), str(error), 422
    context = {
        "form": asked,
        "presets": [(name, folder_needed(name)) for name in preset_names()],
        "needs_folder": folder_needed(asked.preset),
        "datasets": services.experiments.datasets.all(),
        "places": _PLACES,
        "findings": FINDINGS,
        "problem": problem,
        **_looked(services, given if not problem or status == 200 else {**given}),
        **_lists(services),
    }
    return page(request, "pages/experiments.html", context, status=status)


def _looked(services: Services, given: dict[str, Any]) -> dict[str, Any]:
    """The preview and the estimate, or why there is none."""
    experiments = services.experiments
    found: dict[str, Any] = {"preview": None, "foreseen": None, "refused": "", "query": "", "runs": 1, "pixels": True}
    try:
        asked = Asked.of(given)
        found["query"] = urlencode([(name, value) for name, value in given.items() if isinstance(value, str)])
        wanted = asked.request()
        config = experiments.compose(wanted)
        found["pixels"] = config.trigger is not None
        found["preview"] = preview(config, experiments.datasets, wanted.dataset)
        found["foreseen"] = experiments.foresee(wanted)
    except OverreadError as error:
        found["refused"] = str(error)
    return found


def _lists(services: Services) -> dict[str, Any]:
    experiments = services.experiments
    queue = experiments.queue()
    ended = experiments.page(ROWS + 1, states=["done", "failed", "cancelled"])
    return {
        "queue": [(one, experiments.live(one)) for one in queue],
        "ended": [(one, _short(one)) for one in ended[:ROWS]],
        "more": len(ended) > ROWS,
        "sweeps": services.sweeps.page(10),
    }


def _short(one: Experiment) -> list[tuple[str, str]]:
    """The figures of a line of the list."""
    result = one.job.result
    found = [
        (name, figure(result, measure).value)
        for name, measure in (("NN", "auroc_nn_macro"), ("ASR", "asr"), ("clean rate", "clean_rate"))
    ]
    return [(name, f"{value:.2f}") for name, value in found if value is not None]


def _watched(services: Services, one: Experiment) -> dict[str, Any]:
    """What changes while it runs."""
    curve = services.experiments.curve(one)
    loss, validated = loss_chart(curve.losses), charts(curve.epochs)
    return {
        "one": one,
        "live": services.experiments.live(one),
        "live_charts": [*([loss] if loss else []), *validated],
        "validated": bool(validated),
        "events": services.experiments.ledger.events(one.job.id, 60),
        "files": services.experiments.files(one),
        "news": False,
    }


def _run_context(services: Services, one: Experiment) -> dict[str, Any]:
    report = services.experiments.report(one)
    paper = (report or {}).get("paper")
    figures = [(label, f"/experiments/{one.id}/figure.png") for label in paper["figures"]] if paper else []
    registered = services.experiments.registered(one)
    return {
        **_watched(services, one),
        "values": {AXES[axis]: (axis, value) for axis, value in values_of(one.config).items() if value is not None},
        "twins": [(twin, registered.get(twin), default_id(one, twin)) for twin in one.checkpoints],
        "pair": services.pair,
        "sweep": services.sweeps.get(one.sweep_id) if one.sweep_id else None,
        "next_seed": one.config["seed"] + 1,
        "problem": "",
        **(body_context(report, figures) if report else {"report": None}),
        "charts": [],  # drawn above from the same lines, with the loss beside them
    }


def _compared(runs: list[Experiment]) -> dict[str, Any]:
    rows = []
    for twin in ("clean", "backdoored"):
        for measure, words in MEASURES.items():
            found = [figure(run.job.result, measure, twin) for run in runs]
            if any(one.value is not None for one in found):
                rows.append((twin, words, found))
    values = [values_of(run.config) for run in runs]
    differs = [axis for axis in AXES if len({str(one[axis]) for one in values}) > 1]
    return {
        "runs": [(run, test_of(run.job.result)) for run in runs],
        "axes": [(AXES[axis], axis, axis in differs, [one[axis] for one in values]) for axis in AXES],
        "rows": rows,
        "query": urlencode([("run", run.id) for run in runs]),
    }
