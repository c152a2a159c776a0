"""Object storage: what a folder of a file system does by renaming is done here by what is written last."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
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
    written = kit.save(store, 2)
    manifest = store.read(FOLDER, "manifest.json")
    files = {name: store.read(FOLDER, name, written.files[name]) for name in kit.files}
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


class Interrupted(dict[str, bytes]):
    """Files, of which the one called `name` is written after `meanwhile`."""

    def __init__(self, files: dict[str, bytes], name: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(files)
        self.name, self.meanwhile = name, meanwhile

    def items(self) -> Any:
        for name, content in super().items():
            if name == self.name:
                self.meanwhile()
            yield name, content


class Hasty(objects.ObjectStore):  # type: ignore[misc]
    """To whom something happens after he looked at the lock for the last time."""

    meanwhile: Callable[[], object]

    def __init__(self, bucket: Any, meanwhile: Callable[[], object]) -> None:
        super().__init__(bucket, name="here")
        self.meanwhile = meanwhile

    def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
        self.meanwhile()
        return bool(super().put(name, content, stamp=stamp))


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("moment", ["weights.safetensors", "graphs/age.onnx", "manifest.json", "after the lock"])
def test_a_trainer_that_loses_the_lane_spoils_nothing(bucket: Any, kit: Any, moment: str, written: bool) -> None:
    """They write one version: the first of its number, or a former one anew."""
    new, theirs = objects.ObjectStore(bucket, name="there"), []
    files = {name: name.encode() for name in (*kit.files, "manifest.json")}
    if written:
        kit.save(new, 2, state={"former": np.array([0])})
    with ExitStack() as lost:

        def lose() -> None:
            lost.enter_context(new.lock())
            theirs.append(kit.save(new, 2))

        old = Hasty(bucket, lose if moment == "after the lock" else lambda: None)
        with old.lock(), pytest.raises(CheckpointError) as caught:
            old.install(FOLDER, Interrupted(files, moment, lose))
        assert caught.value.code == "locked"
        assert [checkpoints.verify(new, 2)] == theirs
        assert checkpoints.load_state(new, theirs[0]).keys() == kit.state.keys()


def test_what_is_swept_up_while_it_is_written_is_not_made_current(bucket: Any, kit: Any) -> None:
    new = objects.ObjectStore(bucket, name="there")
    with ExitStack() as lost:

        def begin() -> None:
            lost.enter_context(new.lock())
            new.recover()

        old = Hasty(bucket, begin)
        with old.lock(), pytest.raises(CheckpointError) as caught:
            kit.save(old, 2)
        assert caught.value.code == "locked"
        assert kit.save(new, 2) == checkpoints.verify(new, 2)


def test_who_has_lost_the_lane_writes_nothing(store: Any, bucket: Any, kit: Any) -> None:
    with store.lock(), objects.ObjectStore(bucket, name="there").lock():
        before = paths(bucket)
        with pytest.raises(CheckpointError):
            kit.save(store, 2)
        assert paths(bucket) == before


def test_who_has_read_a_manifest_finds_its_files_though_it_is_replaced(store: Any, bucket: Any, kit: Any) -> None:
    former = kit.save(store, 1)
    kit.save(store, 1, graphs={"age": b"another", "greedy": b"yet another"})
    assert checkpoints.load_graph(store, former, "age") == kit.graphs["age"]
    assert checkpoints.load_graph(store, kit.load(store, 1), "age") == b"another"
    store.discard("versions/000000000001")
    assert paths(bucket) == set()


def test_a_manifest_whose_put_was_made_twice_is_no_other_trainers(bucket: Any, kit: Any) -> None:
    class Repeated(objects.ObjectStore):  # type: ignore[misc]
        def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
            super().put(name, content, stamp=stamp)
            return bool(super().put(name, content, stamp=stamp))

    store = Repeated(bucket, name="here")
    with store.lock():
        assert kit.save(store, 1) == kit.load(store, 1)


def test_files_without_hashes_in_their_names_are_read(store: Any, bucket: Any, kit: Any) -> None:
    """As they were written before."""
    written = kit.save(store, 1)
    for path in paths(bucket) - {"versions/000000000001/manifest.json"}:
        obstore.rename(bucket, path, path.rpartition(".")[0])
    assert kit.load(store, 1) == checkpoints.verify(store, 1) == written


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
