"""The admin port: closed without a token, and with it what `agerank models` does, over HTTP."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import redis
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.connections import connect_async
from service.events import decode_announcement
from service.scoring.admin import Admin, create_admin
from service.settings import Settings
from service.streams import StreamNames, entries_of

TOKEN = "a token of some length"
LANE = "/v1/models/default"
ROUTES = [
    ("GET", f"{LANE}/versions"),
    ("GET", f"{LANE}/versions/1"),
    ("POST", f"{LANE}/versions/1:activate"),
    ("POST", f"{LANE}/rollback"),
    ("POST", f"{LANE}/pin"),
    ("POST", f"{LANE}/unpin"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
]

Told = Callable[[], list[int]]
Serving = Callable[..., AbstractContextManager[httpx.Client]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def lane(settings: Settings, publish: Callable[..., Manifest]) -> LocalStore:
    """Versions 1 and 2, of which 2 is current."""
    for version in (1, 2):
        publish(settings.checkpoints, version)
    return LocalStore(settings.checkpoints)


@pytest.fixture
def told(client: redis.Redis, names: StreamNames) -> Told:
    """The versions that were announced."""

    def told() -> list[int]:
        entries = entries_of(client.xread({names.models: "0"})).get(names.models, [])
        return [decode_announcement(entry.payload).version for entry in entries]

    return told


@contextmanager
def opened(store: LocalStore, names: StreamNames, url: str) -> Iterator[TestClient]:
    """The admin port's app, as a client that has the token."""
    scorers = connect_async(url, name="test-admin")
    app = create_admin(Admin(store=store, lane="default", client=scorers, names=names, maxlen=100), TOKEN)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client
        assert client.portal is not None
        client.portal.call(scorers.aclose)


@pytest.fixture
def admin(lane: LocalStore, names: StreamNames, redis_url: str) -> Iterator[TestClient]:
    with opened(lane, names, redis_url) as client:
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_without_the_token_nothing_is_answered(admin: TestClient, told: Told) -> None:
    admin.headers.pop("Authorization")
    wrong = ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN]
    for method, path in ROUTES:
        for headers in ({}, *({"Authorization": given} for given in wrong)):
            answer = admin.request(method, path, headers=headers)
            assert problem(answer) == (401, "unauthorized"), (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert told() == []


def test_the_versions_are_listed_and_shown(admin: TestClient) -> None:
    listed = admin.get(f"{LANE}/versions").json()
    assert (listed["lane"], listed["current"], listed["pinned"]) == ("default", 2, False)
    assert [(one["version"], one["state"]) for one in listed["versions"]] == [(2, "current"), (1, "available")]
    shown = admin.get(f"{LANE}/versions/1").json()
    assert (shown["version"], shown["state"], shown["lane"]) == (1, "available", "default")
    assert "age_ts" in shown["strategies"]


def test_versions_are_chosen_and_the_scorers_are_told(admin: TestClient, lane: LocalStore, told: Told) -> None:
    assert admin.post(f"{LANE}/rollback").json() == {"version": 1, "pinned": True, "before": 2}
    assert admin.post(f"{LANE}/unpin").json() == {"version": 1, "pinned": False, "before": 1}
    assert admin.post(f"{LANE}/versions/2:activate", json={"pin": False}).json() == {
        "version": 2,
        "pinned": False,
        "before": 1,
    }
    assert admin.post(f"{LANE}/pin").json() == {"version": 2, "pinned": True, "before": 2}
    assert admin.post(f"{LANE}/versions/1:activate").json()["pinned"] is True
    assert told() == [1, 1, 2, 2, 1]
    assert checkpoints.current(lane) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("GET", "/v1/models/other/versions", None, (404, "not_found")),
        ("GET", f"{LANE}/versions/9", None, (404, "not_found")),
        ("GET", f"{LANE}/versions/x", None, (404, "not_found")),
        ("GET", f"{LANE}/versions/{'9' * 40}", None, (404, "not_found")),
        ("GET", f"{LANE}/versions/{'9' * 5_000}", None, (404, "not_found")),
        ("POST", f"{LANE}/versions/{'9' * 5_000}:activate", None, (404, "not_found")),
        ("POST", f"{LANE}/versions/9:activate", b"", (404, "not_found")),
        ("GET", f"{LANE}/rollback", None, (405, "method_not_allowed")),
        ("POST", f"{LANE}/versions/1:activate", b"{", (400, "malformed_json")),
        ("POST", f"{LANE}/versions/1:activate", b'{"pin": 1}', (422, "invalid_request")),
        ("POST", f"{LANE}/versions/1:activate", b'{"pinned": true}', (422, "invalid_request")),
        ("POST", f"{LANE}/versions/1:activate", b" " * 5_000, (413, "body_too_large")),
    ],
)
def test_what_cannot_be_done_is_said(
    admin: TestClient,
    told: Told,
    method: str,
    path: str,
    body: bytes | None,
    refusal: tuple[int, str],
) -> None:
    assert problem(admin.request(method, path, content=body)) == refusal
    assert told() == []


