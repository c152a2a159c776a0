"""Metrics over HTTP, from a thread: whoever asks is told, and whoever says nothing is hung up on."""

import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from service import ports
from service.telemetry import exposed


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    registry = CollectorRegistry()
    Gauge("any", "One.", registry=registry).set(7)
    listener = ports.listening("trainer_port", "127.0.0.1", 0)
    with exposed(registry, listener, silence_s=0.2):
        yield listener


def test_it_tells_what_the_registry_holds(listener: socket.socket) -> None:
    with urllib.request.urlopen(f"{ports.url(listener)}/metrics") as answer:
        assert answer.status == 200
        assert b"any 7.0" in answer.read()


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost:"])
def test_who_does_not_come_to_the_point_keeps_no_thread(listener: socket.socket, said: bytes) -> None:
    before = set(threading.enumerate())
    with socket.create_connection(listener.getsockname(), timeout=10.0) as caller:
        caller.sendall(said)
        assert caller.recv(1) == b""
        for thread in set(threading.enumerate()) - before:
            thread.join(10.0)
            assert not thread.is_alive()


def test_it_ends_with_its_context() -> None:
    listener = ports.listening("trainer_port", "127.0.0.1", 0)
    address = listener.getsockname()
    with exposed(CollectorRegistry(), listener):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10.0)
