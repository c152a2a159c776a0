"""Small versions, and every place that they may lie in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.types import NoiseInput
from service import checkpoints
from service.checkpoints import LocalStore, Manifest, ServedStrategy, Store

WEIGHTS = {
    "mlp.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "mlp.out.bias": np.array(0.5, dtype=np.float32),
    "items.hash": np.array([3, 2**63 + 1], dtype=np.uint64),
    "items.impressions": np.array([7, 9], dtype=np.int64),
}
STATE = {"trainer": np.frombuffer(b"anything", dtype=np.uint8), "empty": np.zeros((0, 2), dtype=np.float32)}
GOLDEN = {"age/in/lambda": np.array(10.0, dtype=np.float32), "age/out/score": np.array([0.1, 0.2], dtype=np.float32)}
GRAPHS = {"age": b"age graph", "greedy": b"greedy graph"}
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


def manifest(version: int, **changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "lane": "default",
        "version": version,
        "created_at_ms": 1_700_000_000_000,
        "data_timestamp_ms": 1_699_999_999_000,
        "spec": "[[fields]]",
        "spec_hash": "0123456789abcdef",
        "network": {"hidden": [256, 128, 64], "dropout": 0.01},
        "strategies": {name: strategy(name) for name in GRAPHS},
        "positions": {"agerank:{0}:served": "1-0"},
        "metrics": {"log_loss": 0.25},
        "click_times_ms": [1, 2],
    }
    return Manifest(**{**given, **changes})


class Kit:
    """What all tests of this folder work with."""

    weights, state, golden, graphs, files = WEIGHTS, STATE, GOLDEN, GRAPHS, FILES
    manifest, strategy = staticmethod(manifest), staticmethod(strategy)

    @staticmethod
    def save(store: Store, version: int, *, keep: int = 5, refused: str = "", **parts: Any) -> Manifest:
        given = {"weights": WEIGHTS, "state": STATE, "golden": GOLDEN, "graphs": GRAPHS, **parts}
        return checkpoints.save(store, given.pop("draft", manifest(version, refused=refused)), **given, keep=keep)

    @staticmethod
    def load(store: Store, version: int) -> Manifest:
        """Everything a reader can ask for."""
        found = checkpoints.load_manifest(store, version)
        checkpoints.load_weights(store, found)
        checkpoints.load_state(store, found)
        checkpoints.load_golden(store, found)
        for name in found.strategies:
            checkpoints.load_graph(store, found, name)
        return found


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


class Place:
    """A store, and a way past it to its files."""

    def __init__(
        self,
        store: Store,
        again: Store,
        write: Callable[[str, bytes], object],
        delete: Callable[[str], object],
        *,
        guarded: bool = True,
    ) -> None:
        self.store, self.write, self.delete = store, write, delete
        self.again = again  # the same place, as another process sees it
        self.guarded = guarded  # a put may be made on a condition


@pytest.fixture(params=["folder", "memory", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """All kinds there are: "objects" is a store without conditional put."""
    root = tmp_path / "lane"
    if request.param == "folder":
        yield Place(
            LocalStore(root),
            LocalStore(root),
            lambda path, content: (root / path).write_bytes(content),
            lambda path: (root / path).unlink(),
        )
        return
    obstore = pytest.importorskip("obstore")
    from service.checkpoints.objects import ObjectStore

    def at(path: str) -> str:
        """Files have the beginning of their hash in their names."""
        paths = [one["path"] for one in obstore.list(bucket).collect()]
        return next((one for one in paths if one.startswith(f"{path}.")), path)

    memory = request.param == "memory"
    bucket = obstore.store.MemoryStore() if memory else obstore.store.LocalStore(root, mkdir=True)
    yield Place(
        ObjectStore(bucket, name="test"),
        ObjectStore(bucket, name="test, again"),
        lambda path, content: obstore.put(bucket, at(path), content),
        lambda path: obstore.delete(bucket, at(path)),
        guarded=memory,
    )
