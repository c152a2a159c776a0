"""What a trainer finds at its start, and what it leaves for the scorer."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from models.export import export
from models.spec import FeatureSpec
from models.types import Batch, Scores
from service import checkpoints
from service.checkpoints import LocalStore
from service.errors import CheckpointError
from service.scoring import engines
from service.streams import Entry, StreamNames
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard
from service.training.outcome import Progress
from service.training.publisher import Publisher
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=2)
CUT = 350  # entries before the second version


@pytest.fixture
def metrics() -> TrainerMetrics:
    return TrainerMetrics(CollectorRegistry())


@pytest.fixture(scope="module")
def entries(world) -> list[Entry]:
    return world.entries(world.traffic(160), NAMES)


@pytest.fixture
def publish(world, tmp_path: Path, metrics: TrainerMetrics):
    """Makes the publisher of a trainer."""
    return partial(publisher_of, world, tmp_path, refused=metrics.refused)


def publisher_of(world, root: Path, trainer: Trainer, *, refused: Counter) -> Publisher:
    graphs = {name: world.graph(strategy) for name, strategy in trainer.strategies.items()}
    return Publisher(
        LocalStore(root), trainer, spec=world.spec_toml, graphs=graphs, keep=3, guard=Guard(UNGUARDED), refused=refused
    )


@pytest.fixture(scope="module")
def history(world, entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, list[int]]:
    """The folder of a trainer that has published version 0 and two more, the trainer, and those versions."""
    root, trainer = tmp_path_factory.mktemp("lane"), world.trainer()
    publisher = publisher_of(world, root, trainer, refused=TrainerMetrics(CollectorRegistry()).refused)
    versions = [publisher.start(now_ms=1).version]
    for part in (entries[:CUT], entries[CUT:]):
        progress = Progress()
        progress.add(trainer.feed(part))
        versions.append(publisher.publish(progress, now_ms=2).manifest.version)
    assert versions == sorted(set(versions))
    return root, trainer, versions


@pytest.fixture
def published(history, tmp_path: Path) -> tuple[Trainer, list[int]]:
    """A copy of that folder in tmp_path."""
    shutil.copytree(history[0], tmp_path, dirs_exist_ok=True)
    return history[1:]


def damage(root: Path, version: int, name: str = "weights.safetensors") -> None:
    path = root / "versions" / f"{version:012d}" / name
    path.write_bytes(path.read_bytes()[:-1])


def test_the_first_start_publishes_version_0(world, publish, tmp_path: Path, bits) -> None:
    trainer = world.trainer()
    manifest = publish(trainer).start(now_ms=1_234)
    assert (manifest.version, manifest.created_at_ms, manifest.data_timestamp_ms) == (0, 1_234, 0)
    assert checkpoints.current(LocalStore(tmp_path)) == 0
    assert msgspec.json.encode(checkpoints.load_manifest(LocalStore(tmp_path), 0)) == msgspec.json.encode(manifest)
    assert bits(checkpoints.load_weights(LocalStore(tmp_path), manifest)) == bits(trainer.weights())


def test_a_version_tells_all_about_itself(world, published, tmp_path: Path) -> None:
    trainer, versions = published
    manifest = checkpoints.load_manifest(LocalStore(tmp_path), versions[-1])
    assert manifest.lane == "default"
    assert FeatureSpec.from_toml(manifest.spec).hash == manifest.spec_hash
    assert manifest.network == {"hidden": [16, 16, 8], "dropout": 0.01, "gate_hidden": 8, "initial_ctr": 0.3}
    assert manifest.positions == trainer.positions
    assert manifest.data_timestamp_ms == trainer.data_timestamp_ms > 10_000
    assert manifest.metrics.keys() == {"examples", "clicks", "log_loss", "pcoc"}
    assert len(manifest.click_times_ms) == manifest.metrics["clicks"]
    assert max(manifest.click_times_ms) <= manifest.data_timestamp_ms
    strategies = {name: (one.method, one.lambda_, one.budget) for name, one in manifest.strategies.items()}
    assert strategies == {
        "greedy": ("greedy", 10.0, None),
        "age_ts": ("age", trainer.lambda_("age_ts"), 0.05),
        "age_ucb": ("age", 7.0, None),
    }
    for name, strategy in trainer.strategies.items():
        assert checkpoints.load_graph(LocalStore(tmp_path), manifest, name) == export(trainer.learner.network, strategy)


def test_a_manifest_holds_a_thousand_click_times_spread_evenly(world, publish) -> None:
    progress = Progress(click_times_ms=list(range(2_500)))
    manifest = publish(world.trainer()).publish(progress, now_ms=0).manifest
    assert manifest.click_times_ms == list(range(0, 2_500, 3))


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_the_scorer_gives_the_golden_answers(published, tmp_path: Path, kind: str) -> None:
    manifest = checkpoints.load_manifest(LocalStore(tmp_path), published[1][-1])
    golden = checkpoints.load_golden(LocalStore(tmp_path), manifest)
    graphs = {name: checkpoints.load_graph(LocalStore(tmp_path), manifest, name) for name in manifest.strategies}
    weights = checkpoints.load_weights(LocalStore(tmp_path), manifest)
    engine = engines.load(kind, manifest=manifest, graphs=graphs, weights=weights)
    for name, strategy in manifest.strategies.items():
        given = {key.rpartition("/")[2]: value for key, value in golden.items() if key.startswith(f"{name}/in/")}
        batch = Batch(*(given[field] for field in Batch._fields))
        noise = {one.name: given[one.name] for one in strategy.noise}
        scores = engine.scores(name, batch, noise, float(given["lambda"]), given["impressions"])
        assert scores.p_click.shape == (7,)
        for field, value in zip(Scores._fields, scores, strict=True):
            assert np.allclose(value, golden[f"{name}/out/{field}"], rtol=1e-5, atol=1e-6)


def test_a_restart_continues_from_the_newest_version(world, publish, published, tmp_path: Path, bits) -> None:
    trainer, versions = published
    again = world.trainer()
    assert publish(again).start(now_ms=9).version == versions[-1]
    assert bits(again.weights()) == bits(trainer.weights())
    assert bits(again.state()) == bits(trainer.state())
    assert again.positions == trainer.positions
    assert checkpoints.load_manifest(LocalStore(tmp_path), versions[-1]).created_at_ms == 2  # nothing was written again


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "state.safetensors", "golden.safetensors", "graphs/greedy.onnx", "manifest.json"]
)
def test_a_corrupt_version_is_passed_over_and_counted(
    world, publish, published, metrics: TrainerMetrics, tmp_path: Path, name: str
) -> None:
    versions = published[1]
    damage(tmp_path, versions[-1], name)
    again = world.trainer()
    assert publish(again).start(now_ms=9).version == versions[-2]
    assert again.learner.step == versions[-2]
    assert checkpoints.current(LocalStore(tmp_path)) == versions[-2]
    code = "unreadable_manifest" if name == "manifest.json" else "hash_mismatch"
    assert metrics.registry.get_sample_value("agerank_trainer_refused_versions_total", {"code": code}) == 1


def test_what_a_corrupt_version_had_learned_is_learned_again(
    world, publish, published, entries: list[Entry], tmp_path: Path, bits
) -> None:
    trainer, versions = published
    damage(tmp_path, versions[-1])
    again = world.trainer()
    publisher = publish(again)
    publisher.start(now_ms=9)
    again.feed(entries[CUT:])
    assert publisher.publish(Progress(), now_ms=10).manifest.version == versions[-1]
    manifest = checkpoints.load_manifest(LocalStore(tmp_path), versions[-1])
    assert bits(checkpoints.load_weights(LocalStore(tmp_path), manifest)) == bits(trainer.weights())


@pytest.mark.parametrize("content", [None, b'{"version": 0, "data_timestamp_ms": 0, "created_at_ms": 0}', b"garbage"])
def test_a_current_that_lags_is_put_right(world, publish, published, tmp_path: Path, content: bytes | None) -> None:
    current = tmp_path / "current.json"
    current.unlink() if content is None else current.write_bytes(content)
    publish(world.trainer()).start(now_ms=9)
    assert checkpoints.current(LocalStore(tmp_path)) == published[1][-1]


def test_changed_strategies_are_offered_at_once_under_the_same_number(
    world, publish, published, tmp_path: Path
) -> None:
    trainer, versions = published
    changed = {"greedy": {"method": "greedy"}, "fresh": {"method": "random"}}
    manifest = publish(world.trainer(strategies=changed)).start(now_ms=9)
    assert (manifest.version, manifest.created_at_ms) == (versions[-1], 9)
    assert checkpoints.load_manifest(LocalStore(tmp_path), versions[-1]).strategies.keys() == changed.keys()
    assert manifest.positions == trainer.positions


def test_no_version_that_verifies_is_an_error_not_a_fresh_start(world, publish, published, tmp_path: Path) -> None:
    for version in published[1]:
        damage(tmp_path, version)
    with pytest.raises(CheckpointError) as caught:
        publish(world.trainer()).start(now_ms=9)
    assert caught.value.code == "no_usable_version"


def test_another_network_or_spec_is_an_error_that_says_so(world, publish, published, monkeypatch) -> None:
    network = dataclasses.replace(world.network, hidden=(8, 8, 8))
    with pytest.raises(CheckpointError) as caught:
        publish(world.trainer(network=network)).start(now_ms=9)
    assert caught.value.code == "network_mismatch"
    monkeypatch.setattr(world, "spec", FeatureSpec(world.spec.fields[1:]))
    with pytest.raises(CheckpointError) as caught:
        publish(world.trainer()).start(now_ms=9)
    assert caught.value.code == "spec_mismatch"


def test_a_damaged_current_stops_no_new_version(world, publish, published, tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text("{")
    trainer = world.trainer()
    publisher = publish(trainer)
    trainer.learner.step = 10**6
    assert (
        publisher.publish(Progress(), now_ms=9).manifest.version == checkpoints.current(LocalStore(tmp_path)) == 10**6
    )


def test_weights_that_are_not_finite_displace_nothing(world, publish, published, tmp_path: Path) -> None:
    trainer, versions = world.trainer(), published[1]
    publisher = publish(trainer)
    publisher.start(now_ms=9)
    trainer.learner.params["mlp.0.item"].data[0, 0] = np.nan
    trainer.learner.step += 1
    with pytest.raises(CheckpointError) as caught:
        publisher.publish(Progress(), now_ms=10)
    assert caught.value.code == "not_finite"
    assert checkpoints.versions(LocalStore(tmp_path)) == versions
    assert checkpoints.current(LocalStore(tmp_path)) == versions[-1]


def test_a_lane_has_one_trainer(tmp_path: Path) -> None:
    root = tmp_path / "lane"
    store = LocalStore(root)
    with store.lock(), pytest.raises(CheckpointError) as caught, store.lock():
        pass
    assert caught.value.code == "locked"
    with store.lock():  # and it is free again
        shutil.rmtree(root)
