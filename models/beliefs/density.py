"""Deep density network: a mixture of normal distributions over an item's click rate, given what the click model sees.

The label is the item's empirical rate after r impressions, which is noisy the more the fewer they are; the likelihood
knows that noise and so leaves the mixture to what is uncertain about the rate itself:

    y ~ sum_i alpha_i N(mu_i, sigma_i^2 + sigma_eps(r)^2),    sigma_eps(r)^2 = q (1 - q) / r

q is the smoothed rate. The likelihood is published [1], the form of sigma_eps and the sizes are ours.

References:
    [1] Zeldes, Theodorakis, Solodnik, Rotman, Chamiel, Friedman 2017, "Deep Density Networks and Uncertainty in
        Recommender Systems", arXiv:1711.02487.
    [2] Bishop 1994, "Mixture Density Networks", Aston University.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.counts import id_column, id_rows
from models.networks.click import ClickNetwork, Params

#: Impressions at the initial rate that smooth an item's own.
_SMOOTHING = 10.0
#: No component may collapse onto one label.
_LEAST_VARIANCE = 1e-8


class Mixture(NamedTuple):
    """Of C components, (B, C) each."""

    log_weight: Tensor
    mean: Tensor  # in (0, 1)
    variance: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the whole, (B,) each, without measurement noise."""
        weight = torch.exp(self.log_weight)
        mean = (weight * self.mean).sum(1)
        # The same as E[y^2] - mean^2, without its cancellation.
        return mean, (weight * (self.variance + (self.mean - mean[:, None]) ** 2)).sum(1)

    def log_likelihood(self, y: Tensor, noise: Tensor) -> Tensor:
        """Log density (B,) of labels (B,) whose measurement noise has the variances (B,)."""
        variance = self.variance + noise[:, None]
        square = (y[:, None] - self.mean) ** 2 / variance
        return torch.logsumexp(self.log_weight - 0.5 * (square + torch.log(2.0 * math.pi * variance)), dim=1)


@dataclass(frozen=True, kw_only=True)
class Density(Belief):
    """The mixture's head on the click model's last hidden layer, which learns nothing from it.

    Args:
        components: C.
    """

    components: int
    name: str = "density"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        units, ctr = network.config.hidden[-1], network.config.initial_ctr
        rows, count = id_column(network.spec).field.rows, self.components
        weight = torch.randn(3 * count, units, generator=generator) * 0.1 / math.sqrt(units)
        # Equal weights, means about the initial rate, and standard deviations as large as it.
        start = torch.tensor([0.0, math.log(ctr / (1.0 - ctr)), 2.0 * math.log(ctr)])
        return State(
            trained={"weight": weight, "bias": start.repeat_interleave(count)},
            private={name: torch.zeros(rows, dtype=torch.int64) for name in ("shown", "clicked")},
        )

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        rows = id_rows(network.spec, lesson.batch)
        state["shown"].index_add_(0, rows, torch.ones_like(rows))
        state["clicked"].index_add_(0, rows, lesson.label.long())

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor:
        rows, ctr = id_rows(network.spec, lesson.batch), network.config.initial_ctr
        shown, clicked = state["shown"][rows].float(), state["clicked"][rows].float()
        smooth = (clicked + _SMOOTHING * ctr) / (shown + _SMOOTHING)
        noise = smooth * (1.0 - smooth) / shown
        return -self.mixture(state, lesson.at.hidden[-1]).log_likelihood(clicked / shown, noise).mean()

    def mixture(self, state: Params, hidden: Tensor) -> Mixture:
        """From the last hidden layer (B, H)."""
        out = functional.linear(hidden, state["weight"], state["bias"])
        weight, mean, log_variance = (
            out[:, first * self.components : (first + 1) * self.components] for first in range(3)
        )
        variance = torch.exp(log_variance) + _LEAST_VARIANCE
        return Mixture(functional.log_softmax(weight, dim=1), torch.sigmoid(mean), variance)
