"""`/api/docs`: the OpenAPI document as a page of our own, because Swagger's needs inline scripts and a CDN."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/api/openapi.json")
def openapi(request: Request) -> Response:
    """The document itself."""
    return JSONResponse(request.app.openapi())


@router.get("/api/docs")
def docs(request: Request) -> Response:
    """Every operation with its parameters and answers."""
    document = request.app.openapi()
    operations: list[dict[str, Any]] = [
        {"method": method.upper(), "path": path, "fields": _fields(document, operation), **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return page(
        request,
        "pages/docs.html",
        {"operations": operations, "info": document["info"], "base_url": str(request.base_url)},
    )


def _fields(document: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of the form that an operation takes, in the shape of parameters."""
    content = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if content is None:
        return []
    schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[-1]]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "form", "required": name in required, "description": field.get("description", "")}
        for name, field in schema["properties"].items()
    ]
