"""Strategies that learn something beside the click model: trained, published, resumed and served like all others."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service import checkpoints
from service.checkpoints import LocalStore
from service.scoring.engines.kernel import LIBRARY
from service.scoring.loading import load
from service.streams import Entry, StreamNames
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard
from service.training.publisher import Publisher
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=2)
STRATEGIES = {
    "greedy": {},
    "decaying": {"method": "epsilon_greedy", "horizon": 1_000},
    "guideboot": {"members": 2, "history": 100, "replayed": 16},
    "ensemble_ts": {"method": "ensemble", "members": 2},
    "ensemble_ucb": {"method": "ensemble", "members": 2, "uncertainty": "ucb"},
    "gradient": {},
    "item_posterior": {},
    "gaussian_process": {"inducing": 10},
}
KINDS = ["onnx", "torch", pytest.param("native", marks=pytest.mark.skipif(not LIBRARY.exists(), reason="no compiler"))]


@pytest.fixture(scope="module")
def entries(world) -> list[Entry]:
    return world.entries(world.traffic(120), NAMES)


@pytest.fixture
def publisher_of(world, tmp_path: Path):
    def make(trainer: Trainer) -> Publisher:
        graphs = {name: world.graph(strategy) for name, strategy in trainer.strategies.items()}
        refused = TrainerMetrics(CollectorRegistry()).refused
        store, guard = LocalStore(tmp_path), Guard(UNGUARDED)
        return Publisher(store, trainer, spec=world.spec_toml, graphs=graphs, keep=3, guard=guard, refused=refused)

    return make


def test_a_restored_trainer_goes_on_with_the_same_bits(world, entries, publisher_of, bits) -> None:
    whole, first, second = (world.trainer(strategies=STRATEGIES) for _ in range(3))
    whole.feed(entries)
    first.feed(entries[:200])
    assert first.learner.step > 0
    publisher_of(first).start(now_ms=1)
    assert publisher_of(second).start(now_ms=2).version == first.learner.step
    second.feed(entries[200:])
    assert whole.learner.step > first.learner.step
    assert bits(second.weights()) == bits(whole.weights())
    assert bits(second.state()) == bits(whole.state())


@pytest.mark.parametrize("kind", KINDS)
def test_a_scorer_serves_what_was_published(kind, world, entries, publisher_of, tmp_path: Path) -> None:
    """Loading compares every strategy's answers to the golden request with the trainer's."""
    trainer = world.trainer(strategies=STRATEGIES)
    trainer.feed(entries)
    manifest = publisher_of(trainer).start(now_ms=1)
    loaded = load(
        LocalStore(tmp_path),
        manifest.version,
        kind=kind,
        threads=1,
        lane="default",
        strategies=STRATEGIES,
        max_items=10,
    )
    assert loaded.manifest.strategies.keys() == STRATEGIES.keys()


def test_a_strategy_joins_a_lane_and_moves_nobodys_predictions(world, entries, publisher_of, tmp_path, bits) -> None:
    alone = world.trainer(strategies={"greedy": {}})
    alone.feed(entries[:200])
    publisher_of(alone).start(now_ms=1)
    joined = world.trainer(strategies=STRATEGIES)
    manifest = publisher_of(joined).start(now_ms=2)
    assert manifest.version == alone.learner.step
    assert manifest.strategies.keys() == STRATEGIES.keys()
    for trainer in (alone, joined):
        trainer.feed(entries[200:])
    own, all_weights = bits(alone.weights()), bits(joined.weights())
    assert own == {name: all_weights[name] for name in own}
    assert "guideboot.mlp.0.item" in all_weights
    stored = checkpoints.load_weights(LocalStore(tmp_path), manifest)
    assert not any(name.startswith("guideboot.history") for name in stored)  # which stays with the trainer
