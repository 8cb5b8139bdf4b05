"""Templates → answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.services.experiments import wording as experiments
from app.services.wording import (
    finding_text,
    flag_text,
    reason_text,
    signed,
    verdict_text,
    warning_text,
)
from app.web.proofs import look_at
from model.detector.conformal import HARD_ALPHA
from model.words import number

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "model" / "report"  # a run's report is a part of its page
TEMPLATES, STATIC = ROOT / "templates", ROOT / "static"

_environment = Environment(
    loader=FileSystemLoader([TEMPLATES, REPORT]),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    axis_value=experiments.value,
    cell=experiments.cell,
    duration=experiments.duration,
    figure=experiments.figure,
    finding=finding_text,
    flag=flag_text,
    job_state=experiments.state,
    look_at=look_at,
    megabytes=experiments.megabytes,
    number=number,
    reason=reason_text,
    signed=signed,
    verdict=verdict_text,
    warning=warning_text,
)
_environment.globals["HARD_ALPHA"] = HARD_ALPHA


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks, for a part of the page."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-history-restore-request") != "true"


def page(
    request: Request,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A rendered template. Every page knows who is there, and the registry for its footer.

    On a page for whom nobody is known yet, such as the sign-in, there is neither.
    """
    actor = getattr(request.state, "actor", None)
    services = getattr(request.app.state, "services", None) if "app" in request.scope else None
    checkpoints = services.checkpoints() if services and actor else []
    html = _environment.get_template(template).render(**context, checkpoints=checkpoints, actor=actor)
    return HTMLResponse(html, status, {"Vary": "HX-Request", **(headers or {})})
