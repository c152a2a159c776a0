"""The API over real HTTP: what it answers and what it refuses."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from service.checkpoints import Manifest
from service.scoring.problems import TITLES
from service.settings import Settings

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
