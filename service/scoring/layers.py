"""FastAPI with layers of our own around it."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


class Layered(FastAPI):
    """An app within `layers`: `add_middleware` would put them below some of the framework's."""

    def __init__(self, layers: Callable[[ASGIApp], ASGIApp], **given: Any) -> None:
        super().__init__(**given)
        self._layers = layers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # FastAPI looks each time whether somebody traces it
            await Starlette.__call__(self, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        return self._layers(super().build_middleware_stack())
