"""Users against a server that answers as ours does."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from scripts.bench.users import users


class Events(BaseHTTPRequestHandler):
    """Takes all events but the second post."""

    protocol_version = "HTTP/1.1"
    posts: list[list[dict[str, Any]]]

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
        self.posts.append(events)
        content = json.dumps({"results": [{"id": one["id"], "result": "accepted"} for one in events]}).encode()
        self.send_response(503 if len(self.posts) == 2 else 202)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def answer(number: int, version: int, data_timestamp: str | None) -> bytes:
    items = [{"id": f"i{one}", "rank": one, "score": 0.1, "p_click": 0.1, "explored": False} for one in (1, 2)]
    model = {"name": "default", "version": version, "data_timestamp": data_timestamp}
    content = {"request_id": f"r{number}", "model": model, "strategy": "greedy", "items": items, "took_ms": 1.0}
    return json.dumps(content).encode()


def test_they_click_and_note_what_they_saw() -> None:
    Events.posts = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Events) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            before = time.time()
            with users(server.server_port, ctr=1.0, generator=np.random.default_rng(0)) as found:
                for number, version in enumerate((3, 3, 4)):
                    found.answered(answer(number, version, None if version == 3 else "2020-01-01T00:00:00Z"))
                    until = time.monotonic() + 10.0
                    while len(Events.posts) <= number and time.monotonic() < until:
                        time.sleep(0.01)
        finally:
            server.shutdown()
    assert [[one["id"] for one in post] for post in Events.posts] == [[f"r{n}-i1", f"r{n}-i2"] for n in range(3)]
    assert (found.clicks, found.failures.total()) == (4, 1)
    assert list(found.served) == [3, 4]
    assert before <= found.served[3] <= found.served[4] <= time.time()
    assert len(found.ages) == 1
    assert found.ages[0] > 5e7


def test_nobody_clicks_at_a_rate_of_0() -> None:
    with users(1, ctr=0.0, generator=np.random.default_rng(0)) as found:  # where nobody listens
        found.answered(answer(0, 1, None))
    assert (found.clicks, list(found.served)) == (0, [1])
