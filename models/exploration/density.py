"""Deep density network with UCB: the click rate as a distribution, and the more uncertain item is lifted more.

References:
    [1] Zeldes et al. 2017, "Deep Density Networks and Uncertainty in Recommender Systems", arXiv:1711.02487.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.density import Density as Belief
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Density:
    """score = mu + a sigma of the mixture, without measurement noise; see `models.beliefs.density`.

    Args:
        a: standard deviations; [1] compares several. 1 is ours.
        components: of the mixture, published nowhere; 3 is ours.
    """

    initial_lambda: ClassVar[float] = 1.0

    a: float = 1.0
    components: int = 3

    def __post_init__(self) -> None:
        if not (self.a >= 0.0 and self.components >= 1):
            raise ValueError(f"a must not be negative, and components at least 1, got {self.a} and {self.components}")

    @property
    def beliefs(self) -> tuple[Belief]:
        return (Belief(components=self.components),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        mean, variance = belief.mixture(below(belief, params), at.hidden[-1]).moments()
        p = torch.sigmoid(at.logit.squeeze(1))
        return bonus.add(p, mean + self.a * torch.sqrt(variance) - p, inputs)
