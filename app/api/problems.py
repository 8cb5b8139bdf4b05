"""How errors look in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from app.errors import PROBLEM_JSON

_WORDS = {
    400: "The Host header is not one that this server answers to, or the form is malformed.",
    401: "Sign-in is needed, or the name and password do not go together.",
    403: "The request came from another site.",
    404: "There is no such thing.",
    409: "It contradicts what is stored already.",
    413: "The upload, or the image in it, is too large.",
    415: "Neither PNG, JPEG nor DICOM.",
    422: "The file cannot be read as a chest radiograph, or the request is malformed.",
    429: "Too many failed attempts to sign in; come back after Retry-After seconds.",
    503: "The device or the database is busy, or a checkpoint still loading; come back after Retry-After seconds.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _WORDS[status], "content": {PROBLEM_JSON: schema}} for status in (400, *statuses, 503)
    }
