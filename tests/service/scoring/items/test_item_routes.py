"""The item store over real HTTP: what is put is kept, reaches every scorer, and ranks as if the request had it."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.checkpoints import Manifest
from service.scoring.item_schemas import MAX_ITEM_BYTES
from service.settings import Settings

Call = Callable[..., Any]
Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]
Until = Callable[..., None]

RED, BLUE = {"topics": ["red", 7]}, {"topics": ["blue"]}
ODD = ["a/b", "/", "é💛", "a b", "a?b#c", "%2F", "line\nbreak", "end\n", "\x00", "x" * 256, ":batch"]


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, publish: Publish, serving: Serving
) -> Iterator[httpx.Client]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("items"),
        redis_url=redis_url,
        redis_prefix=f"test-{uuid4().hex}",
        max_item_batch=5,
        max_body_bytes=40_000,
        swap_poll_s=0.02,
    )
    publish(settings.checkpoints)
    with serving(settings) as client:
        yield client


def test_an_item_s_life(api: httpx.Client, put: Call, knows: Call, path: Call) -> None:
    for features, result in ((RED, "created"), (RED, "unchanged"), (BLUE, "updated")):
        answer = put(api, "life", features)
        assert (answer.status_code, answer.json()) == (200, {"id": "life", "result": result})
        assert api.get(path("life")).json() == {"id": "life", "features": features}
    assert knows(api, "life")  # at once: the answer has waited for it
    assert api.delete(path("life")).json() == {"id": "life", "result": "deleted"}
    for method in ("GET", "DELETE"):
        answer = api.request(method, path("life"))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    put(api, "another", RED)
    assert not knows(api, "life")


@pytest.mark.parametrize("item_id", ODD, ids=ascii)
def test_ids_may_be_any_text(api: httpx.Client, item_id: str, put: Call, knows: Call, path: Call) -> None:
    answer = put(api, item_id, RED)
    assert (answer.status_code, answer.json()) == (200, {"id": item_id, "result": "created"})
    assert api.get(path(item_id)).json() == {"id": item_id, "features": RED}
    assert knows(api, item_id)
    assert api.delete(path(item_id)).status_code == 200


def test_features_come_back_as_they_were_put(api: httpx.Client, put: Call, path: Call) -> None:
    features = {"topics": [10**25, "10", True, "é💛\n"]}
    with pytest.raises(AssertionError):
        assert put(api, "exact", features).status_code == 200  # four values, three fit
    features["topics"].pop(1)
    put(api, "exact", features)
    assert json.loads(api.get(path("exact")).text)["features"] == features


def test_each_item_of_a_batch_stands_for_itself(api: httpx.Client, put_batch: Call, metric: Call, path: Call) -> None:
    wrong = [{"id": "", "features": RED}, {"id": "no features"}, {"id": "b-2", "features": {"topics": "red"}}, 7]
    results = put_batch(api, {"id": "b-1", "features": RED}, *wrong)
    assert results[0] == {"id": "b-1", "result": "created"}
    assert [(one["id"], one["result"], one["code"], one.get("path")) for one in results[1:]] == [
        ("", "rejected", "invalid_item", "id"),
        ("no features", "rejected", "invalid_item", "features"),
        ("b-2", "rejected", "feature_type", "features.topics"),
        (None, "rejected", "invalid_item", None),
    ]
    assert api.get(path("b-2")).status_code == 404
    assert put_batch(api) == []
    assert metric(api, 'agerank_item_writes_total{result="rejected"}') == 4


def test_an_item_has_so_many_bytes_and_no_more(api: httpx.Client, put: Call, put_batch: Call, path: Call) -> None:
    """As they are kept: neither spaces nor escapes count."""
    most = {"topics": ["é" * ((MAX_ITEM_BYTES - len('{"topics":[""]}')) // 2)]}
    assert put(api, "most", most).status_code == 200
    more = {"topics": [*most["topics"], "x"]}
    results = put_batch(api, {"id": "small", "features": RED}, {"id": "more", "features": more})
    assert [(one["id"], one["result"], one.get("code"), one.get("path")) for one in results] == [
        ("small", "created", None, None),
        ("more", "rejected", "item_too_large", "features"),
    ]
    assert api.get(path("more")).status_code == 404


WRONG: list[tuple[str, str, Any, int, str, str | None]] = [
    ("PUT", "/v1/items/a", b"{", 400, "malformed_json", None),
    ("PUT", "/v1/items/a", {}, 422, "invalid_request", "features"),
    ("PUT", "/v1/items/a", {"features": None}, 422, "invalid_request", "features"),
    ("PUT", "/v1/items/a", {"features": {}, "id": "a"}, 422, "invalid_request", "id"),
    ("PUT", "/v1/items/a", {"features": {"colour": "red"}}, 422, "unknown_feature", "features.colour"),
    ("PUT", "/v1/items/a", {"features": {"topics": [1.5]}}, 422, "feature_type", "features.topics"),
    ("PUT", "/v1/items/a", {"features": {"colours": ["x" * 17_000]}}, 413, "item_too_large", "features"),
    ("PUT", "/v1/items/a", {"features": {"topics": list("abcd")}}, 422, "feature_too_many_values", "features.topics"),
    ("PUT", "/v1/items/a", b" " * 40_001, 413, "body_too_large", None),
    ("PUT", "/v1/items/", {"features": {}}, 422, "invalid_request", None),
    ("PUT", "/v1/items/" + "x" * 257, {"features": {}}, 422, "invalid_request", None),
    ("GET", "/v1/items/" + "x" * 257, None, 422, "invalid_request", None),
    ("DELETE", "/v1/items/%FF", None, 422, "invalid_request", None),
    ("GET", "/v1/items/nobody", None, 404, "not_found", None),
    ("GET", "/v1/items", None, 404, "not_found", None),
    ("POST", "/v1/items:batch", {"items": [7] * 6}, 413, "too_many_items", "items"),
    ("POST", "/v1/items:batch", [], 422, "invalid_request", None),
    ("POST", "/v1/items:batch", b" " * 40_001, 413, "body_too_large", None),
    ("GET", "/v1/items:batch", None, 405, "method_not_allowed", None),
    ("PATCH", "/v1/items/a", {}, 405, "method_not_allowed", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "where", "body", "status", "code", "fault"), WRONG)
def test_every_error_is_a_problem(
    api: httpx.Client, method: str, where: str, body: Any, status: int, code: str, fault: str | None
) -> None:
    content = body if isinstance(body, bytes | None) else json.dumps(body)
    answer = api.request(method, where, content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == code
    assert [one["path"] for one in problem.get("errors", [])] == ([fault] if fault else [])


def test_which_methods_there_are(api: httpx.Client) -> None:
    assert api.patch("/v1/items/a").headers["allow"] == "DELETE, GET, PUT"
    assert api.put("/v1/items:batch").headers["allow"] == "POST"


def test_requests_are_counted_by_route_and_never_by_id(api: httpx.Client, metric: Call) -> None:
    api.get("/v1/items/the-secret-item")
    assert metric(api, 'agerank_requests_total{route="/v1/items/{id}",status="404"}') >= 1
    assert "secret" not in api.get("/metrics").text


def test_a_full_store_takes_no_new_items(
    settings: Settings, publish: Publish, serving: Serving, put: Call, put_batch: Call, metric: Call, path: Call
) -> None:
    publish(settings.checkpoints)
    with serving(settings.model_copy(update={"max_items": 2})) as api:
        ids = [{"id": one, "features": RED} for one in "abc"]
        last = put_batch(api, *ids)[2]
        assert (last["result"], last["code"]) == ("rejected", "items_full")
        answer = put(api, "c", RED)
        assert (answer.status_code, answer.json()["code"]) == (507, "items_full")
        assert put(api, "a", BLUE).json()["result"] == "updated"
        api.delete(path("b"))
        assert put(api, "c", RED).json()["result"] == "created"
        assert metric(api, 'agerank_item_writes_total{result="full"}') == 2


def test_before_the_first_version_nothing_can_be_checked(
    settings: Settings, publish: Publish, serving: Serving, until: Until, put: Call
) -> None:
    with serving(settings, ready=False) as api:
        for answer in (put(api, "a", RED), api.post("/v1/items:batch", json={"items": []})):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        publish(settings.checkpoints)
        until(lambda: api.get("/readyz").json().get("degraded") == [])
        assert put(api, "a", RED).status_code == 200
