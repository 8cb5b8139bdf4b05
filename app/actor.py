"""Who a request acts for. Every router but the open ones depends on `signed_in`; everything else asks `actor`.

On this machine, and as long as there is no user, whoever comes is `local`. Roles and tokens will be decided here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, cast

from fastapi import Depends, Request

from app.context import services
from app.services.errors import CredentialsError
from app.services.ids import is_id
from app.services.users import LOCAL, Actor
from app.telemetry import route_template

__all__ = [
    "Actor",
    "ActorDep",
    "actor",
    "audited",
    "cookie_name",
    "current",
    "is_https",
    "signed_in",
    "subjects",
]

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_PARAMETERS = {"study": "study", "study_id": "study", "instance_id": "study", "analysis_id": "analysis"}
_OWN_EVENTS = {  # their services record them
    "analysis.reviews", "study.decision", "study.unaided", "study.read_first", "checkpoints.create",
    "calibration.create", "calibrations.create",
}  # fmt: skip
_LISTS = {
    "/": "worklist.read",
    "/api/v1/studies": "worklist.read",
    "/worklist.csv": "worklist.export",
    "/worklist.json": "worklist.export",
}


def current(request: Request) -> Actor | None:
    """Who acts, where that is known."""
    return cast(Actor | None, getattr(request.state, "actor", None))


def actor(request: Request) -> Actor:
    """Who acts. Raises CredentialsError `sign_in_required`."""
    known = current(request) or _identify(request)
    if known is None:
        raise CredentialsError("sign_in_required", "Sign in to use this server.")
    request.state.actor = known
    return known


def signed_in(request: Request) -> None:
    """Lets nobody in who is unknown: a dependency of routers."""
    actor(request)


ActorDep = Annotated[Actor, Depends(actor)]


def is_https(request: Request) -> bool:
    """Whether the browser's connection is encrypted, as far as this server can know."""
    return request.url.scheme == "https" or services(request).settings.https


def cookie_name(request: Request) -> str:
    """`__Host-` binds the cookie to this host over TLS; browsers refuse it without."""
    return "__Host-overread" if is_https(request) else "overread"


def subjects(request: Request, *ids: str) -> None:
    """Says what a request was about where its address does not: for the audit, e.g. the studies of an upload."""
    request.state.subjects = ids


def audited(request: Request) -> Iterator[None]:
    """Records what a request did or saw, after its route and before its answer: a dependency of routers.

    Reads of the worklist, a study or an analysis, and every change. A route that fails is not recorded.
    """
    yield
    kind, subject = _subject(request)
    who, log, verb = actor(request), services(request).audit, _verb(request)
    if request.method in ("GET", "HEAD"):
        if kind:
            log.note_read(who, f"{kind}.{verb}", subject)
        elif action := _LISTS.get(route_template(request.scope) or ""):
            log.note_read(who, action, "")
        return
    action = f"{kind or _collection(request)}.{verb}"
    if action not in _OWN_EVENTS:
        about = getattr(request.state, "subjects", None)
        for one in (subject or _changed(request),) if about is None else about:
            log.note(who, action, one)


def _identify(request: Request) -> Actor | None:
    users = services(request).users
    secret = request.cookies.get(cookie_name(request))
    if secret and (found := users.resume(secret)):
        return found
    basic = _basic(request.headers.get("authorization", ""))
    if basic:
        return users.authenticate(*basic, address(request))
    return LOCAL if is_open(request) else None


def is_open(request: Request) -> bool:
    """Whether nobody needs to sign in: no users, this machine alone, and no proxy between that lets others through."""
    held = services(request)
    proxied = any(name in request.headers for name in _FORWARDED)
    return held.settings.on_loopback and not proxied and not held.users.any()


def address(request: Request) -> str:
    """Where a request comes from, for counting attempts."""
    return request.client.host if request.client else ""


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, separator, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if separator else None


def _subject(request: Request) -> tuple[str, str]:
    """(study or analysis, its id) of the address; both empty where there is none that could exist."""
    for parameter, kind in _PARAMETERS.items():
        value = request.path_params.get(parameter, "")
        if is_id(value):
            return kind, value
    return "", ""


def _changed(request: Request) -> str:
    """The id of what else a change is about: a job, an experiment, a sweep."""
    values = [request.path_params.get(name, "") for name in ("job_id", "experiment_id", "sweep_id")]
    return next((value for value in values if is_id(value)), "")


def _verb(request: Request) -> str:
    """The last fixed word behind the id, `read` where there is none: /studies/{study}/export → export."""
    if request.method in ("GET", "HEAD"):
        return "export" if "/export" in request.url.path else "read"
    template = route_template(request.scope) or ""
    behind = template.rpartition("}")[2].strip("/") if "}" in template else ""
    return (behind or {"POST": "create", "DELETE": "remove"}.get(request.method, "change")).replace("-", "_")


def _collection(request: Request) -> str:
    words = [
        word
        for word in (route_template(request.scope) or "").split("/")
        if word and "{" not in word and word not in ("api", "v1")
    ]
    return words[0].replace("-", "_") if words else "server"
