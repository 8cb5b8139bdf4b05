"""What operators see of requests: numbers for Prometheus, and a log line each. Nothing of a patient in either.

A request is named by its route's template; addresses, file names and ids appear nowhere.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("overread.request")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """One server's numbers. gauges, counters: name and help → what to ask when they are read."""

    def __init__(
        self,
        gauges: dict[tuple[str, str], Callable[[], float]],
        counters: dict[tuple[str, str], Callable[[], float]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "overread_requests", "Answered requests.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "overread_request_seconds",
            "From a request's arrival to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_Asked(gauges, counters))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Asked(Collector):
    def __init__(
        self,
        gauges: dict[tuple[str, str], Callable[[], float]],
        counters: dict[tuple[str, str], Callable[[], float]],
    ) -> None:
        self._gauges = gauges
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked at registration: the server may not be up."""
        return []

    def collect(self) -> Iterable[Metric]:
        for (name, words), ask in self._gauges.items():
            yield GaugeMetricFamily(name, words, value=ask())
        for (name, words), ask in self._counters.items():
            yield CounterMetricFamily(name, words, value=ask())


class Observe:
    """Counts and logs every request, refused ones too, and gives each an id (`X-Request-ID`)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), 0, uuid4().hex

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, noted)
            except Exception:
                status = status or 500  # answered by Starlette, outside of every middleware
                raise
            finally:
                taken_s = time.perf_counter() - began
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = route_template(scope) or "unmatched"
                self.metrics.requests.labels(method, route, status or 499).inc()
                self.metrics.seconds.labels(method, route).observe(taken_s)
                told = {"method": method, "route": route, "status": status or 499}
                log.info("request", extra={**told, "duration_ms": round(taken_s * 1e3, 1)})


def route_template(scope: Scope) -> str | None:
    """`/studies/{study}` for what a route has answered, `/static` for a file of ours, None for anything else."""
    matched = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    template = getattr(matched, "path_format", None)
    if template is None and "endpoint" in scope and scope["path"].startswith("/static/"):
        return "/static"
    return template


def configure_logging(stream: TextIO | None = None) -> None:
    """One line for each event: JSON, or coloured words on a terminal. Takes over the standard library's loggers."""
    target = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if target.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name != "uvicorn.access"
    for name in ("alembic", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
