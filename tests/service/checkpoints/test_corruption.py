"""Every way in which a version may be damaged, and the code with which it is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from service import checkpoints
from service.checkpoints import Base, LocalStore, Manifest, manifest
from service.errors import CheckpointError

PLACES = 100
GRAPHS = {"age": bytes(range(256)), "greedy": bytes(reversed(range(256)))}
FILES = ["weights.safetensors", "state.safetensors", "golden.safetensors", "graphs/age.onnx", "graphs/greedy.onnx"]


@pytest.fixture
def store(tmp_path: Path, kit: Any) -> LocalStore:
    store = LocalStore(tmp_path)
    kit.save(store, 1, graphs=GRAPHS)
    return store


def path_of(store: LocalStore, name: str) -> Path:
    return store.root / "versions" / "000000000001" / name


def outcome(kit: Any, store: LocalStore) -> Manifest | str:
    """What a reader gets: the manifest, or the code of the refusal."""
    try:
        return kit.load(store, 1)
    except CheckpointError as error:
        return error.code if error.detail else "without a word"


def spread(length: int) -> list[int]:
    """PLACES of a file, its first and its last among them."""
    return sorted({int(place) for place in np.linspace(0, length - 1, PLACES)})


def truncated(content: bytes) -> Iterator[bytes]:
    for length in spread(len(content)):
        yield content[:length]


def flipped(content: bytes) -> Iterator[bytes]:
    for place in spread(len(content)):
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


@pytest.mark.parametrize("spoil", [truncated, flipped])
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_with_a_flipped_bit_is_refused(kit: Any, store: LocalStore, name: str, spoil: Any) -> None:
    path = path_of(store, name)
    content = path.read_bytes()
    spoiled = list(spoil(content))
    assert len(spoiled) == PLACES
    for one in spoiled:
        path.write_bytes(one)
        assert outcome(kit, store) == "hash_mismatch"


def test_a_manifest_cut_short_is_refused(kit: Any, store: LocalStore) -> None:
    path = path_of(store, "manifest.json")
    for one in truncated(path.read_bytes()[:-1]):
        path.write_bytes(one)
        assert outcome(kit, store) in {"unreadable_manifest", "unknown_format"}


def test_a_manifest_with_a_flipped_bit_is_refused_or_says_the_same(kit: Any, store: LocalStore) -> None:
    written = outcome(kit, store)
    path = path_of(store, "manifest.json")
    found = []
    for one in flipped(path.read_bytes()):
        path.write_bytes(one)
        found.append(outcome(kit, store))
    codes = {one for one in found if one != written}  # a space that became a tab, 1e-5 that became 1E-5
    assert codes == {"unreadable_manifest", "hash_mismatch"}
    assert sum(one == written for one in found) < 0.1 * len(found)


@pytest.mark.parametrize("spoil", [truncated, flipped])
@pytest.mark.parametrize("name", ["delta.safetensors", "golden.safetensors", "manifest.json"])
def test_a_damaged_delta_is_refused(kit: Any, store: LocalStore, name: str, spoil: Any) -> None:
    below = checkpoints.load_manifest(store, 1)
    draft = kit.manifest(2, base=Base(version=1, digest=below.digest, full=1))
    delta = {"rows/embedding.item_8": np.array([1], dtype=np.int32), "values/embedding.item_8": np.ones((1, 8))}
    written = checkpoints.save_delta(store, draft, delta=delta, golden=kit.golden)
    path = store.root / "deltas" / "000000000001-000000000002" / name
    codes = {"unreadable_manifest", "unknown_format", "hash_mismatch"} if name == "manifest.json" else {"hash_mismatch"}
    accepted, found = 0, set[str]()
    for one in spoil(path.read_bytes()):
        path.write_bytes(one)
        try:
            assert checkpoints.verify(store, 2) == written  # a manifest that says the same in other characters
            accepted += 1
        except CheckpointError as error:
            found.add(error.code)
    assert found <= codes
    assert accepted < (0.1 * PLACES if name == "manifest.json" else 1)


def test_a_manifest_edited_by_hand_is_refused(kit: Any, store: LocalStore) -> None:
    path = path_of(store, "manifest.json")
    path.write_text(path.read_text().replace('"lambda_": 12.5', '"lambda_": 99.5'))
    assert outcome(kit, store) == "hash_mismatch"


def test_a_version_under_another_number_is_refused(kit: Any, store: LocalStore) -> None:
    path_of(store, "").rename(store.root / "versions" / "000000000002")
    with pytest.raises(CheckpointError) as caught:
        kit.load(store, 2)
    assert caught.value.code == "hash_mismatch"


def test_a_refused_version_moved_among_the_others_is_refused(kit: Any, store: LocalStore) -> None:
    kit.save(store, 2, refused="pcoc: 7")
    (store.root / "refused" / "000000000002").rename(store.root / "versions" / "000000000002")
    with pytest.raises(CheckpointError) as caught:
        kit.load(store, 2)
    assert caught.value.code == "hash_mismatch"


def test_a_future_format_is_refused_by_its_number(kit: Any, store: LocalStore) -> None:
    path_of(store, "manifest.json").write_text('{"format": 999, "all else": "is new"}')
    assert outcome(kit, store) == "unknown_format"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(kit: Any, store: LocalStore, name: str) -> None:
    path_of(store, name).unlink()
    assert outcome(kit, store) == "missing_file"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_link_out_of_the_folder_is_refused(kit: Any, store: LocalStore, name: str) -> None:
    path = path_of(store, name)
    path.rename(store.root / "elsewhere")
    path.symlink_to(store.root / "elsewhere")
    assert outcome(kit, store) == "outside_folder"


def test_a_path_out_of_the_folder_is_refused(kit: Any, tmp_path: Path) -> None:
    one = msgspec.structs.replace(kit.strategy("age"), graph="../../x")
    kit.save(LocalStore(tmp_path), 1, draft=kit.manifest(1, strategies={"age": one}), graphs={"age": b"x"})
    assert outcome(kit, LocalStore(tmp_path)) == "outside_folder"


def test_a_strategy_without_its_graph_is_refused(kit: Any, tmp_path: Path) -> None:
    kit.save(LocalStore(tmp_path), 1, graphs={"age": b""})
    assert outcome(kit, LocalStore(tmp_path)) == "missing_file"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(kit: Any, tmp_path: Path, value: float) -> None:
    kit.save(LocalStore(tmp_path), 1, weights={"mlp.0.weight": np.array([[0.0, value]], dtype=np.float32)})
    assert outcome(kit, LocalStore(tmp_path)) == "not_finite"


def test_a_file_that_hashes_well_but_is_no_safetensors_is_refused(kit: Any, store: LocalStore) -> None:
    written = checkpoints.load_manifest(store, 1)
    files = {name: path_of(store, name).read_bytes() for name in written.files} | {FILES[0]: b"not safetensors"}
    path_of(store, FILES[0]).write_bytes(files[FILES[0]])
    path_of(store, "manifest.json").write_bytes(manifest.encode(manifest.seal(written, files)))
    assert outcome(kit, store) == "unreadable_file"
    with pytest.raises(CheckpointError, match=r"unreadable_file: version 1, weights\.safetensors: "):
        checkpoints.verify(store, 1)
