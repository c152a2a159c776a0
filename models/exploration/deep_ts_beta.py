"""Deep-TS-Beta: a Beta distribution about the model's prediction, as wide as impressions are few.

References:
    [1] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
    [2] Chapelle, Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS: posterior reshaping.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import bonus
from models.beta import beta, beta_input
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class DeepTsBeta:
    """score ~ Beta(a, b) of mean f, a + b = (n + prior) / reshaping, n the impressions of the item.

    Args:
        reshaping: below 1 the distribution is narrower and exploration weaker [2]; the value of [1] is lost from our
            copy. 1, none, is ours.
        prior: impressions that every item is given, so that a new one has a distribution. Ours.
    """

    initial_lambda: ClassVar[float] = 1.0

    reshaping: float = 1.0
    prior: float = 1.0

    def __post_init__(self) -> None:
        if not (self.reshaping > 0.0 and self.prior > 0.0):
            raise ValueError(f"reshaping and prior must be above 0, got {self.reshaping} and {self.prior}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (beta_input(),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        both = (inputs.impressions.to(p.dtype) + self.prior) / self.reshaping
        return bonus.add(p, beta(both * p, both * (1.0 - p), inputs.noise["beta"]) - p, inputs)
