"""Random: every order is equally likely, so its logs are unbiased evidence about any policy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Random:
    """A uniform score for each candidate of each request."""

    uniform_share = 1.0

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (NoiseInput(name="uniform", distribution="uniform", scope="candidate", draws=1, width=1),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        zero = torch.zeros_like(p)
        return Scores(p, inputs.noise["uniform"][0, :, 0] + zero, zero, torch.ones_like(p), zero, zero)
