"""The API over real HTTP: what it answers, what it refuses, and how it holds up under load and without Redis."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from service import events
from service.checkpoints import Manifest
from service.events import Event
from service.scoring.problems import TITLES
from service.settings import Settings
from service.streams import StreamNames
from service.valkey import EmbeddedServer

Call = Callable[..., Any]
Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]

ASK = {"request_id": "r1", "candidates": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
FOUR_TOPICS = {"id": "a", "features": {"topics": ["w", "x", "y", "z"]}}
CLICK = {"id": "e1", "type": "click", "request_id": "r1", "item_id": "a"}


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, publish: Publish, serving: Serving
) -> Iterator[httpx.Client]:
    """A scorer that is ready, for the tests that change nothing in it."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("api"),
        redis_url=redis_url,
        redis_prefix="test-routes",
        max_candidates=5,
        max_events=3,
        max_body_bytes=2_000,
        swap_poll_s=0.02,
    )
    publish(settings.checkpoints, 3)
    with serving(settings) as client:
        yield client


def test_a_ranking(api: httpx.Client) -> None:
    answer = api.post("/v1/rank", json=ASK)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert list(body) == ["request_id", "model", "strategy", "items", "took_ms"]
    assert body["model"] == {"name": "default", "version": 3, "data_timestamp": "2023-11-14T22:13:20Z"}
    assert sorted(item["id"] for item in body["items"]) == ["a", "b", "c"]
    assert [item["rank"] for item in body["items"]] == [1, 2, 3]


def test_events(api: httpx.Client) -> None:
    answer = api.post("/v1/events", json={"events": [CLICK, CLICK, {"id": "e2"}]})
    assert answer.status_code == 202
    assert [one["result"] for one in answer.json()["results"]] == ["accepted", "duplicate", "rejected"]


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/rank", b"{", 400, "malformed_json"),
    ("POST", "/v1/rank", b'{"candidates": [{"id": "a", "bid": NaN}]}', 400, "malformed_json"),
    ("POST", "/v1/rank", {}, 422, "invalid_request"),
    ("POST", "/v1/rank", {"candidates": [{"id": "a"}, {"id": "a"}]}, 422, "duplicate_candidate"),
    ("POST", "/v1/rank", ASK | {"strategy": "bandit"}, 422, "unknown_strategy"),
    ("POST", "/v1/rank", ASK | {"user": {"features": {"city": "x"}}}, 422, "unknown_feature"),
    ("POST", "/v1/rank", ASK | {"context": {"features": {"hour": "noon"}}}, 422, "feature_type"),
    ("POST", "/v1/rank", ASK | {"context": {"features": {"hour": 10**400}}}, 422, "feature_not_finite"),
    ("POST", "/v1/rank", {"candidates": [FOUR_TOPICS]}, 422, "feature_too_many_values"),
    ("POST", "/v1/rank", {"candidates": [{"id": str(n)} for n in range(6)]}, 413, "too_many_candidates"),
    ("POST", "/v1/rank", b" " * 2_001, 413, "body_too_large"),
    ("POST", "/v1/events", {"events": [CLICK] * 4}, 413, "too_many_events"),
    ("POST", "/v1/events", [CLICK], 422, "invalid_request"),
    ("POST", "/v1/events", b" " * 2_001, 413, "body_too_large"),
    ("GET", "/v1/rank", None, 405, "method_not_allowed"),
    ("POST", "/v1/rank/", ASK, 404, "not_found"),
    ("GET", "/nowhere", None, 404, "not_found"),
    ("GET", "/v2/models/other", None, 404, "not_found"),
    ("GET", "/v2/models/m%C3%BCll%20%25", None, 404, "not_found"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), WRONG)
