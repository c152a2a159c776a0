"""The busiest endpoints, around the framework: none of its layers does anything for them, and each takes time."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.scoring import problems

Endpoint = Callable[[Request], Awaitable[Response]]


class Shortcut:
    """ASGI middleware.

    Args:
        app: answers everything else.
        endpoints: of (method, path). The app has them, too, for its document and for what else it does.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive, send))
        except ServiceError as error:
            response = problems.response(error, scope["path"])
        await response(scope, receive, send)
