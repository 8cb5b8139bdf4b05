"""The server, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.actor import audited, signed_in
from app.api import analyses, checkpoints, experiments, instances, jobs, operations, predictions, reviews, sweeps
from app.api import studies as api_studies
from app.context import Services
from app.errors import install
from app.schemas import Problem
from app.security import Guard
from app.settings import Settings
from app.telemetry import Metrics, Observe
from app.web import audit, docs, export, sign_in, studies, worklist
from app.web import checkpoints as checkpoint_pages
from app.web import experiments as experiment_pages
from app.web import jobs as jobs_page
from app.web import reviews as decisions
from app.web import sweeps as sweep_pages
from app.web.render import STATIC
from model.checkpoint import NOTICE

SPARE_THREADS = 40


def create_app(settings: Settings, prepared: Services | None = None) -> FastAPI:
    """A server. prepared: services that are open already; by default it opens its own when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = services = prepared or Services(settings)
        services.start()
        # Who waits for a decoder or for the device holds a thread; everybody else must still find one.
        current_default_thread_limiter().total_tokens = 2 * settings.queue_size + settings.decoders + SPARE_THREADS
        try:
            yield
        finally:
            services.stop()

    app = FastAPI(
        title="Overread",
        version=_version(),
        description=f"A second reading of chest-radiograph AI. {NOTICE}",
        openapi_url=None,  # served by app/web/docs.py, behind the sign-in
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    limit = settings.max_upload_mb * 2**20
    app.state.metrics = metrics = _metrics(app)
    app.add_middleware(Guard, allowed_hosts=settings.answered_hosts, max_body_bytes=limit)
    app.add_middleware(Observe, metrics=metrics)
    if settings.trusted_proxies:
        trusted = [str(network) for network in settings.trusted_proxies]
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
    install(app)
    # Whatever is included without `closed` is open to everybody: these two, and the static files below.
    for everybody in (operations.router, sign_in.router):
        app.include_router(everybody)
    closed = [Depends(signed_in), Depends(audited, scope="function")]
    for part in (
        predictions, api_studies, analyses, instances, reviews, checkpoints, experiments, sweeps, jobs,
    ):  # fmt: skip
        app.include_router(part.router, prefix="/api/v1", dependencies=closed)
    for other in (
        docs,
        worklist,
        studies,
        decisions,
        export,
        audit,
        checkpoint_pages,
        experiment_pages,
        sweep_pages,
        jobs_page,
    ):
        app.include_router(other.router, dependencies=closed)
    app.include_router(operations.metrics_router, dependencies=closed)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _document_problems(app)
    return app


def _metrics(app: FastAPI) -> Metrics:
    """The services are asked when somebody looks; they open after the server is put together."""

    def held() -> Services:
        return cast(Services, app.state.services)

    return Metrics(
        gauges={
            ("overread_queue_depth", "Radiographs that wait for the device."): lambda: held().engine.waiting,
            ("overread_checkpoints_settled", "1 once loading is over."): lambda: held().engine.settled,
        },
        counters={
            ("overread_analyses", "Analyses that are stored."): lambda: held().analyses.count(),
            ("overread_reviews", "Links of the reviews' chain."): lambda: held().reviews.count(),
        },
    )


def _document_problems(app: FastAPI) -> None:
    """Our errors are all problem+json: the document says so, also where FastAPI would name its own schema."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _version() -> str:
    try:
        return version("overread")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
