"""A version is whole or absent, and nothing corrupt is ever handed out."""

import hashlib
import os
import shutil
import signal
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from models.types import NoiseInput
from service import checkpoints, durable
from service.checkpoints import Manifest, ServedStrategy
from service.errors import CheckpointError

WEIGHTS = {
    "mlp.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "mlp.out.bias": np.array(0.5, dtype=np.float32),
    "items.hash": np.array([3, 2**63 + 1], dtype=np.uint64),
    "items.impressions": np.array([7, 9], dtype=np.int64),
}
STATE = {"trainer": np.frombuffer(b"anything", dtype=np.uint8), "empty": np.zeros((0, 2), dtype=np.float32)}
GOLDEN = {"age/in/lambda": np.array(10.0, dtype=np.float32), "age/out/score": np.array([0.1, 0.2], dtype=np.float32)}
GRAPHS = {"age": b"age graph", "greedy": b"greedy graph"}
OTHER_GRAPHS = {"age": b"age graph", "greedy": b"another greedy graph"}
FILES = ["weights.safetensors", "state.safetensors", "golden.safetensors", "graphs/age.onnx", "graphs/greedy.onnx"]


def strategy(name: str) -> ServedStrategy:
    return ServedStrategy(
        method=name,
        options={"steps": 3, "rate": 0.01, "gate": "learned", "max_impressions": None},
        graph=f"{name}.onnx",
        noise=[NoiseInput(name="masks", distribution="dropout", scope="request", draws=1, width=448, rate=0.01)],
        lambda_=12.5,
        budget=0.05,
        uniform_share=None,
        propensity_samples=0,
    )


def manifest(version: int) -> Manifest:
    return Manifest(
        lane="default",
        version=version,
        created_at_ms=1_700_000_000_000,
        data_timestamp_ms=1_699_999_999_000,
        spec="[[fields]]",
        spec_hash="0123456789abcdef",
        network={"hidden": [256, 128, 64], "dropout": 0.01},
        strategies={name: strategy(name) for name in GRAPHS},
        positions={"agerank:{0}:served": "1-0"},
        metrics={"log_loss": 0.25},
        click_times_ms=[1, 2],
    )


def save(
    root: Path,
    version: int,
    *,
    keep: int = 5,
    weights: dict[str, np.ndarray] = WEIGHTS,
    graphs: dict[str, bytes] = GRAPHS,
) -> Manifest:
    return checkpoints.save(
        root, manifest(version), weights=weights, state=STATE, golden=GOLDEN, graphs=graphs, keep=keep
    )


def load(root: Path, version: int) -> None:
    """Everything a reader can ask for."""
    found = checkpoints.load_manifest(root, version)
    checkpoints.load_weights(root, found)
    checkpoints.load_state(root, found)
    checkpoints.load_golden(root, found)
    for name in found.strategies:
        checkpoints.load_graph(root, found, name)


def refusal(root: Path, version: int) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(root, version)
    return caught.value.code


def folder(root: Path, version: int) -> Path:
    return root / "versions" / f"{version:012d}"


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    written = save(tmp_path, 42)
    found = checkpoints.load_manifest(tmp_path, 42)
    assert found == written
    assert msgspec.structs.replace(found, files={}, digest="") == manifest(42)
    assert set(found.files) == set(FILES)
    for expected, loaded in (
        (WEIGHTS, checkpoints.load_weights(tmp_path, found)),
        (STATE, checkpoints.load_state(tmp_path, found)),
        (GOLDEN, checkpoints.load_golden(tmp_path, found)),
    ):
        assert expected.keys() == loaded.keys()
        for name, array in expected.items():
            assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
            assert loaded[name].tobytes() == array.tobytes()
    assert {name: checkpoints.load_graph(tmp_path, found, name) for name in found.strategies} == GRAPHS


