"""Deep-UCB1: the model's prediction, and UCB1's bonus by impressions.

References:
    [1] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
    [2] Auer, Cesa-Bianchi, Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine Learning 47.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.counts import Total
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class DeepUcb1:
    """score = f + coefficient sqrt(log t / n), with t examples learned and n impressions of the item, at least 1.

    Args:
        coefficient: an "empirical choice" of [1], lost from our copy; 0.1 is ours.
    """

    initial_lambda: ClassVar[float] = 1.0
    beliefs: ClassVar[tuple[Total]] = (Total(),)

    coefficient: float = 0.1

    def __post_init__(self) -> None:
        if not self.coefficient > 0.0:
            raise ValueError(f"coefficient must be above 0, got {self.coefficient}; 0 is the method greedy")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        log_t = torch.log(below(self.beliefs[0], params)["examples"].to(p.dtype).clamp(min=1.0))
        return bonus.add(
            p, self.coefficient * torch.sqrt(log_t / inputs.impressions.to(p.dtype).clamp(min=1.0)), inputs
        )
