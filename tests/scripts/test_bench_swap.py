"""The parts of two benchmarks that no run of them shows: turns of the versions, and servers that fail."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.bench.http import Case, Rate, _loops
from scripts.bench.load import post
from scripts.bench.report import BenchError
from scripts.bench.swap import _turning
from service.checkpoints import LocalStore


class Busy(BaseHTTPRequestHandler):
    """Answers 503."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_every_turn_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    became, done = [4], threading.Event()  # the last of them is the current one

    def set_current(store: Any, manifest: Any) -> None:
        became.append(manifest.version)
        if len(became) % 5 == 1:  # a phase of so many turns
            done.set()

    monkeypatch.setattr("scripts.bench.swap.set_current", set_current)
    monkeypatch.setattr("scripts.bench.swap.SETTLE_S", 0.0)
    turns: Any = cycle([SimpleNamespace(version=number) for number in (1, 2, 3, 4)])
    for _ in range(2):
        done.clear()
        with _turning(LocalStore(Path()), turns, 0.01):
            assert done.wait(10.0)
    assert len(became) > 10
    assert all(one != other for one, other in zip(became[:-1], became[1:], strict=True))


def test_a_server_that_fails_is_named_before_its_rate_is_used() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever).start()
        running: Any = SimpleNamespace(port=server.server_port)
        case = Case("a server", "1", "greedy", "full", running, "/rank")
        try:
            with pytest.raises(BenchError, match="a server failed: .*status 503"):
                _loops(case, [post("/rank", b"")], [Rate(70)], 0.05, seed=1)
        finally:
            server.shutdown()
