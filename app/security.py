"""What guards every request: headers, Host, the body's size, and where a change comes from.

Plain ASGI, because it must also hold for answers that no route made.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TOO_LARGE, error_response
from app.headers import set_headers

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class Guard:
    """Sets the headers, and refuses foreign hosts, foreign origins and large bodies before anything is parsed."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...], max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.allowed_hosts = {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                set_headers(MutableHeaders(scope=message))
            await send(message)

        headers = Headers(scope=scope)
        request = Request(scope, receive)
        if not self._known_host(headers.get("host", "")):
            response = error_response(
                request, 400, "bad_host", "The address in this request is not one that this server answers to."
            )
        elif _declared(headers) > self.max_body_bytes:
            response = error_response(request, 413, "content_too_large", TOO_LARGE)
        elif scope["method"] not in _SAFE_METHODS and not _same_origin(headers):
            response = error_response(
                request,
                403,
                "cross_origin",
                "This request came from another site; use this site's own form.",
            )
        else:
            await self.app(scope, self._limited(receive), guarded_send)
            return
        await response(scope, receive, guarded_send)

    def _limited(self, receive: Receive) -> Receive:
        """Counts what really arrives: a declared length may be missing or a lie."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise HTTPException(413)
            return message

        return counted

    def _known_host(self, host: str) -> bool:
        name, separator, port = host.rpartition(":")
        if not separator or host.endswith("]"):
            name, port = host, ""
        return name.lower() in self.allowed_hosts and (not port or port.isdigit())


def _declared(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _same_origin(headers: Headers) -> bool:
    """Browsers say where a request comes from; what says nothing is no browser."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