def test_what_must_not_serve_is_a_conflict(admin: TestClient, lane: LocalStore, told: Told) -> None:
    weights = lane.root / "versions" / "000000000001" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert problem(admin.post(f"{LANE}/versions/1:activate")) == (409, "version_unusable")
    assert problem(admin.get(f"{LANE}/versions/1")) == (409, "version_unusable")
    assert problem(admin.post(f"{LANE}/rollback")) == (409, "no_earlier_version")
    (lane.root / "current.json").unlink()
    assert problem(admin.post(f"{LANE}/pin")) == (409, "no_current_version")
    assert told() == []


def test_a_store_that_cannot_be_reached_is_said(tmp_path: Path, names: StreamNames, redis_url: str) -> None:
    (tmp_path / "versions").write_text("a file where a folder must be")
    with opened(LocalStore(tmp_path), names, redis_url) as client:
        assert problem(client.get(f"{LANE}/versions")) == (503, "store_unavailable")


class Watched(LocalStore):
    """Knows how many read at the same time."""

    reading, most = 0, 0

    def pieces(self, folder: str, name: str, sha256: str = "") -> Iterator[bytes]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            time.sleep(0.01)  # for others to begin meanwhile
            yield from super().pieces(folder, name, sha256)
        finally:
            self.reading -= 1


def test_versions_are_looked_at_one_after_the_other(lane: LocalStore, names: StreamNames, redis_url: str) -> None:
    store = Watched(lane.root)
    with opened(store, names, redis_url) as client, ThreadPoolExecutor(4) as callers:
        answers = callers.map(lambda _: client.get(f"{LANE}/versions/1").status_code, range(4))
        assert list(answers) == [200] * 4
    assert (store.reading, store.most) == (0, 1)


def test_without_redis_it_is_done_all_the_same(lane: LocalStore, names: StreamNames) -> None:
    with opened(lane, names, "redis://127.0.0.1:1/0") as client:
        assert client.post(f"{LANE}/rollback").json()["version"] == checkpoints.current(lane) == 1


def test_its_document_is_complete(admin: TestClient) -> None:
    document = admin.get("/openapi.json").json()
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    generic = {(method, path.replace("default", "{lane}").replace("/1", "/{version}")) for method, path in ROUTES[:6]}
    assert described == generic
    references = set(re.findall(r'"\$ref":"(#[^"]+)"', msgspec.json.encode(document).decode()))
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert document["paths"][f"{LANE.replace('default', '{lane}')}/rollback"]["post"]["responses"].keys() == {
        *("200", "401", "404", "409", "500", "503")
    }


def test_a_scorer_opens_it_for_a_token_and_swaps_at_once(
    settings: Settings, lane: LocalStore, serving: Serving, until: Callable[..., None]
) -> None:
    port = free_port()
    mine = settings.model_copy(update={"admin_port": port, "admin_token": SecretStr(TOKEN), "swap_poll_s": 60.0})
    with serving(mine) as client, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as admin:
        admin.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get("/v1/models/current").json()["version"] == 2
        assert admin.post(f"{LANE}/rollback").json()["version"] == 1
        until(lambda: client.get("/v1/models/current").json()["version"] == 1)
        assert client.post("/v1/rank", json={"candidates": [{"id": "a"}]}).json()["model"]["version"] == 1
        assert client.get(f"{LANE}/versions").status_code == 404, "the API's own port knows nothing of it"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1.0)


def test_without_a_token_the_port_stays_shut(settings: Settings, lane: LocalStore, serving: Serving) -> None:
    port = free_port()
    with serving(settings.model_copy(update={"admin_port": port})), pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1.0)
