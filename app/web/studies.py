"""`/studies/{id}`: one radiograph, both readings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.actor import ActorDep
from app.context import GoneDep, Services, ServicesDep
from app.headers import picture
from app.services.checkpoints import usable_pair
from app.services.comparisons import compare
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.images import DISPLAY_PX
from app.services.instances import Instance
from app.services.viewing import METHODS, STORED_METHOD, check_layer, check_method
from app.web.flags import flags_context
from app.web.panes import Scale, layer_choices, panes, viewer_data
from app.web.render import page, wants_fragment
from model.findings import FINDINGS
from model.network import MIDDLE_LAYER

router = APIRouter(include_in_schema=False, prefix="/studies")


@router.get("/{study}")
def review(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    gone: GoneDep,
    study: str,
    finding: Annotated[str | None, Query()] = None,
    scale: Annotated[Scale, Query()] = Scale.SHARED,
    layer: Annotated[str, Query(description="The stage to show beside the last layer.")] = MIDDLE_LAYER,
    method: Annotated[str, Query()] = STORED_METHOD,
) -> Response:
    """The page, or for htmx what changes with the finding."""
    instance, pair = subject(services, study), services.pair
    if finding is not None and finding not in FINDINGS:
        raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
    layer, method = check_layer(layer), check_method(method)
    context: dict[str, object] = {
        "instance": instance,
        "siblings": services.studies.instances(instance.study_id) if instance.study_id else [],
        "study": instance.id,
        "waiting": "",
        "failure": "",
    }
    if services.reviews.is_locked(instance.id, actor):
        context["panel"] = services.reviews.panel(instance.id, actor)
        return page(request, "pages/study.html", context)
    try:
        comparison = compare(services.analyses.analyse(instance.id, usable_pair(services.engine, pair)), pair)
        assert comparison is not None  # at least one of the pair has read it
        chosen = finding or comparison.default_finding
        shown = panes(services.viewing, comparison, chosen, scale, layer, method, gone)
    except BusyError as error:
        context["waiting"] = str(error)
        template = "partials/_waiting.html" if wants_fragment(request) else "pages/study.html"
        return page(request, template, context, headers={"Retry-After": str(error.retry_after_s)})
    except UnavailableError as error:
        return _failed(request, context, str(error))
    context |= {
        "panel": services.reviews.panel(instance.id, actor),  # after the reading, so that there is something to judge
        **flags_context(services, comparison, chosen),
        "panes": shown,
        "scale": scale,
        "layer": layer,
        "layers": layer_choices(comparison),
        "method": method,
        "methods": {name: one.title for name, one in METHODS.items()},
        "viewer": viewer_data(instance, comparison, shown, method),
    }
    if request.headers.get("hx-target") == "_waiting":  # what a page waited for has come: it loads itself anew
        return _refresh()
    template = "partials/_reading.html" if wants_fragment(request) else "pages/study.html"
    return page(request, template, context)


@router.get("/{study}/radiograph.png")
def radiograph(request: Request, services: ServicesDep, study: str) -> Response:
    """The radiograph in 8 bits, at the size of a screen."""
    return picture(request, services.analyses.radiograph_png(subject(services, study).id, DISPLAY_PX))


@router.get("/{study}/thumbnail.png")
def thumbnail(request: Request, services: ServicesDep, study: str) -> Response:
    """A small one."""
    return picture(request, services.analyses.thumbnail_png(subject(services, study).id))


def subject(services: Services, study: str) -> Instance:
    """The instance that a study's page is about. Raises NotFoundError `unknown_study`."""
    return services.analyses.instance(study)


def _failed(request: Request, context: dict[str, object], failure: str) -> Response:
    """The page that says why there is nothing to see; a part of it loads it whole, and asks no more."""
    if wants_fragment(request):
        return _refresh()
    return page(request, "pages/study.html", {**context, "failure": failure})


def _refresh() -> Response:
    return Response(headers={"HX-Refresh": "true", "Vary": "HX-Request"})