def test_every_error_is_a_problem(api: httpx.Client, method: str, path: str, body: Any, status: int, code: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = api.request(method, path, content=None if body is None else content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["type"] == f"urn:problem-type:agerank:{code}"
    assert problem["title"] == TITLES[code]
    assert (problem["status"], problem["code"], problem["instance"]) == (status, code, path)
    assert problem["detail"]
    for fault in problem.get("errors", []):
        assert fault["code"] == code
        assert fault["path"]


def test_a_problem_names_the_place(api: httpx.Client) -> None:
    wrong = {"candidates": [{"id": "a"}, {"id": "b", "features": {"topics": "x"}}]}
    (fault,) = api.post("/v1/rank", json=wrong).json()["errors"]
    assert fault["path"] == "candidates[1].features.topics"
    assert "list" in fault["detail"]


def test_which_methods_there_are(api: httpx.Client) -> None:
    assert api.delete("/v1/rank").headers["allow"] == "POST"


def test_a_body_without_a_length_is_cut_off_while_it_is_read(api: httpx.Client) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port), timeout=10.0) as caller:
        caller.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):  # and no last one
            caller.sendall(b"3e8\r\n" + b" " * 1_000 + b"\r\n")
        answer = b"".join(iter(lambda: caller.recv(10_000), b""))  # until the scorer hangs up
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"body_too_large"' in answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/livez", {"status": "live"}),
        ("/readyz", {"status": "ready", "lane": "default", "version": 3, "degraded": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/default/ready", {"name": "default", "ready": True}),
        (
            "/v2/models/default",
            {"name": "default", "versions": ["3"], "platform": "agerank", "inputs": [], "outputs": []},
        ),
    ],
)
def test_health(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()) == (200, body)


def test_the_model(api: httpx.Client) -> None:
    model = api.get("/v1/models/current").json()
    assert (model["name"], model["version"], model["created_at"]) == ("default", 3, "2023-11-14T22:13:20.003000Z")
    age = model["strategies"]["age_ts"]
    assert (age["method"], age["lambda"], age["budget"]) == ("age", 10.0, 0.05)
    assert age["options"]["uncertainty"] == "thompson"
    assert model["metrics"] == {"log_loss": 0.2}


def test_requests_are_counted_by_route_and_never_by_path(api: httpx.Client, metric: Call) -> None:
    before = metric(api, 'agerank_requests_total{route="/v2/models/{name}",status="404"}')
    for number in range(3):
        api.get(f"/v2/models/m{number}")
        api.get(f"/nowhere/{number}")
    assert metric(api, 'agerank_requests_total{route="/v2/models/{name}",status="404"}') == before + 3
    assert metric(api, 'agerank_requests_total{route="none",status="404"}') >= 3
    text = api.get("/metrics").text
    assert "nowhere" not in text
    assert metric(api, "agerank_requests_in_flight") == 1.0  # the one that asks


def test_metrics_in_either_format(api: httpx.Client) -> None:
    assert api.get("/metrics").headers["content-type"].startswith("text/plain")
    openmetrics = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_metrics_for_who_asks_for_no_version(api: httpx.Client) -> None:
    odd = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=abc"})
    assert odd.status_code == 200
    assert odd.headers["content-type"].startswith("text/plain")


def test_before_the_first_version_it_is_live_and_says_why_it_is_not_ready(
    settings: Settings, publish: Publish, serving: Serving, until: Until
) -> None:
    with serving(settings, ready=False) as client:
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/v2/health/ready", "/v2/models/default", "/v1/models/current"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "start the trainer" in client.get("/readyz").json()["detail"]
        assert client.post("/v1/rank", json=ASK).json()["code"] == "not_ready"
        assert client.post("/v1/events", json={"events": [CLICK]}).status_code == 202
        publish(settings.checkpoints)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/rank", json=ASK).status_code == 200


def test_a_refused_version_is_the_reason_that_readyz_gives(
    settings: Settings, publish: Publish, serving: Serving, until: Until
) -> None:
    publish(settings.checkpoints, change=lambda parts: parts["golden"].clear())
    with serving(settings, ready=False) as client:
        until(lambda: "refused" in client.get("/readyz").json()["detail"])


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

    def ask(url: httpx.URL) -> list[int]:
        with httpx.Client(base_url=url, timeout=10.0) as caller:
            return [caller.post("/v1/rank", json=large).status_code for _ in range(5)]

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
