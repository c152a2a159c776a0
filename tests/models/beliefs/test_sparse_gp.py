"""The sparse Gaussian process against dense formulas in float64, as the code of DUAL has them: not whitened."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from models.beliefs.belief import Lesson
from models.beliefs.sparse_gp import SparseGP
from models.networks.click import Forward

AMPLITUDE, LENGTH, JITTER = 0.3, 2.0, 1e-4
COUNT, INDUCING = 9, 12


@pytest.fixture
def case(network):
    belief = SparseGP(inducing=INDUCING)
    state = belief.init(network, torch.Generator().manual_seed(0)).trained
    generator = torch.Generator().manual_seed(1)
    state["mean"] = torch.randn(INDUCING, generator=generator)
    state["log_sd"] = -torch.rand(INDUCING, generator=generator)
    return belief, state, torch.rand(COUNT, network.config.hidden[-1], generator=generator)


def kernel(one, other):
    return AMPLITUDE**2 * torch.exp(-(torch.cdist(one, other) ** 2) / (2.0 * LENGTH**2))


def dense(network, state, hidden):
    """m(x), v(x) and KL(q(u) | p(u)) from q(u) = N(q_mu, S), as DUAL has them."""
    exact = {name: value.double() for name, value in state.items()}
    place = hidden.double() @ exact["adapter.weight"].T + exact["adapter.bias"]
    z = exact["inducing"]
    k_zz = kernel(z, z) + JITTER * torch.eye(INDUCING, dtype=torch.float64)
    lower = torch.linalg.cholesky(k_zz)
    m0 = math.log(network.config.initial_ctr / (1.0 - network.config.initial_ctr))
    q_mu = m0 + lower @ exact["mean"]
    spread = lower @ torch.diag(torch.exp(2.0 * exact["log_sd"])) @ lower.T
    solved = torch.linalg.solve(k_zz, kernel(z, place))  # KZZ^-1 k_Zx
    mean = m0 + solved.T @ (q_mu - m0)
    prior = AMPLITUDE**2 - (kernel(z, place) * solved).sum(0)
    q, p = (MultivariateNormal(torch.full_like(q_mu, m0) if one is k_zz else q_mu, one) for one in (spread, k_zz))
    return mean, prior + (solved * (spread @ solved)).sum(0), kl_divergence(q, p), place


def test_mean_and_variance_are_those_of_the_dense_formulas(case, network):
    belief, state, hidden = case
    prepared = belief.prepare(network, state)
    assert all(value.is_contiguous() for value in prepared.values())  # or a checkpoint would write it another way round
    mean, variance = belief.posterior(network, state | prepared, hidden)
    expected_mean, expected_variance, _, _ = dense(network, state, hidden)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance.double(), expected_variance, rtol=1e-4, atol=1e-7)


def test_without_data_it_is_the_prior(network):
    belief = SparseGP(inducing=INDUCING)
    state = belief.init(network, torch.Generator().manual_seed(0)).trained
    hidden = torch.rand(COUNT, network.config.hidden[-1])
    mean, variance = belief.posterior(network, state | belief.prepare(network, state), hidden)
    torch.testing.assert_close(torch.sigmoid(mean), torch.full((COUNT,), network.config.initial_ctr))
    torch.testing.assert_close(variance, torch.full((COUNT,), AMPLITUDE**2))


def test_quadrature_equals_a_fine_sum(network):
    mean, variance = torch.tensor([-3.0, 0.5], dtype=torch.float64), torch.tensor([0.09, 2.0], dtype=torch.float64)
    belief = SparseGP(inducing=1)
    state = {name: value.double() for name, value in belief.init(network, torch.Generator()).trained.items()}
    found, spread = belief.moments(belief.prepare(network, state), mean, variance)
    grid = torch.linspace(-12.0, 12.0, 200_001, dtype=torch.float64)[:, None]
    density = torch.exp(-0.5 * (grid - mean) ** 2 / variance) / torch.sqrt(2.0 * math.pi * variance)
    density *= 24.0 / 200_000
    centre = (torch.sigmoid(grid) * density).sum(0)
    torch.testing.assert_close(found, centre, rtol=1e-5, atol=1e-9)
    expected = torch.sqrt(((torch.sigmoid(grid) - centre) ** 2 * density).sum(0))
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-9)


def test_the_loss_is_the_bound_and_the_pull_of_the_inducing_points(case, network):
    belief, state, hidden = case
    label = (torch.arange(COUNT) % 3 == 0).float()
    lesson = Lesson(None, label, None, Forward(hidden, (hidden,), hidden[:, :1]))
    found = belief.loss(network, {}, state, lesson, np.random.default_rng())
    mean, variance, divergence, place = dense(network, state, hidden)
    grid = torch.linspace(-8.0, 8.0, 40_001, dtype=torch.float64)[:, None]
    density = torch.exp(-0.5 * (grid - mean) ** 2 / variance) / torch.sqrt(2.0 * math.pi * variance)
    log_p = torch.where(label > 0, torch.nn.functional.logsigmoid(grid), torch.nn.functional.logsigmoid(-grid))
    likelihood = ((log_p * density).sum(0) * 16.0 / 40_000).mean()
    far = torch.cdist(place, state["inducing"].double()) ** 2
    kmeans = far.min(1).values.mean() + far.min(0).values.mean()
    assert float(found.detach()) == pytest.approx(float(-likelihood + 1e-6 * divergence + 0.1 * kmeans), rel=1e-5)


def test_points_on_top_of_each_other_do_not_break_it(case, network):
    belief, state, hidden = case
    state["inducing"] = torch.zeros(INDUCING, 2)
    mean, variance = belief.posterior(network, state | belief.prepare(network, state), hidden)
    assert torch.isfinite(mean).all()
    assert (variance > 0).all()
