"""The learner: it learns, and a restored one goes on with the same bits."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from models.beliefs.counts import Counts
from models.learner import Learner
from models.metrics import log_loss
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.optimizers import OPTIMIZERS
from models.types import Batch

CONFIG = NetworkConfig(hidden=(12, 7, 5), dropout=0.1, gate_hidden=4)


@pytest.fixture
def batches(make_training_batch):
    rng = np.random.default_rng(0)
    return [(make_training_batch(29, seed=seed), (rng.random(29) < 0.3).astype(np.float32)) for seed in range(9)]


def make(spec, seed=3, optimizer="adam"):
    return Learner(ClickNetwork(spec, CONFIG), learning_rate=1e-2, seed=seed, optimizer=optimizer)


def test_the_loss_falls_on_one_batch(spec, batches):
    learner = make(spec)
    batch, label = batches[0]
    first, *_, last = [log_loss(learner.learn(batch, label), label) for _ in range(80)]
    assert last < 0.3 * first
    assert learner.step == 80
    assert np.abs(learner.predict(batches[0][0]) - batches[0][1]).mean() < 0.2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_a_model_is_all_too_sure_of_leaves_no_denormal_numbers(spec, batches, optimizer):
    """They slow everything down that they are multiplied with. A logit of -80 is a probability of 2e-35."""
    learner = make(spec, optimizer=optimizer)
    weights = learner.weights()
    weights["mlp.out.bias"] = np.array(-80.0, dtype=np.float32)
    learner.restore(weights, {}, 0)
    found: list[torch.Tensor] = []
    for name in ("mlp.0.item", "mlp.1.weight", "mlp.out.weight", "mlp.out.bias"):
        learner.params[name].register_hook(lambda gradient: found.append(gradient.clone()))
    learner.learn(batches[0][0], np.zeros(29, dtype=np.float32))
    sizes = torch.cat([one.flatten() for one in found]).abs()
    assert sizes.max() > 0.0
    assert not ((sizes > 0.0) & (sizes < torch.finfo(torch.float32).tiny)).any()
    assert torch.tensor(1e-30) * torch.tensor(1e-10) > 0.0  # nobody else's arithmetic is changed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_learner_continues_bit_for_bit(spec, batches, optimizer):
    straight, stopped = make(spec, optimizer=optimizer), make(spec, optimizer=optimizer)
    for batch, label in batches[:4]:
        straight.learn(batch, label)
        stopped.learn(batch, label)
    continued = make(spec, seed=3, optimizer=optimizer)
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


def test_what_is_returned_was_predicted_before_the_step(spec, batches):
    learner = make(spec)
    for batch, label in batches:
        expected = learner.predict(batch)
        np.testing.assert_allclose(learner.learn(batch, label), expected, rtol=1e-6)
        assert not np.allclose(learner.predict(batch), expected, rtol=1e-6)


def test_rows_that_share_a_context_learn_as_if_each_had_its_own(spec, make_training_batch):
    """Of three requests, one context each, against every row with a copy of it."""
    alone, together = make(spec), make(spec)
    label = (np.arange(30) % 4 == 0).astype(np.float32)
    for seed in range(5):
        requests = [make_training_batch(count, seed=10 * seed + count) for count in (9, 1, 20)]
        whole = Batch(*(np.concatenate(columns) for columns in zip(*requests, strict=True)))
        first = [one.context_index[:1] for one in requests], [one.context_weight[:1] for one in requests]
        shared = whole._replace(context_index=np.concatenate(first[0]), context_weight=np.concatenate(first[1]))
        p = together.learn(shared, label, context_row=np.repeat(np.arange(3), (9, 1, 20)))
        np.testing.assert_allclose(p, alone.learn(whole, label), rtol=1e-5)
    for name, value in alone.weights().items():
        np.testing.assert_allclose(together.weights()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3])
def test_masks_drop_each_unit_as_often_and_on_its_own(spec, rate):
    learner = Learner(ClickNetwork(spec, dataclasses.replace(CONFIG, dropout=rate)), learning_rate=1e-2, seed=3)
    kept = []
    for learner.step in range(40):
        mask = learner._masks(slice(0, 500), 500).numpy()
        assert mask.shape == (1, 500, sum(CONFIG.hidden))
        assert np.isin(mask, np.array([0.0, 1.0 / (1.0 - rate)], dtype=np.float32)).all()
        kept.append(mask[0] > 0)
    kept = np.concatenate(kept)
    dropped = 1.0 - kept.mean(axis=0)  # of each unit, over 20,000 examples
    error = np.sqrt(rate * (1.0 - rate) / len(kept))
    assert np.all(np.abs(dropped - rate) <= 5 * error)
    together = (~kept[:, 0] & ~kept[:, 1]).mean()
    assert abs(together - rate**2) <= 5 * np.sqrt(rate**2 / len(kept))


def test_the_masks_of_a_share_are_a_part_of_all(spec):
    learner = make(spec)
    for learner.step in range(3):
        whole = learner._masks(slice(0, 50), 50)
        parts = [learner._masks(slice(*ends), 50) for ends in ((0, 17), (17, 17), (17, 50))]
        assert torch.equal(torch.cat(parts, dim=1), whole)
        assert (whole == 0).any()


def test_the_state_of_another_optimizer_is_refused(spec, batches):
    learner = make(spec)
    learner.learn(*batches[0])
    with pytest.raises(ValueError, match="another optimiser"):
        make(spec, optimizer="sparse_adam").restore(learner.weights(), learner.state(), 1)


RATE = 0.2  # of the unclicked


def test_the_offset_s_gradient_is_that_of_the_sample_s_probability(spec, batches):
    """Against float64 autograd of -log q or -log (1 - q): q = p / (p + (1 - p) r) is a click's among what is kept."""
    network = ClickNetwork(spec, dataclasses.replace(CONFIG, dropout=0.0))
    params = network.init(torch.Generator().manual_seed(0))
    batch, label = batches[0]
    masks = torch.ones(1, 29, sum(CONFIG.hidden))
    gradients = []
    for kind in (torch.float32, torch.float64):
        own = {name: value.detach().to(kind).requires_grad_() for name, value in params.items()}
        encoded = Batch(*(one.to(kind) if one.is_floating_point() else one for one in tensors(batch)))
        y = torch.from_numpy(label).to(kind)
        if kind == torch.float32:
            loss = network.loss(own, encoded, masks, y, offset=-math.log(RATE))
            (loss.click + loss.gate).backward()
            expected = torch.sigmoid(network.logit(own, encoded))
            torch.testing.assert_close(loss.p_click, expected.detach())  # of the log, not of the sample
        else:
            gate = network.gate(own, network.embed(own, encoded)[1])[:, 0]
            for p in (network.logit(own, encoded).sigmoid(), gate.sigmoid()):
                q = p / (p + (1.0 - p) * RATE)
                (-(y * q.log() + (1.0 - y) * (1.0 - q).log()).mean()).backward()
        gradients.append({name: value.grad.to_dense().double() for name, value in own.items()})
    for name, value in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], value, rtol=1e-4, atol=1e-7)


