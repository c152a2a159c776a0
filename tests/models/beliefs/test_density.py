"""The mixture density against torch.distributions and numerical integrals."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from models.beliefs.belief import Lesson
from models.beliefs.density import Density, Mixture
from models.networks.click import Forward, tensors

COUNT = 6


@pytest.fixture
def mixture():
    generator = torch.Generator().manual_seed(0)
    weight, mean, spread = (torch.rand(COUNT, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    return Mixture(torch.log_softmax(weight, 1), mean, 0.01 + 0.1 * spread)


def test_the_likelihood_is_that_of_a_mixture_with_wider_components(mixture):
    y, noise = torch.rand(COUNT, dtype=torch.float64), 0.05 * torch.rand(COUNT, dtype=torch.float64)
    wide = Normal(mixture.mean, torch.sqrt(mixture.variance + noise[:, None]))
    expected = MixtureSameFamily(Categorical(logits=mixture.log_weight), wide).log_prob(y)
    torch.testing.assert_close(mixture.log_likelihood(y, noise), expected)


def test_the_density_integrates_to_one(mixture):
    grid = torch.linspace(-6.0, 7.0, 4_001, dtype=torch.float64)
    density = torch.stack([torch.exp(mixture.log_likelihood(y.expand(COUNT), torch.full((COUNT,), 0.1))) for y in grid])
    torch.testing.assert_close(density.sum(0) * 13.0 / 4_000, torch.ones(COUNT, dtype=torch.float64), rtol=1e-6, atol=0)


def test_moments_leave_the_measurement_noise_out(mixture):
    same = MixtureSameFamily(Categorical(logits=mixture.log_weight), Normal(mixture.mean, mixture.variance.sqrt()))
    mean, variance = mixture.moments()
    torch.testing.assert_close(mean, same.mean)
    torch.testing.assert_close(variance, same.variance)


def test_it_learns_from_the_rate_of_each_item_and_its_noise(network, make_request):
    belief = Density(components=2)
    fresh = belief.init(network, torch.Generator().manual_seed(0))
    state = fresh.trained | fresh.private
    batch, ids = make_request(COUNT, seed=1)
    repeated = batch._replace(
        item_index=np.repeat(batch.item_index, 4, 0), item_weight=np.repeat(batch.item_weight, 4, 0)
    )
    label = torch.tensor([1.0, 0.0, 0.0, 1.0] * COUNT)
    hidden = torch.rand(4 * COUNT, network.config.hidden[-1], generator=torch.Generator().manual_seed(2))
    lesson = Lesson(tensors(repeated), label, None, Forward(hidden, (hidden,), hidden[:, :1]))
    belief.note(network, {}, state, lesson, np.random.default_rng())
    assert len(set(ids)) == COUNT
    assert sorted(state["shown"][state["shown"] > 0].tolist()) == [4] * COUNT  # no two ids share a bucket
    found = belief.loss(network, {}, state, lesson, np.random.default_rng())
    ctr = network.config.initial_ctr
    q = (2.0 + 10.0 * ctr) / (4.0 + 10.0)
    noise = torch.full((4 * COUNT,), q * (1.0 - q) / 4.0)
    expected = -belief.mixture(state, hidden).log_likelihood(torch.full((4 * COUNT,), 0.5), noise).mean()
    torch.testing.assert_close(found, expected)


def test_a_fresh_one_is_about_the_initial_rate(network):
    belief = Density(components=2)
    state = belief.init(network, torch.Generator().manual_seed(0)).trained
    hidden = torch.zeros(1, network.config.hidden[-1])
    mean, variance = belief.mixture(state, hidden).moments()
    assert mean.item() == pytest.approx(network.config.initial_ctr)
    assert variance.sqrt().item() == pytest.approx(network.config.initial_ctr, rel=1e-3)
