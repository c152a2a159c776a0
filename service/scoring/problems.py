"""Every error as a problem document of RFC 9457, with a stable code."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors import Internal, MethodNotAllowed, NotFound, ServiceError

MEDIA_TYPE = "application/problem+json"

#: Every code that the API answers, and its title. docs/api.md explains each.
TITLES = {
    "malformed_json": "The body is not JSON",
    "invalid_header": "A header does not say what the API asks for",
    "invalid_request": "The request does not say what the API asks for",
    "duplicate_candidate": "Two candidates have one id",
    "unknown_strategy": "No such strategy",
    "unknown_feature": "No such feature",
    "feature_type": "A feature has a value of the wrong type",
    "feature_not_finite": "A feature is not a finite number",
    "feature_too_many_values": "A feature has too many values",
    "body_too_large": "The body is too large",
    "too_many_candidates": "Too many candidates",
    "too_many_events": "Too many events",
    "too_many_items": "Too many items",
    "item_too_large": "The item is too large",
    "items_full": "The item store is full",
    "unauthorized": "The token is missing or wrong",
    "not_found": "No such resource",
    "method_not_allowed": "The resource does not know this method",
    "version_unusable": "The version does not verify",
    "version_refused": "The guard refused the version",
    "no_current_version": "No version is current",
    "no_earlier_version": "There is no version to go back to",
    "not_ready": "No model is loaded",
    "draining": "The scorer is about to stop",
    "overloaded": "Too many requests are being answered",
    "deadline_exceeded": "The request waited too long",
    "log_unavailable": "The event log cannot be reached",
    "log_full": "The event log has no room",
    "store_unavailable": "The checkpoints cannot be reached",
    "internal": "A fault of the service",
}


#: After these the rest of the body may still be on its way, and is not waited for.
_HANGS_UP = {"body_too_large", "deadline_exceeded"}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where in the body."""

    path: str
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, RFC 9457. Branch on code: it is stable, the sentences are not."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    errors: list[Fault] = []


def response(error: ServiceError, instance: str, headers: dict[str, str] | None = None) -> Response:
    """The answer to a request at path `instance` that failed with `error`."""
    faults = [] if error.path is None else [Fault(path=error.path, code=error.code, detail=error.detail)]
    problem = Problem(
        type=f"urn:problem-type:agerank:{error.code}",
        title=TITLES[error.code],
        status=error.status,
        detail=error.detail,
        code=error.code,
        instance=quote(instance),  # a URI, while a path comes decoded
        errors=faults,
    )
    headers = dict(headers or {})
    if error.code in _HANGS_UP:
        headers["Connection"] = "close"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(msgspec.json.encode(problem), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answers every error of the app. The unexpected ones are raised on, for `guard` to log."""
    app.add_exception_handler(Exception, _on_fault)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def fault(instance: str) -> Response:
    """The answer where something unexpected happened: what it was is nobody's business."""
    return response(Internal("internal", "an unexpected fault; the service's log has it"), instance)


async def _on_fault(request: Request, _: Exception) -> Response:
    return fault(request.scope["path"])


async def _on_service_error(request: Request, error: Any) -> Response:
    return response(error, request.scope["path"])


async def _on_http_exception(request: Request, error: Any) -> Response:
    """What the router says: 404 or 405."""
    path = request.scope["path"]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # One resource may be several routes, of which the router knows the first.
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
        allowed = ", ".join(sorted(method for route in routes for method in route.methods))
        refusal = MethodNotAllowed("method_not_allowed", f"{path} knows {allowed}, not {request.method}")
        return response(refusal, path, {"Allow": allowed})
    return response(NotFound("not_found", f"there is nothing at {path}"), path)
