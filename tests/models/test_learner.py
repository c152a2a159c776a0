"""The learner: it learns, and a restored one goes on with the same bits."""

import numpy as np
import pytest

from models.learner import Learner
from models.metrics import log_loss
from models.networks.click import ClickNetwork, NetworkConfig

CONFIG = NetworkConfig(hidden=(12, 7, 5), dropout=0.1, gate_hidden=4)


@pytest.fixture
def batches(make_training_batch):
    rng = np.random.default_rng(0)
    return [(make_training_batch(29, seed=seed), (rng.random(29) < 0.3).astype(np.float32)) for seed in range(9)]


def make(spec, seed=3):
    return Learner(ClickNetwork(spec, CONFIG), learning_rate=1e-2, seed=seed)


def test_the_loss_falls_on_one_batch(spec, batches):
    learner = make(spec)
    batch, label = batches[0]
    first, *_, last = [log_loss(learner.learn(batch, label), label) for _ in range(80)]
    assert last < 0.3 * first
    assert learner.step == 80
    assert np.abs(learner.predict(batches[0][0]) - batches[0][1]).mean() < 0.2


def test_a_restored_learner_continues_bit_for_bit(spec, batches):
    straight, stopped = make(spec), make(spec)
    for batch, label in batches[:4]:
        straight.learn(batch, label)
        stopped.learn(batch, label)
    continued = make(spec, seed=3)
    continued.restore(stopped.weights(), stopped.state(), stopped.step)
    for batch, label in batches[4:]:
        straight.learn(batch, label)
        continued.learn(batch, label)
    assert continued.step == 9
    for mine, other in ((continued.weights(), straight.weights()), (continued.state(), straight.state())):
        assert mine.keys() == other.keys()
        assert all(np.array_equal(mine[name], other[name]) for name in mine)


def test_restoring_before_the_first_step(spec, batches):
    fresh = make(spec)
    other = make(spec, seed=9)
    other.restore(fresh.weights(), fresh.state(), 0)
    other.seed = fresh.seed
    fresh.learn(*batches[0])
    other.learn(*batches[0])
    assert all(np.array_equal(value, other.weights()[name]) for name, value in fresh.weights().items())


def test_weights_are_copies(spec, batches):
    learner = make(spec)
    before = learner.weights()
    kept = {name: value.copy() for name, value in before.items()}
    learner.learn(*batches[0])
    assert all(np.array_equal(before[name], kept[name]) for name in kept)


def test_the_seed_decides_the_dropout(spec, batches):
    one, other = make(spec, seed=1), make(spec, seed=2)
    other.restore(one.weights(), {}, 0)
    assert np.array_equal(one.learn(*batches[0]), other.learn(*batches[0]))  # predicted before the step
    assert not np.array_equal(one.learn(*batches[0]), other.learn(*batches[0]))


def test_refuses_parameters_of_another_network(spec):
    learner = make(spec)
    weights = learner.weights()
    weights["mlp.1.weight"] = weights["mlp.1.weight"].T
    with pytest.raises(ValueError, match="mlp.1.weight"):
        learner.restore(weights, {}, 0)
