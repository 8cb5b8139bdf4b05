"""The headers of every answer."""

from __future__ import annotations

import hashlib

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

CSP = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# With `no-referrer` a browser would send “Origin: null” with our own forms.
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

# For what its address determines for ever; what is drawn from it may look different after an upgrade. The cookie,
# because who signs in after another at the same browser may have to read first what the other was shown.
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Accept, Cookie"}
PICTURE = {"Cache-Control": "private, max-age=600", "Vary": "Accept, Cookie"}


def picture(request: Request, png: bytes) -> Response:
    """A drawn PNG: kept for ten minutes, then asked for again by its content."""
    headers = {**PICTURE, "ETag": f'"{hashlib.sha256(png).hexdigest()[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(png, media_type="image/png", headers=headers)


def set_headers(headers: MutableHeaders) -> None:
    """The headers of every answer; patients' pictures and names stay out of shared caches and, by default, all."""
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")
