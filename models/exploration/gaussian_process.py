"""Gaussian process: a posterior over functions of the last hidden layer says how sure the prediction is.

References:
    [1] Du et al. 2021, "Exploration in Online Advertising Systems with Deep Uncertainty-Aware Learning" (DUAL), KDD,
        arXiv:2012.02298.
    [2] Wu et al. 2021, arXiv:2112.11136v1, section 5.4: GP-TS and GP-UCB.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.sparse_gp import SparseGP
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class GaussianProcess:
    """GP-TS and GP-UCB; see `models.beliefs.sparse_gp`.

    Args:
        uncertainty: "thompson", sigmoid of a logit drawn from the posterior, each candidate its own, or "ucb", mean
            click probability plus its standard deviation.
        inducing: M; 200 in [1]. Training pays its cube every step, ranking its square for every candidate.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    inducing: int = 200

    def __post_init__(self) -> None:
        if self.inducing < 1:
            raise ValueError(f"inducing must be at least 1, got {self.inducing}")

    @property
    def beliefs(self) -> tuple[SparseGP]:
        return (SparseGP(inducing=self.inducing),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        state = below(belief, params)
        mean, variance = belief.posterior(network, state, at.hidden[-1])
        p = torch.sigmoid(at.logit.squeeze(1))
        if self.uncertainty == "thompson":
            drawn = mean + torch.sqrt(variance) * bonus.normal(inputs.noise["normal"]).squeeze(1)
            return bonus.add(p, torch.sigmoid(drawn) - p, inputs)
        centre, spread = belief.moments(state, mean, variance)
        return bonus.add(p, centre + spread - p, inputs)
