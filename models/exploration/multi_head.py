"""Multi-head bootstrap: one trunk, several last layers, each of which saw its own part of the examples.

References:
    [1] Guo et al. 2020, "Deep Bayesian Bandits: Exploring in Online Personalized Recommendations", RecSys,
        arXiv:2008.00727.
    [2] Osband, Blundell, Pritzel, Van Roy 2016, "Deep Exploration via Bootstrapped DQN", NeurIPS, arXiv:1602.04621.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.heads import Heads
from models.beliefs.members import member_input, picked
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """Costs one product with K columns beyond the click model.

    Args:
        uncertainty: "thompson", one head speaks, or "ucb", p plus the heads' standard deviation.
        heads: K, published nowhere; 10 as in [2].
        share: with which probability a head learns an example; 0.5 as in [2].
        scope: of thompson: what shares a head: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    heads: int = 10
    share: float = 0.5
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if self.heads < 2:
            raise ValueError(f"heads must be at least 2 to differ, got {self.heads}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")

    @property
    def beliefs(self) -> tuple[Heads]:
        return (Heads(count=self.heads, share=self.share),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        p = torch.sigmoid(at.logit.squeeze(1))
        each = torch.sigmoid(belief.logits(below(belief, params), at.hidden[-1]))  # (K, B)
        if self.uncertainty == "ucb":
            return bonus.add(p, bonus.deviation(each), inputs)
        return bonus.add(p, picked(each, inputs.noise["member"]) - p, inputs)
