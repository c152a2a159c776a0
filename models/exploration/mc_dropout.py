"""MC dropout: the network under a random mask is a sample of what it might have learned.

References:
    [1] Gal, Ghahramani 2016, "Dropout as a Bayesian Approximation", ICML, arXiv:1506.02142.
    [2] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: masks of the last hidden layer, rate 0.1.
    [3] Guo et al. 2020, "Deep Bayesian Bandits", RecSys, arXiv:2008.00727: the hybrid, one trunk and cheap heads, and
        full dropout.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.networks.click import ClickNetwork, Dropout, Params
from models.networks.masks import mask_input
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class McDropout:
    """Samples of the click model itself: no state. Its own training dropout is the network's setting.

    Args:
        uncertainty: "thompson", the prediction under one mask, or "ucb", p plus the standard deviation under `draws`.
        draws: of ucb; 20 as of AGE.
        dropout: "last_layer" [2], the hybrid of [3], or "full", all hidden layers.
        rate: of the masks; 0.1 in [2].
        mask_scope: what shares a mask: the candidates of a request, nothing, or all requests of a model version.
        novelty: c0: an item shown n times moves by sqrt(c0 / (c0 + n)) as much. Ours; None: all items alike.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    draws: int = 20
    dropout: Dropout = "last_layer"
    rate: float = 0.1
    mask_scope: Scope = "request"
    novelty: float | None = None

    def __post_init__(self) -> None:
        if self.uncertainty == "ucb" and self.draws < 2:
            raise ValueError(f"ucb needs draws >= 2 for a spread, got {self.draws}")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}: without dropout there is no uncertainty")
        if self.novelty is not None and not self.novelty > 0.0:
            raise ValueError(f"novelty must be above 0, got {self.novelty}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        draws = self.draws if self.uncertainty == "ucb" else 1
        masks = mask_input(network, dropout=self.dropout, draws=draws, scope=self.mask_scope, rate=self.rate)
        return (masks,)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        p = torch.sigmoid(at.logit.squeeze(1))
        draws = torch.sigmoid(network.draws(params, at.hidden, inputs.noise["masks"], self.dropout))  # (S, B)
        moved = draws[0] - p if self.uncertainty == "thompson" else bonus.deviation(draws)
        if self.novelty is not None:
            moved = moved * bonus.novelty(inputs.impressions, self.novelty, p.dtype)
        return bonus.add(p, moved, inputs)