def test_predictions_of_a_sample_are_those_of_the_world(spec, make_training_batch):
    """Rows whose click probability is known; of the unclicked one in five is learned from."""
    world = make_training_batch(6, seed=1)
    truth = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
    rng = np.random.default_rng(0)
    row = rng.integers(6, size=30_000)
    label = (rng.random(len(row)) < truth[row]).astype(np.float32)
    kept = (label > 0) | (rng.random(len(row)) < RATE)
    row, label = row[kept], label[kept]
    found = {}
    for rate in (RATE, 1.0):
        network = ClickNetwork(spec, dataclasses.replace(CONFIG, dropout=0.0))
        learner = Learner(network, learning_rate=5e-3, seed=0, negative_rate=rate)
        predicted = []
        for start in range(0, len(row) - 64, 64):
            part = row[start : start + 64]
            learner.learn(Batch(*(column[part] for column in world)), label[start : start + 64])
            predicted.append(learner.predict(world))
        found[rate] = np.mean(predicted[len(predicted) // 2 :], axis=0)  # single steps are noisy
    np.testing.assert_allclose(found[RATE], truth, rtol=0.25)
    np.testing.assert_allclose(found[1.0], truth / (truth + (1.0 - truth) * RATE), rtol=0.25)  # of the sample


def test_beliefs_that_count_every_example_take_no_sample(spec):
    with pytest.raises(ValueError, match="negative_rate"):
        Learner(ClickNetwork(spec, CONFIG), learning_rate=1e-2, seed=0, beliefs=[Counts()], negative_rate=0.5)
