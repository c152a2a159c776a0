"""Greedy: the model's prediction is the score."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.types import Batch, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """No exploration; what every method is measured against."""

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(
        self,
        network: ClickNetwork,
        params: Params,
        batch: Batch[Tensor],
        noise: Mapping[str, Tensor],
        lambda_: Tensor,
        impressions: Tensor,
    ) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, network.embed(params, batch)))
        zero = torch.zeros_like(p)
        return Scores(p, p, zero, zero, zero, zero)
