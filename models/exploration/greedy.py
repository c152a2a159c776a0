"""Greedy: the model's prediction is the score."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """No exploration; what every method is measured against."""

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        zero = torch.zeros_like(p)
        return Scores(p, p, zero, zero, zero, zero)
