"""Item Laplace: the click model may be wrong about an item's own log odds, the less so the more it was shown.

Suppose the truth is logit f(h) + b with b ~ N(0, prior_sd^2), a number of the item. Each impression of the item tells
f (1 - f) about b, its Fisher information, so after n of them the posterior's standard deviation is, by Laplace [1],

    sigma = 1 / sqrt(1 / prior_sd^2 + n f (1 - f))

while its mean is what the click model learns. Ours: [2], for a single coefficient whose mean another model learns.

References:
    [1] MacKay 1992, "The Evidence Framework Applied to Classification Networks", Neural Computation 4.
    [2] Chapelle, Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS: algorithm 3.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class ItemLaplace:
    """score = sigmoid(logit f + z sigma).

    Args:
        uncertainty: z is 1 ("ucb"), or a normal number of the candidate and request ("thompson").
        prior_sd: of what the model cannot know about a new item, in log odds. Ours.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "ucb"
    prior_sd: float = 0.5

    def __post_init__(self) -> None:
        if not self.prior_sd > 0.0:
            raise ValueError(f"prior_sd must be above 0, got {self.prior_sd}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        logit = network.logit(params, inputs.batch)
        p = torch.sigmoid(logit)
        known = inputs.impressions.to(p.dtype) * p * (1.0 - p)
        sigma = torch.rsqrt(1.0 / self.prior_sd**2 + known)
        z = bonus.normal(inputs.noise["normal"]).squeeze(1) if self.uncertainty == "thompson" else 1.0
        return bonus.add(p, torch.sigmoid(logit + z * sigma) - p, inputs)
