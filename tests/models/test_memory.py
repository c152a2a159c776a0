"""Beliefs as they are learned: beside the click model, the same bits after a restart, once for all who share them."""

import numpy as np
import pytest

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.optimizers import OPTIMIZERS
from models.registry import METHODS, beliefs, build

CONFIG = NetworkConfig(hidden=(12, 7, 5), dropout=0.1, gate_hidden=4)
#: Methods that learn something beside the click model.
LEARNING = [name for name in METHODS if build(name, {}).beliefs]


def make(spec, methods=(), seed=3, optimizer="adam", **options):
    strategies = [build(name, {"method": name, **options}) for name in methods]
    network = ClickNetwork(spec, CONFIG)
    return Learner(network, learning_rate=1e-2, seed=seed, optimizer=optimizer, beliefs=beliefs(strategies))


@pytest.fixture(scope="module")
def batches(make_training_batch):
    rng = np.random.default_rng(0)
    return [(make_training_batch(29, seed=seed), (rng.random(29) < 0.3).astype(np.float32)) for seed in range(6)]


def learn(learner, batches):
    for batch, label in batches:
        learner.learn(batch, label)
    return learner


def same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    ("method", "optimizer"), [*((one, "adam") for one in LEARNING), *(("ensemble", one) for one in OPTIMIZERS)]
)
def test_a_restored_learner_continues_bit_for_bit(spec, batches, method, optimizer):
    straight = learn(make(spec, [method], optimizer=optimizer), batches)
    stopped = learn(make(spec, [method], optimizer=optimizer), batches[:3])
    continued = make(spec, [method], optimizer=optimizer)
    continued.restore(stopped.weights(), stopped.state(), stopped.step)
    learn(continued, batches[3:])
    same(continued.weights(), straight.weights())
    same(continued.state(), straight.state())


def test_beliefs_change_no_bit_of_the_click_model(spec, batches):
    alone, together = (learn(make(spec, methods), batches) for methods in ((), LEARNING))
    weights, state = together.weights(), together.state()
    same(alone.weights(), {name: weights[name] for name in alone.weights()})
    same(alone.state(), {name: state[name] for name in alone.state()})


@pytest.mark.parametrize("method", LEARNING)
def test_a_belief_learns_and_hangs_on_nobody_else(spec, batches, method):
    alone, together = (learn(make(spec, methods), batches[:2]).weights() for methods in ((method,), LEARNING))
    fresh = make(spec, [method]).weights()
    own = [name for name in alone if name not in make(spec).weights()]
    assert own
    assert any(not np.array_equal(alone[name], fresh[name]) for name in own)
    same({name: alone[name] for name in own}, {name: together[name] for name in own})


def test_a_belief_that_joins_a_lane_begins_there(spec, batches):
    old = learn(make(spec), batches[:2])
    joined = make(spec, LEARNING)
    joined.restore(old.weights(), old.state(), old.step)
    same(make(spec, LEARNING).weights() | old.weights(), joined.weights())
    stopped = make(spec, LEARNING)  # before its first step: a version is written when the strategies change
    stopped.restore(joined.weights(), joined.state(), joined.step)
    for learner in (joined, stopped):
        learn(learner, batches[2:])
        assert learner.step == len(batches)
    same(joined.weights(), stopped.weights())
    same(joined.state(), stopped.state())


def test_refuses_a_state_of_other_options(spec, batches):
    five, seven = (make(spec, ["ensemble"], members=count) for count in (5, 7))
    with pytest.raises(ValueError, match="other options"):
        seven.restore(five.weights(), five.state(), 0)


def test_strategies_share_a_belief_or_are_refused():
    one = build("one", {"method": "ensemble"})
    other = build("other", {"method": "ensemble", "uncertainty": "ucb"})
    assert beliefs([one, other]) == one.beliefs == other.beliefs
    third = build("third", {"method": "ensemble", "members": 3})
    with pytest.raises(ValueError, match="'one' and 'third' share 'ensemble'"):
        beliefs([one, other, third])
