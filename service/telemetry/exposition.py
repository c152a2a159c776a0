"""Metrics over HTTP, for a process that serves nothing else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry, MetricsHandler

#: Who is silent for so long is hung up on: each caller has a thread.
SILENCE_S = 5.0


class _Server(ThreadingHTTPServer):
    """On a socket that listens already."""

    def __init__(self, listener: socket.socket, handler: type[MetricsHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


@contextmanager
def exposed(registry: CollectorRegistry, listener: socket.socket, *, silence_s: float = SILENCE_S) -> Iterator[None]:
    """What the registry holds is told on every path, on a thread, for as long as the context lasts.

    Args:
        listener: is closed at the end.
        silence_s: how long a caller may say nothing, or not read what he is told.
    """
    handler = type("Handler", (MetricsHandler,), {"registry": registry, "timeout": silence_s})
    with _Server(listener, handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
