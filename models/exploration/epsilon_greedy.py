"""Epsilon-greedy: a share of the requests is ordered at random, the others greedily."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """The coin is tossed once a request, for the whole slate.

    Args:
        epsilon: share of random requests. Published by none of the papers; 0.1 is ours.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon <= 1.0:
            raise ValueError(f"epsilon must lie in (0, 1], got {self.epsilon}; 0 is the method greedy")

    @property
    def uniform_share(self) -> float:
        return self.epsilon

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (
            NoiseInput(name="coin", distribution="uniform", scope="request", draws=1, width=1),
            NoiseInput(name="uniform", distribution="uniform", scope="candidate", draws=1, width=1),
        )

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        explore = inputs.noise["coin"][0, :, 0] < self.epsilon  # (R,)
        zero = torch.zeros_like(p)
        score = torch.where(explore, inputs.noise["uniform"][0, :, 0], p)
        return Scores(p, score, zero, explore.to(p.dtype) + zero, zero, zero)
