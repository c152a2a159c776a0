"""Vanilla UCB: an item's empirical click rate and its binomial confidence bound. What it is does not count.

References:
    [1] Naor, Zeldes 2018, "Recommender Systems: Exploring the Unknown Using Uncertainty", Taboola: the baseline of deep
        density networks.
    [2] Agresti, Coull 1998, "Approximate Is Better than 'Exact' for Interval Estimation of Binomial Proportions".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.counts import Counts, id_rows
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class CountUcb:
    """score = r + z sqrt(r (1 - r) / m), r = (clicks + prior) / m, m = impressions + 2 prior.

    Args:
        z: standard deviations; 1.96, the bound of 95 %, is ours: [1] has none.
        prior: pseudo impressions of each sign [2], so that an item never shown has a rate: 1/2.
    """

    initial_lambda: ClassVar[float] = 1.0
    beliefs: ClassVar[tuple[Counts]] = (Counts(),)

    z: float = 1.96
    prior: float = 1.0

    def __post_init__(self) -> None:
        if not (self.z >= 0.0 and self.prior > 0.0):
            raise ValueError(f"z must not be negative and prior above 0, got {self.z} and {self.prior}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        state, rows = below(self.beliefs[0], params), id_rows(network.spec, inputs.batch)
        trials = state["shown"][rows].to(p.dtype) + 2.0 * self.prior
        rate = (state["clicked"][rows].to(p.dtype) + self.prior) / trials
        return bonus.add(p, rate + self.z * torch.sqrt(rate * (1.0 - rate) / trials) - p, inputs)
