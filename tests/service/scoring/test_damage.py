"""A live scorer beside every kind of damage: each is refused with its code, and requests are answered throughout."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.settings import Settings, read

Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]

ASK = {"request_id": "r", "candidates": [{"id": "a"}, {"id": "b"}], "strategy": "age_ts"}
REFUSED = 'agerank_swaps_total{lane="default",result="refused"}'
FILES = ["weights.safetensors", "state.safetensors", "golden.safetensors", "graphs/age_ts.onnx", "manifest.json"]


class Lane:
    """A live scorer with version 1, and a good version 2 that it never saw."""

    def __init__(self, root: Path, client: httpx.Client, good: Path) -> None:
        self.store, self.client, self.good = LocalStore(root), client, good
        self.place = root / "versions" / "000000000002"
        self.answer = self.ask()

    def ask(self) -> dict[str, Any]:
        answer = self.client.post("/v1/rank", json=ASK)
        assert answer.status_code == 200, answer.text
        return {key: value for key, value in answer.json().items() if key != "took_ms"}

    def offer(self) -> None:
        """Version 2 as it was written, and current.json names it."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.good, self.place)


@pytest.fixture(scope="module")
def lane(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, publish: Publish, serving: Serving
) -> Iterator[Lane]:
    folder = tmp_path_factory.mktemp("damage")
    settings: Settings = read(data_dir=folder, redis_url=redis_url, redis_prefix=folder.name, swap_poll_s=0.005, port=0)
    publish(settings.checkpoints, 1)
    publish(folder / "good", 2, seed=1)
    with serving(settings) as client:
        yield Lane(settings.checkpoints, client, folder / "good" / "versions" / "000000000002")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def missing(path: Path) -> None:
    path.unlink()


def linked_away(path: Path) -> None:
    elsewhere = path.parents[4] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def hash_of_another(path: Path) -> None:
    manifest = json.loads(path.read_bytes())
    files = manifest["files"]
    files["weights.safetensors"], files["state.safetensors"] = files["state.safetensors"], files["weights.safetensors"]
    path.write_text(json.dumps(manifest))


DAMAGE = [
    *((name, truncated, "hash_mismatch") for name in FILES[:-1]),
    *((name, flipped, "hash_mismatch") for name in FILES[:-1]),
    *((name, missing, "missing_file") for name in FILES),
    *((name, linked_away, "outside_folder") for name in FILES),
    ("manifest.json", truncated, "unreadable_manifest"),
    ("manifest.json", hash_of_another, "hash_mismatch"),
    ("", shutil.rmtree, "missing_version"),
]
#: Nothing of the state is read to serve: the trainer finds that out.
UNREAD = [("state.safetensors", truncated), ("state.safetensors", flipped)]


@pytest.mark.parametrize(("name", "spoil", "code"), [one for one in DAMAGE if one[:2] not in UNREAD])
def test_damage_is_refused_and_the_old_version_serves_on(
    lane: Lane,
    metric: Any,
    until: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    name: str,
    spoil: Callable[[Path], None],
    code: str,
) -> None:
    lane.offer()
    manifest = checkpoints.load_manifest(lane.store, 2)
    spoil(lane.place / name)
    before = metric(lane.client, REFUSED)
    checkpoints.set_current(lane.store, manifest)
    until(lambda: metric(lane.client, REFUSED) == before + 1)
    assert f"code={code} " in capsys.readouterr().out
    assert lane.ask() == lane.answer
    assert lane.client.get("/readyz").json()["version"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 3}', b'{"version": -1}', b'{"version": "2"}', b"\xff"])
def test_a_damaged_current_json_changes_nothing(
    lane: Lane, metric: Any, until: Callable[..., None], content: bytes
) -> None:
    before = metric(lane.client, REFUSED)
    (lane.store.root / "draft").write_bytes(content)
    (lane.store.root / "draft").replace(lane.store.root / "current.json")
    until(lambda: metric(lane.client, REFUSED) == before + 1)
    assert lane.ask() == lane.answer


def test_after_all_that_a_good_version_is_taken(lane: Lane, until: Callable[..., None]) -> None:
    lane.offer()
    checkpoints.set_current(lane.store, checkpoints.load_manifest(lane.store, 2))
    until(lambda: lane.client.get("/readyz").json()["version"] == 2)
    assert lane.ask() != lane.answer
    checkpoints.set_current(lane.store, checkpoints.load_manifest(lane.store, 1))
    until(lambda: lane.ask() == lane.answer)


def test_a_scorer_starts_though_neither_trainer_nor_redis_is_there(
    tmp_path: Path, publish: Publish, serving: Serving, until: Callable[..., None]
) -> None:
    settings = read(
        data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0", swap_poll_s=0.02, shutdown_grace_s=0.1, port=0
    )
    publish(settings.checkpoints, 1)
    checkpoints.set_current(LocalStore(settings.checkpoints), publish(settings.checkpoints, 2, current=False))
    with serving(settings, ready=False) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz").json()["version"] == 2
        assert "log_unavailable" in client.get("/readyz").json()["degraded"]
        answer = client.post("/v1/rank", json=ASK).json()
        assert answer["model"]["version"] == 2
        assert len(answer["items"]) == 2
        publish(settings.checkpoints, 3)  # and it finds what comes
        until(lambda: client.get("/readyz").json()["version"] == 3)
