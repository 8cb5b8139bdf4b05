"""Domain error → HTTP: as problem+json (RFC 9457) for programs, as a page for people. The one place that maps them."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from app.headers import HEADERS
from app.schemas import Problem
from app.services.errors import (
    BusyError,
    ConflictError,
    CredentialsError,
    InvalidError,
    NotFoundError,
    TooManyAttemptsError,
    UnavailableError,
)
from app.web.render import page
from model.errors import DataError, OverreadError, RadiographError

log = logging.getLogger("overread")
PROBLEM_JSON = "application/problem+json"
TOO_LARGE = "The upload is larger than this server takes; send fewer or smaller files."
_STATUS_OF_CODE = {"too_large": 413, "unknown_format": 415, "decoder_killed": 503}
_STATUS_OF_TYPE: dict[type[OverreadError], int] = {
    RadiographError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    CredentialsError: 401,
    TooManyAttemptsError: 429,
    BusyError: 503,
    UnavailableError: 503,
    InvalidError: 422,
    DataError: 422,
}


def status_of(error: OverreadError) -> int:
    """500 for what a request cannot have caused."""
    if isinstance(error, RadiographError) and error.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[error.code]
    return next((status for kind, status in _STATUS_OF_TYPE.items() if isinstance(error, kind)), 500)


def problem(status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None) -> Problem:
    """The JSON of an error."""
    return Problem(
        type=f"urn:overread:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=errors,
    )


def error_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer in the form that the caller understands."""
    path = request.url.path
    if (
        path.startswith("/api/")
        or path in ("/healthz", "/readyz", "/metrics")
        or "text/html" not in request.headers.get("accept", "")
    ):
        content = problem(status, code, detail, errors).model_dump(exclude_none=True)
        return JSONResponse(content, status, headers, media_type=PROBLEM_JSON)
    context = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail}
    return page(request, "pages/error.html", context, status=status, headers=headers)


def _sign_in(request: Request, error: CredentialsError) -> Response:
    """A page sends the person to sign in, and back again; a program is told how.

    A browser's own fetch of a picture must not raise the browser's dialogue: it gets no challenge.
    """
    fragment = request.headers.get("hx-request") == "true"
    if request.url.path.startswith("/api/") or fragment or "text/html" not in request.headers.get("accept", ""):
        headers = {} if "sec-fetch-mode" in request.headers else {"WWW-Authenticate": 'Basic realm="Overread"'}
        if fragment:
            headers["HX-Redirect"] = "/sign-in"
        return error_response(request, 401, error.code, str(error), headers=headers)
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = f"/sign-in?next={quote(back)}" if request.method == "GET" else "/sign-in"
    return RedirectResponse(target, 303)


def install(app: FastAPI) -> None:
    """Registers the handlers."""

    @app.exception_handler(OverreadError)
    async def domain(request: Request, error: OverreadError) -> Response:
        status = status_of(error)
        if status == 500:
            log.error("Unexpected %s", error.code)  # the message may name a file
        if isinstance(error, CredentialsError):
            return _sign_in(request, error)
        headers = None
        if isinstance(error, BusyError | TooManyAttemptsError):
            headers = {"Retry-After": str(error.retry_after_s)}
        return error_response(request, status, error.code, str(error), headers=headers)

    @app.exception_handler(OperationalError)
    @app.exception_handler(TimeoutError)
    async def database(request: Request, error: Exception) -> Response:
        log.error("The database did not answer: %s", getattr(error, "orig", None) or error)
        detail = "The database is busy or away for a moment; nothing was changed. Try again."
        return error_response(request, 503, "database_busy", detail, headers={"Retry-After": "5"})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).name.lower() if error.status_code != 413 else "content_too_large"
        detail = {
            404: "There is nothing at this address.",
            405: "This address does not answer to that method.",
            413: TOO_LARGE,
        }.get(error.status_code, str(error.detail))
        return error_response(request, error.status_code, code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        errors = [{"where": ".".join(str(part) for part in e["loc"]), "what": e["msg"]} for e in error.errors()]
        detail = "The request is incomplete or malformed: " + "; ".join(f"{e['where']}: {e['what']}" for e in errors)
        return error_response(request, 422, "bad_request", detail, errors=errors)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # This answer bypasses the Guard, which lies inside Starlette's own handler for the unexpected.
        headers = {**HEADERS, "Cache-Control": "no-store"}
        detail = "Something went wrong in the server; it is in its log. What was stored before is safe."
        return error_response(request, 500, "internal_error", detail, headers=headers)
