"""A delta in memory is the full version, to every engine, and whoever ranks meanwhile notices nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replaced

from models.networks.embedding import is_table
from models.noise import seed_of
from models.types import Array, Batch
from service import checkpoints, deltas
from service.checkpoints import Base, LocalStore, Manifest
from service.errors import CheckpointError
from service.scoring.engines.kernel import LIBRARY
from service.scoring.loading import load
from service.scoring.ranking import Loaded

COMPILED = pytest.mark.skipif(not LIBRARY.exists(), reason="no C compiler when the project was installed")
Parts = dict[str, Any]
Publish = Callable[..., Manifest]


class Lane:
    """Full version 1, and deltas on it."""

    def __init__(self, root: Path, publish: Publish) -> None:
        self._publish, self._aside = publish, root / "aside"
        self.store = LocalStore(root / "lane")
        self.newest = publish(root / "lane", 1, impressions={seed_of("a"): 5})

    def full(self, version: int) -> Parts:
        """What `version` is as a full one."""
        seen: Parts = {}
        shown = {seed_of("a"): 5 + version, seed_of("b"): version}
        clicks = [1_000 + version]
        self._publish(self._aside, version, change=seen.update, seed=version, impressions=shown, click_times_ms=clicks)
        return seen

    def delta(self, version: int, change: Callable[[Parts], None] = lambda parts: None) -> Manifest:
        """The same as a delta on the newest, in which every row has moved."""
        full, below = self.full(version), self.newest
        weights = full["weights"]
        rows = {name: np.arange(len(one), dtype=np.int32) for name, one in weights.items() if is_table(name)}
        parts = {
            "draft": replaced(full["manifest"], base=Base(version=below.version, digest=below.digest, full=1)),
            "delta": deltas.difference(weights, rows),
            "golden": full["golden"],
        }
        change(parts)
        self.newest = checkpoints.save_delta(self.store, **parts)
        return self.newest

    def load(self, version: int, previous: Loaded | None = None, kind: str = "onnx") -> Loaded:
        given: Any = {"threads": 1, "lane": "default", "strategies": ["age_ts"], "max_items": 10}
        return load(self.store, version, kind=kind, previous=previous, **given)


@pytest.fixture
def lane(tmp_path: Path, publish: Publish) -> Lane:
    return Lane(tmp_path, publish)


def bits(weights: Mapping[str, Array]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in weights.items()}


def scores(loaded: Loaded, golden: Mapping[str, Array]) -> list[Array]:
    """Of the golden request by AGE."""
    given = {name.removeprefix("age_ts/in/"): one for name, one in golden.items() if name.startswith("age_ts/in/")}
    batch = Batch(*(given[field] for field in Batch._fields))
    noise = {one.name: given[one.name] for one in loaded.manifest.strategies["age_ts"].noise}
    return list(loaded.engine.scores("age_ts", batch, noise, float(given["lambda"]), given["impressions"]))


@pytest.mark.parametrize("kind", ["onnx", "torch", pytest.param("native", marks=COMPILED)])
def test_a_delta_in_memory_is_the_full_version(lane: Lane, kind: str) -> None:
    first, golden = lane.load(1, kind=kind), lane.full(2)["golden"]
    lane.delta(2)
    before = bits(first.content.weights), [one.copy() for one in scores(first, golden)]
    second = lane.load(2, first, kind)
    assert second.manifest == lane.newest
    assert bits(second.content.weights) == bits(lane.full(2)["weights"])
    assert second.impressions(np.array([seed_of("a"), seed_of("b")], dtype=np.uint64)).tolist() == [7, 2]
    assert second.content.click_times_ms == [1_002]
    np.testing.assert_allclose(scores(second, golden)[1], golden["age_ts/out/score"], atol=1e-5)
    # Requests that began with the version before go on with it.
    assert bits(first.content.weights) == before[0]
    np.testing.assert_array_equal(scores(first, golden), before[1])


def test_only_what_is_new_is_read(lane: Lane) -> None:
    first = lane.load(1)
    lane.delta(2)
    lane.store.discard("versions/000000000001")  # nobody asks for it
    second = lane.load(2, first)
    lane.delta(3)
    lane.delta(4)
    assert bits(lane.load(4, second).content.weights) == bits(lane.full(4)["weights"])
    assert lane.load(4, second).content.click_times_ms == [1_003, 1_004]


def test_who_has_no_base_begins_with_the_full_version(lane: Lane) -> None:
    stranger = lane.load(1)
    lane.newest = checkpoints.save(lane.store, lane.full(1)["manifest"], **parts_of(lane.full(1)), state={}, keep=5)
    for version in (2, 3):
        lane.delta(version)
    for previous in (None, stranger):
        found = lane.load(3, previous)
        assert bits(found.content.weights) == bits(lane.full(3)["weights"])
        assert found.content.click_times_ms == ([1_001, 1_002, 1_003] if previous is None else [1_002, 1_003])


def parts_of(full: Parts) -> Parts:
    return {name: full[name] for name in ("weights", "golden", "graphs")}


def other_golden(parts: Parts) -> None:
    parts["golden"] = {name: one + 0.1 if "/out/" in name else one for name, one in parts["golden"].items()}


def other_spec(parts: Parts) -> None:
    parts["draft"] = replaced(parts["draft"], network=parts["draft"].network | {"dropout": 0.5})


def narrow(parts: Parts) -> None:
    parts["delta"]["mlp.0.bias"] = parts["delta"]["mlp.0.bias"][:-1]


def not_finite(parts: Parts) -> None:
    parts["delta"]["mlp.0.bias"] = parts["delta"]["mlp.0.bias"] * np.nan


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (other_golden, "golden_mismatch"),
        (other_spec, "delta_mismatch"),
        (narrow, "delta_mismatch"),
        (not_finite, "not_finite"),
    ],
)
def test_a_spoiled_delta_is_refused_and_the_next_that_rests_on_it(
    lane: Lane, change: Callable[[Parts], None], code: str
) -> None:
    first = lane.load(1)
    before = bits(first.content.weights)
    lane.delta(2, change)
    for previous in (first, None):
        with pytest.raises(CheckpointError) as caught:
            lane.load(2, previous)
        assert caught.value.code == code
    assert bits(first.content.weights) == before
    lane.delta(3)
    if change is other_golden:  # the weights were right: the next version shows it
        assert lane.load(3, first).manifest.version == 3
    else:
        with pytest.raises(CheckpointError):
            lane.load(3, first)


def test_a_broken_chain_is_mended_by_the_next_full_version(lane: Lane) -> None:
    first = lane.load(1)
    lane.delta(2)
    lane.delta(3)
    lane.store.discard("deltas/000000000001-000000000002")
    with pytest.raises(CheckpointError) as caught:
        lane.load(3, first)
    assert caught.value.code == "missing_file"
    full = lane.full(4)
    checkpoints.save(lane.store, full["manifest"], **parts_of(full), state={}, keep=5)
    assert lane.load(4, first).manifest.version == 4
