"""The logistic regression against a dense one in float64, solved by Newton's method."""

import math

import numpy as np
import pytest
import torch

from models.beliefs.belief import Lesson
from models.beliefs.logistic import Logistic
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.spec import FeatureSpec
from models.types import Batch

SPEC = "\n".join(
    f'[[fields]]\nname = "{name}"\nside = "{side}"\nkind = "categorical"\nbuckets = {buckets}\nwidth = 2'
    for name, side, buckets in (("segment", "user", 3), ("colour", "item", 4), ("size", "item", 2))
)
COUNT = 40


@pytest.fixture(scope="module")
def network():
    return ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig(hidden=(4,), initial_ctr=0.2))


def example(seed):
    """Random rows; context_3 has 4 rows, the items' table 5 + 3."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.integers(0, 5, COUNT), rng.integers(5, 8, COUNT)], axis=1).astype(np.int32)
    context = rng.integers(0, 4, (COUNT, 1)).astype(np.int32)
    batch = Batch(context, np.ones((COUNT, 1), np.float32), items, np.ones((COUNT, 2), np.float32))
    return tensors(batch), torch.from_numpy((rng.random(COUNT) < 0.2 + 0.1 * items[:, 0]).astype(np.float32))


def design(batch):
    """(B, 1 + 4 + 8) float64: bias, context, items."""
    x = torch.zeros(COUNT, 13, dtype=torch.float64)
    x[:, 0] = 1.0
    for columns in (1 + batch.context_index, 5 + batch.item_index):
        x.scatter_(1, columns.long(), 1.0)
    return x


def flat(network, state, kind):
    spec = network.spec
    names = [table.name for layout in (spec.context, spec.item) for table in layout.tables]
    return torch.cat([state[f"{kind}.{name}"].reshape(-1) for name in ("bias", *names)]).double()


def learned(network, belief, seeds):
    state = belief.init(network, torch.Generator()).kept
    for seed in seeds:
        batch, label = example(seed)
        belief.note(network, {}, state, Lesson(batch, label, None, None), np.random.default_rng())
    return state


def newton(x, y, m, q):
    w = m.clone()
    for _ in range(50):
        p = torch.sigmoid(x @ w)
        hessian = torch.diag(q) + x.T @ (x * (p * (1.0 - p))[:, None])
        w = w - torch.linalg.solve(hessian, q * (w - m) + x.T @ (p - y))
    return w


def test_each_batch_moves_the_posterior_as_the_algorithm_says(network):
    belief = Logistic(precision=2.0)
    m = torch.zeros(13, dtype=torch.float64)
    m[0] = math.log(0.25)
    q = torch.full((13,), 2.0, dtype=torch.float64)
    for count in range(1, 4):
        batch, label = example(count - 1)
        x = design(batch)
        m = newton(x, label.double(), m, q)
        p = torch.sigmoid(x @ m)
        q = q + (x**2 * (p * (1.0 - p))[:, None]).sum(0)
        state = learned(network, belief, range(count))
        torch.testing.assert_close(flat(network, state, "mean"), m, rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(flat(network, state, "precision"), q, rtol=1e-3, atol=1e-3)
    assert int(state["examples"]) == 3 * COUNT


def test_logits_have_the_mean_and_variance_of_their_weights(network):
    belief = Logistic(precision=2.0)
    state = learned(network, belief, range(2))
    batch, _ = example(9)
    mean, variance = belief.posterior(network, state | belief.prepare(network, state), batch)
    x, m, q = design(batch), flat(network, state, "mean"), flat(network, state, "precision")
    torch.testing.assert_close(mean.double(), x @ m, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance.double(), (x**2 / q).sum(1), rtol=1e-5, atol=1e-7)
    one = batch._replace(context_index=batch.context_index[:1], context_weight=batch.context_weight[:1])
    many = batch._replace(context_index=batch.context_index[:1].expand(COUNT, -1))
    for found, expected in zip(
        *(belief.posterior(network, state | belief.prepare(network, state), b) for b in (one, many)), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_it_recovers_the_weights_of_a_world(network):
    """400 batches of a world whose logits are linear: the better item is known to be better."""
    belief = Logistic(precision=1.0)
    state = learned(network, belief, range(100))
    weights = flat(network, state, "mean")[5:10]
    assert (weights.diff() > 0.1).all()  # the rates of the five colours rise from 0.2 to 0.6
    assert (flat(network, state, "precision")[5:10] > 50.0).all()
