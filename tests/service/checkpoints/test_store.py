"""What every store promises, and every version in it."""

import threading
from typing import Any

import msgspec
import pytest

from service import checkpoints
from service.checkpoints import Store
from service.errors import CheckpointError


def refusal(kit: Any, store: Store, version: int) -> str:
    with pytest.raises(CheckpointError) as caught:
        kit.load(store, version)
    return caught.value.code


def test_an_empty_place_holds_nothing(place: Any, kit: Any) -> None:
    assert checkpoints.versions(place.store) == []
    assert checkpoints.current(place.store) is None
    assert place.store.stamp("current.json") is None
    assert refusal(kit, place.store, 0) == "missing_version"
    place.store.recover()


def test_what_is_saved_is_what_is_loaded(place: Any, kit: Any) -> None:
    written = kit.save(place.store, 42)
    found = checkpoints.load_manifest(place.again, 42)
    assert found == written
    assert msgspec.structs.replace(found, files={}, bytes=0, digest="") == kit.manifest(42)
    assert set(found.files) == set(kit.files)
    for expected, loaded in (
        (kit.weights, checkpoints.load_weights(place.again, found)),
        (kit.state, checkpoints.load_state(place.again, found)),
        (kit.golden, checkpoints.load_golden(place.again, found)),
    ):
        assert expected.keys() == loaded.keys()
        for name, array in expected.items():
            assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
            assert loaded[name].tobytes() == array.tobytes()
    assert {name: checkpoints.load_graph(place.again, found, name) for name in found.strategies} == kit.graphs


@pytest.mark.parametrize("name", ["weights.safetensors", "graphs/greedy.onnx", "manifest.json"])
def test_a_missing_file_is_missed(place: Any, kit: Any, name: str) -> None:
    kit.save(place.store, 1)
    place.delete(f"versions/000000000001/{name}")
    # Where nothing is renamed, a folder without its manifest is one that is not finished.
    unfinished = name == "manifest.json" and not isinstance(place.store, checkpoints.LocalStore)
    assert refusal(kit, place.store, 1) == ("missing_version" if unfinished else "missing_file")


def test_a_changed_file_is_refused(place: Any, kit: Any) -> None:
    kit.save(place.store, 1)
    place.write("versions/000000000001/graphs/age.onnx", b"age grapH")
    assert refusal(kit, place.store, 1) == "hash_mismatch"


def test_a_name_that_leads_out_of_the_folder_is_refused(place: Any, kit: Any) -> None:
    kit.save(place.store, 1)
    place.write("x", b"")
    for name in ("../../x", "/x"):
        with pytest.raises(CheckpointError) as caught:
            place.store.read("versions/000000000001", name)
        assert caught.value.code == "outside_folder"


def test_a_version_written_anew_replaces_the_old_one(place: Any, kit: Any) -> None:
    kit.save(place.store, 1)
    kit.save(place.store, 1, graphs={"age": b"another", "greedy": b"yet another"})
    assert checkpoints.load_graph(place.again, kit.load(place.again, 1), "age") == b"another"


def test_the_oldest_go_but_never_the_current_one_nor_the_one_before_it(place: Any, kit: Any) -> None:
    for version in (1, 2, 3):
        written = kit.save(place.store, version)
    checkpoints.set_current(place.store, written)
    for version in (4, 5, 6):
        kit.save(place.store, version, keep=2)
    assert checkpoints.versions(place.again) == [2, 3, 5, 6]


def test_a_new_version_stays_beside_corrupt_ones_with_higher_numbers(place: Any, kit: Any) -> None:
    checkpoints.set_current(place.store, kit.save(place.store, 1, keep=1))
    kit.save(place.store, 9, keep=1)  # then found corrupt, so that training goes on from 1
    kit.save(place.store, 5, keep=1)
    assert checkpoints.versions(place.store) == [1, 5, 9]


def test_refused_versions_lie_apart_and_displace_no_other(place: Any, kit: Any) -> None:
    kit.save(place.store, 1)
    for version in (2, 3, 4):
        kit.save(place.store, version, refused="pcoc: too high", keep=2)
    assert checkpoints.versions(place.store) == [1]
    assert checkpoints.versions(place.store, refused=True) == [3, 4]
    assert kit.load(place.store, 4).refused == "pcoc: too high"


def test_a_refused_version_that_serves_by_force_stays(place: Any, kit: Any) -> None:
    checkpoints.set_current(place.store, kit.save(place.store, 1, refused="pcoc: too high"))
    for version in (2, 3):
        kit.save(place.store, version, refused="pcoc: too high", keep=1)
    assert checkpoints.versions(place.store, refused=True) == [1, 3]


def test_a_version_that_was_refused_and_is_written_again_is_one(place: Any, kit: Any) -> None:
    kit.save(place.store, 1, refused="pcoc: too high")
    assert kit.load(place.store, 1).refused
    kit.save(place.store, 1)
    assert not kit.load(place.again, 1).refused
    assert checkpoints.versions(place.store, refused=True) == []


def test_current_is_written_by_whoever_read_it_last(place: Any) -> None:
    store = place.store
    assert store.put("current.json", b"1", stamp=None)
    assert not store.put("current.json", b"2", stamp=None)
    content, stamp = store.get("current.json")
    assert (content, stamp) == (b"1", store.stamp("current.json"))
    assert store.put("current.json", b"3", stamp=stamp)
    assert not place.again.put("current.json", b"4", stamp=stamp)
    assert place.again.get("current.json")[0] == b"3"
    assert store.stamp("current.json") != stamp


def test_of_many_writers_none_overwrites_what_it_has_not_read(place: Any) -> None:
    if not place.guarded:
        pytest.skip("this store has no conditional put, and says so in the log")
    place.store.put("count", b"0", stamp=None)

    def add() -> None:
        for _ in range(20):
            while True:
                content, stamp = place.store.get("count")
                if place.store.put("count", b"%d" % (int(content) + 1), stamp=stamp):
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.store.get("count")[0] == b"80"
