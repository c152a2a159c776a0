"""How uvicorn serves our apps: the API's, and the admin port's on the same loop."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from service import ports
from service.scoring.connection import Connection, Limits

_log = structlog.get_logger()


def configuration(app: ASGIApp, limits: Limits, *, grace_s: float, **given: Any) -> uvicorn.Config:
    """What both have in common.

    Args:
        grace_s: for requests in flight at its end.
        given: options of uvicorn's.
    """
    return uvicorn.Config(
        app,
        http=partial(Connection, limits),  # type: ignore[arg-type]  # it is only called
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_graceful_shutdown=math.ceil(grace_s),
        **given,
    )


class Draining(uvicorn.Server):
    """A server that is told to stop and goes on answering, so that who sends requests can go elsewhere before it does.

    Meanwhile `request.state.draining` is true, and every answer closes its connection. A second signal ends the wait.
    """

    def __init__(self, config: uvicorn.Config, *, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s

    async def main_loop(self) -> None:
        await super().main_loop()
        if self._drain_s and not self.force_exit:
            _log.info("draining", seconds=self._drain_s)
            self.lifespan.state["draining"] = True
            self.should_exit = False  # until the next signal
            with suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s):
                    await super().main_loop()
            self.should_exit = True


class _Within(uvicorn.Server):
    """A server that leaves the signals to the one around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, limits: Limits, *, grace_s: float) -> AsyncIterator[None]:
    """The admin port answers at this address for as long as the context lasts.

    Raises:
        OSError: the address is not ours to listen on; two scorers of a host need two of them.
    """
    server = _Within(configuration(app, limits, grace_s=grace_s, lifespan="off"))
    with ports.listening("admin_port", host, port) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        _log.info("the admin port is open", host=host, port=listener.getsockname()[1])
        try:
            yield
        finally:
            server.should_exit = True
            await serving
