"""A failover behind a name: two servers, and an address that leads to one of them."""

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis

from service.connections import connect
from service.valkey import EmbeddedServer


class Name(socketserver.ThreadingTCPServer):
    """Whoever connects comes to the server that it leads to now, and stays there."""

    daemon_threads = True

    def __init__(self, leads_to: int) -> None:
        super().__init__(("127.0.0.1", 0), _Through)
        self.leads_to = leads_to


class _Through(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Name)
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.leads_to)) as there:
            other = {self.request: there, there: self.request}
            while True:
                for one in select.select(list(other), [], [])[0]:
                    content = one.recv(2**16)
                    if not content:
                        return
                    other[one].sendall(content)


class Failover:
    """Two servers with clients by their own addresses; `url` has the name of the one that is written to, the first."""

    def __init__(self, name: Name, first: redis.Redis, second: redis.Redis) -> None:
        self._name, self.first, self.second = name, first, second
        self.url = f"redis://127.0.0.1:{name.server_address[1]}/0"

    def happens(self) -> None:
        """The second server is written to from now on, and the first is a replica that keeps its connections."""
        self.first.replicaof("127.0.0.1", 1)  # where nobody is: it keeps what it has
        self._name.leads_to = self.second.get_connection_kwargs()["port"]


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(tmp_path / one)) for one in ("first", "second")]
        clients = [stack.enter_context(connect(server.url, name="test")) for server in servers]
        name = stack.enter_context(Name(servers[0].port))
        thread = threading.Thread(target=name.serve_forever, args=[0.01])
        thread.start()
        stack.callback(thread.join)
        stack.callback(name.shutdown)
        yield Failover(name, *clients)
