"""The admin port's own server: in the scorer's process, on its loop, and closed with it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import structlog
import uvicorn
from starlette.types import ASGIApp

from service.ports import taking
from service.scoring.connection import Connection, Limits

_log = structlog.get_logger()


class _Within(uvicorn.Server):
    """A server that leaves the signals to the one around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, limits: Limits, *, grace_s: int) -> AsyncIterator[None]:
    """Answers at this address for as long as the context lasts.

    Args:
        grace_s: for requests in flight at its end.

    Raises:
        OSError: the address is not ours to listen on; two scorers of a host need two of them.
    """
    config = uvicorn.Config(
        app,
        http=partial(Connection, limits),  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_s,
    )
    server = _Within(config)
    with taking("admin_port", host, port):
        listener = socket.create_server((host, port))
    with listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        _log.info("the admin port is open", host=host, port=listener.getsockname()[1])
        try:
            yield
        finally:
            server.should_exit = True
            await serving
