"""TS-BLR: Thompson sampling with a Bayesian logistic regression on the features.

References:
    [1] Chapelle, Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS.
    [2] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.logistic import Logistic
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class TsBlr:
    """score = sigmoid(w.x), the logit drawn from its posterior, each candidate its own; see `models.beliefs.logistic`.

    Args:
        precision: of the prior of each weight. Ours.
    """

    initial_lambda: ClassVar[float] = 1.0

    precision: float = 1.0

    def __post_init__(self) -> None:
        if not self.precision > 0.0:
            raise ValueError(f"precision must be above 0, got {self.precision}")

    @property
    def beliefs(self) -> tuple[Logistic]:
        return (Logistic(precision=self.precision),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        state = below(belief, params)
        p = torch.sigmoid(network.logit(params, inputs.batch))
        mean, variance = belief.posterior(network, state, inputs.batch)
        drawn = mean + torch.sqrt(variance) * bonus.normal(inputs.noise["normal"]).squeeze(1)
        return bonus.add(p, torch.sigmoid(drawn) - p, inputs)
