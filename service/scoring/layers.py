"""FastAPI with layers of our own around it."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError


class Layered(FastAPI):
    """An app within `layers`: `add_middleware` would put them below some of the framework's.

    Attributes:
        failure: an error that kept it from starting and says all: whoever runs it tells it. Any other is logged.
    """

    def __init__(self, layers: Callable[[ASGIApp], ASGIApp], **given: Any) -> None:
        super().__init__(**given)
        self.failure: ServiceError | OSError | None = None
        self._layers = layers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # FastAPI looks each time whether somebody traces it
            await Starlette.__call__(self, scope, receive, send)
        else:
            await self._live(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        return self._layers(super().build_middleware_stack())

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The lifespan. The framework says that it failed, with a traceback for the server to log, before it raises."""
        failed: list[Message] = []

        async def send_on(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await super().__call__(scope, receive, send_on)
        except (ServiceError, OSError) as error:
            if failed:
                self.failure, failed[0]["message"] = error, ""
            raise
        finally:
            for message in failed:
                await send(message)
