"""What nobody waits for any more is not computed, and nobody waits for longer than he said."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from service.checkpoints import Manifest
from service.connections import connect
from service.settings import STRATEGIES, Settings
from service.valkey import EmbeddedServer

Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]
Metric = Callable[[httpx.Client, str], float]

ASK = {"candidates": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
#: It is still drawing when the test is over, unless somebody stops it.
ENDLESS = {"method": "age", "lambda": 1000.0, "gate": "none", "rate": 0.3, "propensity_samples": 10**6}


@pytest.fixture
def ready(settings: Settings, publish: Publish) -> Settings:
    publish(settings.checkpoints, strategies=STRATEGIES | {"endless": ENDLESS})
    return settings.model_copy(update={"deadline_s": 30.0})


@contextmanager
def asking(client: httpx.Client, asked: dict[str, Any]) -> Iterator[None]:
    """Somebody who waits for his ranking, and then leaves."""
    body = json.dumps(asked)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10.0) as caller:
        caller.sendall(f"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        yield


def test_a_caller_may_wait_for_less_than_redis_takes(ready: Settings, serving: Serving, tmp_path: Path) -> None:
    click = {"id": "e", "type": "click", "request_id": "r", "item_id": "a"}
    item = {"id": "a", "features": {}}
    with EmbeddedServer(tmp_path / "redis") as server:
        own = ready.model_copy(update={"redis_url": SecretStr(server.url)})
        with serving(own) as client, connect(server.url, name="test-connection") as redis:
            redis.client_pause(1_000)
            started = time.monotonic()
            for method, path, body in (
                ("POST", "/v1/events", {"events": [click]}),
                ("POST", "/v1/items:batch", {"items": [item]}),
                ("PUT", "/v1/items/a", {"features": {}}),
            ):
                answer = client.request(method, path, json=body, headers={"X-Deadline-Ms": "50"})
                assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
            assert time.monotonic() - started < 0.9


def test_nobody_computes_what_nobody_waits_for(ready: Settings, serving: Serving, until: Until, metric: Metric) -> None:
    """A request whose deadline passes while it waits for its turn is never begun, one whose caller leaves is ended."""
    with serving(ready.model_copy(update={"max_in_flight": 2})) as client:
        with asking(client, ASK | {"strategy": "endless", "top_k": 1}):
            until(lambda: metric(client, "agerank_requests_in_flight") == 2.0)
            late = client.post("/v1/rank", json=ASK, headers={"X-Deadline-Ms": "50"})
            assert (late.status_code, late.json()["code"]) == (503, "deadline_exceeded")
            with asking(client, ASK):
                until(lambda: metric(client, "agerank_requests_in_flight") == 3.0)
                shed = client.post("/v1/rank", json=ASK)
                assert (shed.status_code, shed.json()["code"]) == (503, "overloaded")
                assert shed.headers["retry-after"] == "1"
                assert client.post("/v1/events", json={"events": []}).status_code == 202  # a limit of its own
            until(lambda: metric(client, 'agerank_requests_total{route="/v1/rank",status="499"}') == 1.0)
            assert metric(client, "agerank_rank_candidates_count") == 0.0
        until(lambda: metric(client, 'agerank_requests_total{route="/v1/rank",status="499"}') == 2.0)
        assert client.post("/v1/rank", json=ASK).status_code == 200
        assert metric(client, "agerank_rank_candidates_count") == 1.0


def test_a_long_ranking_ends_with_its_deadline(ready: Settings, serving: Serving) -> None:
    with serving(ready) as client:
        asked = ASK | {"strategy": "endless", "top_k": 1}
        answer = client.post("/v1/rank", json=asked, headers={"X-Deadline-Ms": "200"})
        assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
        assert client.post("/v1/rank", json=ASK).status_code == 200
