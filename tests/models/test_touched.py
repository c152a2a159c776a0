"""The rows that moved: none is missed, whatever the optimiser, and none stays marked that was settled."""

import numpy as np
import pytest

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.networks.embedding import TABLE
from models.optimizers import OPTIMIZERS
from models.registry import beliefs, build


def make(spec, optimizer: str) -> Learner:
    network = ClickNetwork(spec, NetworkConfig(hidden=(12, 7, 5), gate_hidden=4))
    return Learner(network, learning_rate=1e-2, seed=3, optimizer=optimizer)


def changed(learner: Learner, before: dict[str, np.ndarray]) -> dict[str, set[int]]:
    return {
        name: set(np.flatnonzero((value != before[name]).any(axis=1)).tolist())
        for name, value in learner.weights().items()
        if name.startswith(TABLE)
    }


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS.keys() - {"adam"}))
def test_what_moved_was_touched_and_what_was_settled_is_forgotten(spec, make_training_batch, optimizer: str) -> None:
    learner = make(spec, optimizer)
    for seeds in ((1, 2), (3,), ()):
        before = learner.weights()
        for seed in seeds:
            batch = make_training_batch(3, seed=seed)
            learner.learn(batch, np.ones(3, dtype=np.float32))
        rows = learner.touched()
        for name, moved in changed(learner, before).items():
            assert rows[name].dtype == np.int32
            assert np.all(np.diff(rows[name]) > 0)
            assert moved <= set(rows[name].tolist())
            assert len(moved) >= 0.5 * len(rows[name])  # the rows of empty slots are read with weight 0
        assert any(len(one) for one in rows.values()) == bool(seeds)
        learner.settle()


def test_only_adam_moves_rows_unread(spec) -> None:
    assert {name for name in OPTIMIZERS if make(spec, name).touched() is None} == {"adam"}


def test_a_restored_learner_has_touched_nothing(spec, make_training_batch) -> None:
    learner = make(spec, "sparse_adam")
    learner.learn(make_training_batch(3, seed=1), np.ones(3, dtype=np.float32))
    learner.restore(learner.weights(), learner.state(), learner.step)
    assert not any(map(len, learner.touched().values()))


def test_of_what_beliefs_keep_by_row_the_rows_that_changed(spec, make_training_batch) -> None:
    network = ClickNetwork(spec, NetworkConfig(hidden=(12, 7, 5), gate_hidden=4))
    methods = [build("count_ucb", {}), build("item_posterior", {})]
    learner = Learner(network, learning_rate=1e-2, seed=3, optimizer="sparse_adam", beliefs=beliefs(methods))
    for seed in (1, 2):
        before = learner.weights()
        learner.learn(make_training_batch(3, seed=seed), np.ones(3, dtype=np.float32))
        rows = learner.touched()
        for name in ("counts.shown", "counts.clicked", "residuals.residual", "residuals.information"):
            assert rows[name].tolist() == np.flatnonzero(learner.weights()[name] != before[name]).tolist()
            assert 0 < len(rows[name]) <= 3
        learner.settle()
    assert not any(len(one) for one in learner.touched().values())
