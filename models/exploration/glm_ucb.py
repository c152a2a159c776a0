"""GLM-UCB: the upper confidence bound of a generalised linear model on the features.

References:
    [1] Filippi, Cappe, Garivier, Szepesvari 2010, "Parametric Bandits: The Generalized Linear Case", NeurIPS.
    [2] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name, with a Bayesian model.
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
class GlmUcb:
    """score = sigmoid(m.x + coefficient sqrt(log t) |x|), |x|^2 = x' diag(q)^-1 x, after t examples.

    [1] adds the bound to the probability, with the full design matrix; here it is that of the logit, and the diagonal
    posterior of `models.beliefs.logistic`, which `ts_blr` can share.

    Args:
        coefficient: of the bound, lost from our copy of [2]; 1 is ours.
        precision: of the prior of each weight. Ours.
    """

    initial_lambda: ClassVar[float] = 1.0

    coefficient: float = 1.0
    precision: float = 1.0

    def __post_init__(self) -> None:
        if not (self.coefficient > 0.0 and self.precision > 0.0):
            raise ValueError(f"coefficient and precision must be above 0, got {self}")

    @property
    def beliefs(self) -> tuple[Logistic]:
        return (Logistic(precision=self.precision),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        state = below(belief, params)
        p = torch.sigmoid(network.logit(params, inputs.batch))
        mean, variance = belief.posterior(network, state, inputs.batch)
        log_t = torch.log(state["examples"].to(p.dtype).clamp(min=1.0))
        bound = mean + self.coefficient * torch.sqrt(log_t * variance)
        return bonus.add(p, torch.sigmoid(bound) - p, inputs)
