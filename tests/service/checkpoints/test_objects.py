"""Object storage: what a folder of a file system does by renaming is done here by what is written last."""

from typing import Any

import pytest

from service import checkpoints
from service.checkpoints import StoreError, open_store
from service.errors import CheckpointError

obstore = pytest.importorskip("obstore")
objects = pytest.importorskip("service.checkpoints.objects")

FOLDER = "versions/000000000002"


@pytest.fixture
def bucket() -> Any:
    return obstore.store.MemoryStore()


@pytest.fixture
def store(bucket: Any) -> Any:
    return objects.ObjectStore(bucket, name="here")


def paths(bucket: Any) -> set[str]:
    return {one["path"] for one in obstore.list(bucket).collect()}


def test_a_version_is_none_until_its_manifest_is_there(store: Any, bucket: Any, kit: Any) -> None:
    kit.save(store, 2)
    manifest = store.read(FOLDER, "manifest.json")
    files = {name: store.read(FOLDER, name) for name in kit.files}
    store.discard(FOLDER)
    assert paths(bucket) == set()
    for name, content in files.items():  # as a trainer dies: after each of its writes
        store.install(FOLDER, {name: content})
        assert checkpoints.versions(store) == []
        with pytest.raises(CheckpointError) as caught:
            checkpoints.load_manifest(store, 2)
        assert caught.value.code == "missing_version"
    store.install(FOLDER, {"manifest.json": manifest})
    assert kit.load(store, 2).version == 2


def test_what_a_dead_trainer_left_is_swept_up_and_nothing_else(store: Any, bucket: Any, kit: Any) -> None:
    checkpoints.set_current(store, kit.save(store, 1))
    with store.lock():
        pass
    for path in ("default/current.json", "default/versions/1", "versions.csv"):  # of others, whose prefix is ours, too
        obstore.put(bucket, path, b"theirs")
    whole = paths(bucket)
    store.install(FOLDER, {"weights.safetensors": b"half", "graphs/age.onnx": b"half"})
    store.recover()
    assert paths(bucket) == whole
    kit.load(store, 1)


def test_the_newest_trainer_has_the_lane(store: Any, bucket: Any, kit: Any) -> None:
    newer = objects.ObjectStore(bucket, name="there")
    with store.lock():
        kit.save(store, 1)
        with newer.lock():
            with pytest.raises(CheckpointError) as caught:
                kit.save(store, 2)
            assert caught.value.code == "locked"
            assert checkpoints.versions(newer) == [1]
            kit.save(newer, 2)
    assert checkpoints.versions(store) == [1, 2]


def test_a_lock_that_was_deleted_is_lost(store: Any, bucket: Any, kit: Any) -> None:
    with store.lock():
        obstore.delete(bucket, "trainer.lock")
        with pytest.raises(CheckpointError, match="another trainer"):
            kit.save(store, 1)


def test_a_store_that_cannot_be_reached_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"ENDPOINT_URL": "http://127.0.0.1:1", "ALLOW_HTTP": "true", "REGION": "any"}
    for name, value in {**given, "ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = open_store("s3://bucket/lane")
    assert str(store) == "s3://bucket/lane"
    for call in (lambda: store.stamp("current.json"), lambda: store.folders("versions"), store.recover):
        with pytest.raises(StoreError) as caught:
            call()
        assert "\n" not in str(caught.value)
