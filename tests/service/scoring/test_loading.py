"""A version is verified before anybody sees it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.noise import seed_of
from models.spec import FeatureSpec
from service.checkpoints import LocalStore, Manifest
from service.errors import CheckpointError
from service.scoring.engines.kernel import LIBRARY
from service.scoring.loading import load
from service.scoring.ranking import Loaded

COMPILED = pytest.mark.skipif(not LIBRARY.exists(), reason="no C compiler when the project was installed")
Parts = dict[str, Any]
Publish = Callable[..., Manifest]


def loaded_from(root: Path, version: int = 0, *, kind: str = "onnx", previous: Loaded | None = None) -> Loaded:
    return load(
        LocalStore(root),
        version,
        kind=kind,
        threads=1,
        lane="default",
        strategies=["greedy", "age_ts"],
        max_items=10,
        previous=previous,
    )


@pytest.mark.parametrize("kind", ["onnx", "torch", pytest.param("native", marks=COMPILED)])
def test_a_good_version_is_loaded_whole(tmp_path: Path, publish: Publish, kind: str) -> None:
    manifest = publish(tmp_path, 3, impressions={seed_of("b"): 5, seed_of("a"): 7})
    loaded = loaded_from(tmp_path, 3, kind=kind)
    assert loaded.manifest == manifest
    assert loaded.encoder.spec == FeatureSpec.from_toml(manifest.spec)
    np.testing.assert_array_equal(loaded.impressions(np.array([seed_of("a")], dtype=np.uint64)), [7])


def test_sessions_are_taken_over_from_the_version_before(tmp_path: Path, publish: Publish) -> None:
    publish(tmp_path, 1)
    publish(tmp_path, 2, seed=1)
    first = loaded_from(tmp_path, 1)
    second = loaded_from(tmp_path, 2, previous=first)
    assert second.engine is not first.engine
    assert second.engine._sessions.items() == first.engine._sessions.items()  # the graphs are the same bytes


def manifest_with(**changes: Any) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts["manifest"] = msgspec.structs.replace(parts["manifest"], **changes)

    return change


def without_strategy(parts: Parts) -> None:
    strategies = {name: one for name, one in parts["manifest"].strategies.items() if name != "age_ts"}
    manifest_with(strategies=strategies)(parts)
    del parts["graphs"]["age_ts"]


def nan_weight(parts: Parts) -> None:
    parts["weights"]["mlp.0.bias"] = np.full_like(parts["weights"]["mlp.0.bias"], np.nan)


def narrow_layer(parts: Parts) -> None:
    parts["weights"]["mlp.1.weight"] = parts["weights"]["mlp.1.weight"][:, :-1].copy()


def missing_weight(parts: Parts) -> None:
    del parts["weights"]["mlp.1.weight"]


def other_weights(parts: Parts) -> None:
    """Of the right shape, finite, hashed and wrong."""
    parts["weights"]["mlp.out.weight"] = parts["weights"]["mlp.out.weight"] + 0.05


def graph_of_another(parts: Parts) -> None:
    parts["graphs"]["age_ucb"] = parts["graphs"]["greedy"]


def no_graph(parts: Parts) -> None:
    parts["graphs"]["greedy"] = b"not a graph"


SPOILED = [
    ("wrong_lane", manifest_with(lane="other")),
    ("unreadable_manifest", manifest_with(data_timestamp_ms=253_402_300_800_000)),  # the year 10,000
    ("unreadable_manifest", manifest_with(created_at_ms=2**63)),
    ("missing_strategy", without_strategy),
    ("spec_mismatch", manifest_with(spec_hash="0" * 16)),
    ("spec_mismatch", manifest_with(spec="[[fields]]\nname = 3")),
    ("not_finite", nan_weight),
    ("shape_mismatch", narrow_layer),
    ("shape_mismatch", missing_weight),
    ("golden_mismatch", other_weights),
    ("golden_mismatch", graph_of_another),
    ("unreadable_graph", no_graph),
]


@pytest.mark.parametrize(("code", "change"), SPOILED)
def test_a_spoiled_version_is_refused(
    tmp_path: Path, publish: Publish, code: str, change: Callable[[Parts], None]
) -> None:
    publish(tmp_path, change=change)
    with pytest.raises(CheckpointError) as caught:
        loaded_from(tmp_path)
    assert caught.value.code == code
    assert caught.value.detail


def test_a_flipped_bit_is_refused(tmp_path: Path, publish: Publish) -> None:
    publish(tmp_path)
    weights = next(tmp_path.glob("versions/*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        loaded_from(tmp_path)
    assert caught.value.code == "hash_mismatch"


def test_a_gate_on_its_very_threshold_may_fall_either_way(tmp_path: Path, publish: Publish) -> None:
    """There the last bit of an engine decides."""
    seen: Parts = {}
    publish(tmp_path, 0, strategies={"age_ts": {"method": "greedy"}, "greedy": {}}, change=seen.update)
    threshold = float(seen["golden"]["greedy/out/p_click"][0])

    def shut(parts: Parts) -> None:
        assert parts["golden"]["age_ts/out/gate_open"][0] == 1.0
        parts["golden"]["age_ts/out/gate_open"][0] = 0.0
        parts["golden"]["age_ts/out/score"][0] = 0.9

    age = {"method": "age", "gate": "fixed", "gate_threshold": threshold}
    publish(tmp_path, 1, strategies={"age_ts": age, "greedy": {}}, change=shut)
    assert loaded_from(tmp_path, 1).manifest.version == 1
    publish(tmp_path, 2, strategies={"age_ts": age | {"gate_threshold": threshold * 0.9}, "greedy": {}}, change=shut)
    with pytest.raises(CheckpointError, match="gate_open|score"):
        loaded_from(tmp_path, 2)


def test_versions_share_the_items_as_long_as_these_are_encoded_alike(tmp_path: Path, publish: Publish) -> None:
    plain = {"greedy": {}, "age_ts": {"method": "greedy"}}
    spec = publish(tmp_path, 1, strategies=plain).spec
    field = '[[fields]]\nname = "new"\nside = "{}"\nkind = "categorical"\nbuckets = 9\n'
    publish(tmp_path, 2, spec=spec + field.format("user"), strategies=plain)
    publish(tmp_path, 3, spec=spec + field.format("item"), strategies=plain)
    first = loaded_from(tmp_path, 1)
    first.items.update({"a": {}})
    first.items.complete = True
    second = loaded_from(tmp_path, 2, previous=first)
    assert second.items is first.items
    with pytest.raises(CheckpointError) as caught:
        loaded_from(tmp_path, 3, previous=second)
    assert caught.value.code == "item_fields_changed"
    first.items.update({"a": None})  # nothing is lost with an empty one
    third = loaded_from(tmp_path, 3, previous=second)
    assert third.items is not second.items
    assert third.items.fits(third.encoder.spec)
    first.items.complete = False  # nor while Redis is away since the start
    assert loaded_from(tmp_path, 3, previous=second).items.fits(third.encoder.spec)