def test_current_follows_set_current_and_nothing_else(tmp_path: Path) -> None:
    assert checkpoints.current(tmp_path) is None
    assert checkpoints.versions(tmp_path) == []
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    assert checkpoints.current(tmp_path) is None
    checkpoints.set_current(tmp_path, second)
    assert checkpoints.current(tmp_path) == 2
    checkpoints.set_current(tmp_path, first)
    assert checkpoints.current(tmp_path) == 1
    assert msgspec.json.decode((tmp_path / "current.json").read_bytes()) == {
        "version": 1,
        "data_timestamp_ms": first.data_timestamp_ms,
        "created_at_ms": first.created_at_ms,
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "x"}', b"{}", b"\xff\xfe"])
def test_an_unreadable_current_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.current(tmp_path)
    assert caught.value.code == "unreadable_current"


def test_the_oldest_versions_go_but_never_the_current_one(tmp_path: Path) -> None:
    checkpoints.set_current(tmp_path, save(tmp_path, 1, keep=2))
    for version in (2, 3, 4):
        save(tmp_path, version, keep=2)
    assert checkpoints.versions(tmp_path) == [1, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.json", "versions"]


def test_a_copy_made_by_hand_is_no_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in ("1", "000000000001.bak", "²²²²²²²²²²²²"):
        shutil.copytree(folder(tmp_path, 1), tmp_path / "versions" / name)
    save(tmp_path, 2, keep=1)
    assert checkpoints.versions(tmp_path) == [2]


def test_a_new_version_stays_beside_corrupt_ones_with_higher_numbers(tmp_path: Path) -> None:
    checkpoints.set_current(tmp_path, save(tmp_path, 1, keep=1))
    save(tmp_path, 9, keep=1)  # then found corrupt, so that training goes on from 1
    save(tmp_path, 5, keep=1)
    assert checkpoints.versions(tmp_path) == [1, 5, 9]


def test_a_version_saved_again_replaces_the_one_that_was_corrupt(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (folder(tmp_path, 1) / "weights.safetensors").write_bytes(b"garbage")
    assert refusal(tmp_path, 1) == "hash_mismatch"
    save(tmp_path, 1)
    load(tmp_path, 1)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = folder(tmp_path, 1) / name
    content = path.read_bytes()
    for length in sorted({0, 1, 7, 8, len(content) // 2, len(content) - 1}):
        path.write_bytes(content[:length])
        assert refusal(tmp_path, 1) == "hash_mismatch"


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = folder(tmp_path, 1) / name
    content = path.read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(flip(content, place, bit=place % 8))
        assert refusal(tmp_path, 1) == "hash_mismatch"


def test_a_damaged_manifest_is_refused_or_says_the_same(tmp_path: Path) -> None:
    written = save(tmp_path, 1)
    path = folder(tmp_path, 1) / "manifest.json"
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        assert refusal(tmp_path, 1) in {"unreadable_manifest", "unknown_format"}
    codes = []
    for place in range(0, len(content), 5):
        path.write_bytes(flip(content, place, bit=place % 7))
        try:
            same = checkpoints.load_manifest(tmp_path, 1) == written  # e.g. 1e-5 became 1E-5
            codes.append("same" if same else "accepted")
        except CheckpointError as error:
            codes.append(error.code)
    assert set(codes) <= {"same", "unreadable_manifest", "unknown_format", "hash_mismatch"}
    assert codes.count("same") < 0.05 * len(codes)


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = folder(tmp_path, 1) / "manifest.json"
    path.write_text(path.read_text().replace('"lambda_": 12.5', '"lambda_": 99.5'))
    assert refusal(tmp_path, 1) == "hash_mismatch"


def test_a_version_under_another_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.copytree(folder(tmp_path, 1), folder(tmp_path, 2))
    assert refusal(tmp_path, 2) == "hash_mismatch"


def test_a_future_format_is_refused_by_its_number(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (folder(tmp_path, 1) / "manifest.json").write_text('{"format": 999, "all else": "is new"}')
    assert refusal(tmp_path, 1) == "unknown_format"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    (folder(tmp_path, 1) / name).unlink()
    assert refusal(tmp_path, 1) == "missing_file"


def test_a_strategy_without_its_graph_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, manifest(1), weights=WEIGHTS, state=STATE, golden=GOLDEN, graphs={"age": b""}, keep=1)
    assert refusal(tmp_path, 1) == "missing_file"


def test_a_missing_version_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, 7) == "missing_version"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / "lane", 1)
    path = folder(tmp_path / "lane", 1) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(tmp_path / "lane", 1) == "outside_folder"


def test_a_linked_version_folder_is_refused_but_a_linked_root_is_not(tmp_path: Path) -> None:
    save(tmp_path / "lane", 1)
    (tmp_path / "link").symlink_to(tmp_path / "lane")
    load(tmp_path / "link", 1)
    folder(tmp_path / "lane", 1).rename(tmp_path / "elsewhere")
    folder(tmp_path / "lane", 1).symlink_to(tmp_path / "elsewhere")
    assert refusal(tmp_path / "lane", 1) == "outside_folder"


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    one = strategy("age")
    escaping = msgspec.structs.replace(manifest(1), strategies={"age": msgspec.structs.replace(one, graph="../../x")})
    (tmp_path / "incoming").mkdir()
    checkpoints.save(tmp_path, escaping, weights=WEIGHTS, state=STATE, golden=GOLDEN, graphs={"age": b"x"}, keep=1)
    assert refusal(tmp_path, 1) == "outside_folder"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    weights = {**WEIGHTS, "mlp.0.weight": np.array([[0.0, value]], dtype=np.float32)}
    save(tmp_path, 1, weights=weights)
    assert refusal(tmp_path, 1) == "not_finite"


def test_a_file_that_hashes_well_but_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    written = save(tmp_path, 1)
    (folder(tmp_path, 1) / "weights.safetensors").write_bytes(b"not safetensors")
    digests = {**written.files, "weights.safetensors": hashlib.sha256(b"not safetensors").hexdigest()}
    forged = msgspec.structs.replace(written, files=digests)
    forged = msgspec.structs.replace(forged, digest=checkpoints._digest(forged))
    (folder(tmp_path, 1) / "manifest.json").write_bytes(msgspec.json.encode(forged))
    assert refusal(tmp_path, 1) == "unreadable_file"


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ((durable, "write"), 0),
        ((durable, "write"), 3),
        ((durable, "write"), 5),
        ((durable, "install"), 0),
        ((checkpoints, "_prune"), 0),
        ((durable, "overwrite"), 0),
    ],
)
def test_a_process_killed_while_it_saves_leaves_no_half_version(
    tmp_path: Path, place: tuple[ModuleType, str], count: int
) -> None:
    checkpoints.set_current(tmp_path, save(tmp_path, 1))
    child = os.fork()
    if child == 0:
        die_in(*place, count)
        checkpoints.set_current(tmp_path, save(tmp_path, 2, keep=1))
        os._exit(0)  # never reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert checkpoints.current(tmp_path) == 1
    for version in checkpoints.versions(tmp_path):
        load(tmp_path, version)
    checkpoints.set_current(tmp_path, save(tmp_path, 3, keep=1))  # and the next save clears up
    assert checkpoints.current(tmp_path) == 3
    load(tmp_path, 3)
    assert not (tmp_path / "incoming").exists()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_version_written_anew_is_the_old_or_the_new_wherever_the_process_dies(tmp_path: Path, count: int) -> None:
    save(tmp_path, 1)
    child = os.fork()
    if child == 0:
        die_in(Path, "rename", count)  # the two renames of a replacement, and after them
        save(tmp_path, 1, graphs=OTHER_GRAPHS)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    checkpoints.recover(tmp_path)
    assert checkpoints.versions(tmp_path) == [1]
    load(tmp_path, 1)
    found = checkpoints.load_graph(tmp_path, checkpoints.load_manifest(tmp_path, 1), "greedy")
    assert (found == OTHER_GRAPHS["greedy"]) == (count == 2)
    assert [one.name for one in (tmp_path / "versions").iterdir()] == ["000000000001"]


def die_in(owner: ModuleType | type, place: str, count: int) -> None:
    """Makes this process kill itself at the call of a function, after `count` calls went well."""
    real = getattr(owner, place)
    calls = iter(range(count))

    def fatal(*args: object) -> object:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(owner, place, fatal)


def flip(content: bytes, place: int, *, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
