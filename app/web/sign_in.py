"""`/sign-in`, `/sign-out`: the only pages that are open to everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app.actor import address, cookie_name, is_https, is_open
from app.context import ServicesDep
from app.services.errors import CredentialsError, TooManyAttemptsError
from app.services.users import Actor
from app.web.render import page

router = APIRouter(include_in_schema=False)
_NOBODY = Actor("", "nobody")


@router.get("/sign-in")
def form(request: Request, services: ServicesDep, next: Annotated[str, Query(max_length=2048)] = "/") -> Response:
    """The form; where nobody needs to sign in, the page that was wanted."""
    if is_open(request):
        return RedirectResponse(_local(next), 303)
    return _page(request, _local(next), nobody=not services.users.any())


@router.post("/sign-in")
def sign_in(
    request: Request,
    services: ServicesDep,
    name: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Begins a session under a new id, whatever the browser brought, and goes where the person wanted to."""
    try:
        actor = services.users.authenticate(name, password, address(request))
    except CredentialsError as error:
        services.audit.note(_NOBODY, "sign_in.refused")
        return _page(request, _local(next), name, str(error), status=401)
    except TooManyAttemptsError as error:
        headers = {"Retry-After": str(error.retry_after_s)}
        return _page(request, _local(next), name, str(error), status=429, headers=headers)
    secret = services.users.begin(actor, request.cookies.get(cookie_name(request), ""))
    services.audit.note(actor, "sign_in.accepted")
    response = RedirectResponse(_local(next), 303)
    response.set_cookie(cookie_name(request), secret, httponly=True, samesite="lax", secure=is_https(request), path="/")
    return response


@router.post("/sign-out")
def sign_out(request: Request, services: ServicesDep) -> Response:
    """Ends the session, here and in the database."""
    secret = request.cookies.get(cookie_name(request), "")
    actor = services.users.resume(secret)
    if actor:
        services.users.end(secret)
        services.audit.note(actor, "sign_out.accepted")
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="lax", secure=is_https(request), path="/")
    return response


def _page(
    request: Request,
    next: str,
    name: str = "",
    error: str = "",
    *,
    nobody: bool = False,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    context = {"next": next, "name": name, "error": error, "nobody": nobody}
    return page(request, "pages/sign_in.html", context, status=status, headers=headers)


def _local(target: str) -> str:
    """An address on this server, or its first page: browsers read `//host` and `/\\host` as another server."""
    plain = target.isprintable() and target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain else "/"
