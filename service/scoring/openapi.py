"""/openapi.json: FastAPI collects the routes, msgspec describes what they read and write."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.scoring import item_schemas, schemas, status
from service.scoring.problems import MEDIA_TYPE, Problem

_STRUCTS = [
    schemas.RankRequest,
    schemas.RankResponse,
    schemas.EventsRequest,
    schemas.EventsResponse,
    item_schemas.ItemFeatures,
    item_schemas.StoredItem,
    item_schemas.ItemsRequest,
    item_schemas.ItemResult,
    item_schemas.ItemsResponse,
    status.Live,
    status.Ready,
    status.ServerLive,
    status.ServerReady,
    status.ModelReady,
    status.ModelMetadata,
    status.ModelSummary,
    Problem,
]


def operation(
    summary: str,
    answer: type,
    *,
    body: type | None = None,
    needs_body: bool = True,
    code: int = 200,
    refusals: Sequence[int] = (),
    parameters: Mapping[str, Any] = MappingProxyType({}),
    headers: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What a route's decorator is told, so that it stands in the document.

    Args:
        summary: one line.
        answer: struct of the response.
        body: struct of the request.
        needs_body: an empty one will not do.
        code: status of the response.
        refusals: statuses of problems besides 500.
        parameters: in the path, with their types.
        headers: that it reads, with their types.
    """
    responses: dict[int, Any] = {code: _content(HTTPStatus(code).phrase, answer)}
    for refusal in (*refusals, 500):
        responses[refusal] = _content(HTTPStatus(refusal).phrase, Problem, MEDIA_TYPE)
    extra: dict[str, Any] = {}
    if body:
        extra["requestBody"] = {**_content(body.__name__, body), "required": needs_body}
    named = [(name, kind, "path") for name, kind in parameters.items()]
    named += [(name, kind, "header") for name, kind in headers.items()]
    if named:
        extra["parameters"] = [
            {"name": name, "in": place, "required": place == "path", "schema": msgspec.json.schema(kind)}
            for name, kind, place in named
        ]
    return {"summary": summary, "status_code": code, "responses": responses, "openapi_extra": extra}


def install(app: FastAPI, structs: Sequence[type] = _STRUCTS, *, bearer: bool = False) -> None:
    """Gives the app its document.

    Args:
        structs: all that its operations name.
        bearer: whether every request carries a token.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
            app.openapi_schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            app.openapi_schema["components"] = {"schemas": components}
            if bearer:
                scheme = {"token": {"type": "http", "scheme": "bearer"}}
                app.openapi_schema["components"]["securitySchemes"] = scheme
                app.openapi_schema["security"] = [{"token": []}]
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to change the document


def _content(description: str, struct: type, media_type: str = "application/json") -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{struct.__name__}"}
    return {"description": description, "content": {media_type: {"schema": reference}}}
