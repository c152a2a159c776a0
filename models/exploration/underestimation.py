"""Underestimation refinement: what was shown little is likelier under- than overestimated, and is only ever lifted.

The paper [1] is known to us by its abstract alone: it "explicitly incorporates the prior knowledge that insufficient
impressions likely leads to CTR underestimation" and improves every method, UCB among them. The formula is ours.

References:
    [1] Song et al. 2021, "Underestimation Refinement: A General Enhancement Strategy for Exploration in Recommendation
        Systems", SIGIR, doi:10.1145/3404835.3462983.
    [2] Zhang, Zhou, Li, Gu 2021, "Neural Thompson Sampling", ICLR, arXiv:2010.00827.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.covariance import Covariance, check
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Underestimation:
    """UR-gradient: the sigma of `gradient`, which it can share, times n0 / (n0 + n), and never downwards.

    Args:
        uncertainty: "thompson", the absolute value of a normal number times sigma, or "ucb", sigma.
        impressions: n0, after so many an item is lifted half as much. Ours.
        layers, ridge, nu, window: as of `models.exploration.gradient.Gradient`.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    impressions: float = 1_000.0
    layers: Literal["all", "last"] = "all"
    ridge: float = 0.001
    nu: float = 1.0
    window: int | None = None

    def __post_init__(self) -> None:
        check(ridge=self.ridge, nu=self.nu, window=self.window)
        if not self.impressions > 0.0:
            raise ValueError(f"impressions must be above 0, got {self.impressions}")

    @property
    def beliefs(self) -> tuple[Covariance]:
        return (
            Covariance(name="gradient", of="probability", layers=self.layers, ridge=self.ridge, window=self.window),
        )

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        (belief,) = self.beliefs
        sigma = torch.sqrt(self.nu * belief.variance(network, params, below(belief, params), inputs.batch, at))
        if self.uncertainty == "thompson":
            sigma = sigma * bonus.normal(inputs.noise["normal"]).squeeze(1).abs()
        weight = self.impressions / (self.impressions + inputs.impressions.to(sigma.dtype))
        return bonus.add(torch.sigmoid(at.logit.squeeze(1)), weight * sigma, inputs)
