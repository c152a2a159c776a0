"""The API over real HTTP while versions change, callers burst, dawdle and leave, and Redis goes."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from service import events
from service.checkpoints import Manifest
from service.events import Event
from service.settings import Settings
from service.streams import StreamNames
from service.valkey import EmbeddedServer

Call = Callable[..., Any]
Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]

ASK = {"request_id": "r1", "candidates": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
CLICK = {"id": "e1", "type": "click", "request_id": "r1", "item_id": "a"}


def test_swaps_disturb_no_request(settings: Settings, publish: Publish, serving: Serving, until: Until) -> None:
    publish(settings.checkpoints, 0)
    seen, failed, stop = set(), [], threading.Event()

    def load(url: httpx.URL) -> None:
        with httpx.Client(base_url=url, timeout=10.0) as caller:
            while not stop.is_set():
                answer = caller.post("/v1/rank", json=ASK)
                if answer.status_code == 200:
                    seen.add(answer.json()["model"]["version"])
                else:
                    failed.append(answer.text)

    with serving(settings) as client, ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(load, client.base_url) for _ in range(3)]
        try:
            for version in range(1, 6):
                publish(settings.checkpoints, version, seed=version)
                until(lambda version=version: version in seen)
        finally:
            stop.set()
        assert [caller.result() for caller in callers] == [None] * 3
    assert failed == []
    assert seen >= set(range(1, 6))


@contextmanager
def unfinished(client: httpx.Client, path: str = "/v1/rank") -> Iterator[socket.socket]:
    """A request whose body never comes to its end."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10.0) as caller:
        caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        yield caller


def test_a_burst_is_shed_and_not_queued(settings: Settings, publish: Publish, serving: Serving, metric: Call) -> None:
    """Rankings take turns on one thread, and yet the next request is looked at between two of them."""
    publish(settings.checkpoints)
    large = {"candidates": [{"id": str(number)} for number in range(500)], "strategy": "age_ucb"}

    shed = threading.Event()

    def ask(url: httpx.URL) -> list[int]:
        """Until somebody was shed: a burst that is answered sooner than it comes is none."""
        found: list[int] = []
        with httpx.Client(base_url=url, timeout=10.0) as caller:
            while not shed.is_set() and len(found) < 500:
                found.append(caller.post("/v1/rank", json=large).status_code)
                if found[-1] == 503:
                    shed.set()
        return found

    with serving(settings.model_copy(update={"max_in_flight": 2})) as client, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(ask, client.base_url) for _ in range(8)]
        assert client.get("/livez").status_code == 200
        statuses = [status for caller in callers for status in caller.result()]
        assert set(statuses) == {200, 503}
        assert metric(client, 'agerank_shed_total{reason="overloaded"}') == statuses.count(503)


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/events"])
def test_who_does_not_finish_in_time_is_refused(
    settings: Settings, publish: Publish, serving: Serving, path: str, metric: Call
) -> None:
    publish(settings.checkpoints)
    with serving(settings.model_copy(update={"deadline_s": 0.2})) as client:
        with unfinished(client, path) as caller:
            started = time.monotonic()
            answer = caller.recv(10_000)
            assert 0.1 < time.monotonic() - started < 5.0
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"deadline_exceeded"' in answer
        assert b"retry-after: 1" in answer.lower()
        assert metric(client, 'agerank_shed_total{reason="deadline_exceeded"}') == 1.0


def test_who_leaves_early_is_no_fault_of_ours(
    settings: Settings, publish: Publish, serving: Serving, until: Until, metric: Call
) -> None:
    publish(settings.checkpoints)
    with serving(settings.model_copy(update={"deadline_s": 30.0})) as client:
        with unfinished(client):
            until(lambda: metric(client, "agerank_requests_in_flight") == 2.0)
        until(lambda: metric(client, 'agerank_requests_total{route="/v1/rank",status="499"}') == 1.0)
        assert metric(client, "agerank_requests_in_flight") == 1.0


def test_without_redis_it_starts_and_ranks(
    settings: Settings, publish: Publish, serving: Serving, until: Until
) -> None:
    publish(settings.checkpoints)
    alone = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0"), "shutdown_grace_s": 0.1})
    with serving(alone, ready=False) as client:
        until(lambda: client.get("/readyz").json().get("degraded") == ["log_unavailable", "items_loading"])
        answer = client.post("/v1/rank", json=ASK)
        assert (answer.status_code, answer.json()["warnings"]) == (200, ["log_unavailable", "item_unknown"])


def test_redis_comes_and_goes_and_comes_back(
    settings: Settings, publish: Publish, serving: Serving, until: Until, tmp_path: Path
) -> None:
    """Ranking goes on, says so, and nothing of it is lost; an event is accepted only when the log has it."""
    publish(settings.checkpoints)
    server = EmbeddedServer(tmp_path / "redis").start()
    mine = Settings(**settings.model_dump(exclude={"redis_url"}), redis_url=server.url)
    try:
        with serving(mine) as client:
            assert "warnings" not in client.post("/v1/rank", json=ASK).json()
            server.stop()
            until(lambda: client.get("/readyz").json()["degraded"] == ["log_unavailable"])
            answer = client.post("/v1/rank", json=ASK | {"request_id": "r2"})
            assert (answer.status_code, answer.json()["warnings"]) == (200, ["log_unavailable"])
            refused = client.post("/v1/events", json={"events": [CLICK]})
            assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable")
            assert refused.headers["retry-after"] == "1"
            server.start()
            until(lambda: client.get("/readyz").json()["degraded"] == [])
            retried = client.post("/v1/events", json={"events": [CLICK]}).json()
            assert retried["results"][0]["result"] == "accepted"
        with redis.Redis.from_url(server.url) as log:  # the scorer has shut down: all is written
            names = StreamNames(mine.redis_prefix, 1)
            served = [events.decode_served(fields[b"e"]) for _, fields in log.xrange(names.served("r1"))]
            clicks = [events.decode_event(fields[b"e"]) for _, fields in log.xrange(names.feedback("r1"))]
        assert {one.request_id for one in served} == {"r1", "r2"}
        assert clicks == [Event(**CLICK)]
    finally:
        server.stop()


def test_every_request_in_flight_has_its_connection_and_the_rest_has_others(
    settings: Settings, publish: Publish, serving: Serving, until: Until, metric: Call, client: redis.Redis
) -> None:
    """Redis holds up what may write until as many wait as the limits allow."""
    publish(settings.checkpoints)
    each = settings.max_in_flight
    click = json.dumps({"events": [CLICK]}).encode()

    def ask(caller: socket.socket, line: str, body: bytes) -> None:
        head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)

    with serving(settings.model_copy(update={"deadline_s": 30.0})) as scorer, ExitStack() as stack:
        address = scorer.base_url.host, scorer.base_url.port
        callers = [stack.enter_context(socket.create_connection(address, timeout=10.0)) for _ in range(2 * each)]
        client.client_pause(10_000, all=False)
        try:
            for number, caller in enumerate(callers[:each]):
                ask(caller, "POST /v1/events", click)
                ask(callers[each + number], f"PUT /v1/items/i{number}", b'{"features": {}}')
            until(lambda: metric(scorer, "agerank_requests_in_flight") == 2 * each + 1)
            assert scorer.get("/readyz").json()["degraded"] == []
        finally:
            client.client_unpause()
        assert {caller.recv(100)[9:12] for caller in callers[:each]} == {b"202"}
        assert {caller.recv(100)[9:12] for caller in callers[each:]} == {b"200"}
        assert metric(scorer, 'agerank_log_errors_total{reason="unreachable"}') == 0.0
