"""Epsilon-greedy: a share of the requests is ordered at random, the others greedily."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.beliefs.belief import Belief, below
from models.beliefs.counts import Counts, Total, id_rows
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """The coin is tossed once a request, for the whole slate.

    Args:
        epsilon: share of random requests. Published by none of the papers; 0.1 is ours.
        horizon: examples over which epsilon falls to 0, in a line. None: it stays as it is.
        estimate: what greedy goes by: the "model", or, as in textbooks, "counts": clicks by impressions of the item.

    Propensities have a closed form only where epsilon stays and the model decides.
    """

    epsilon: float = 0.1
    horizon: int | None = None
    estimate: Literal["model", "counts"] = "model"

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon <= 1.0:
            raise ValueError(f"epsilon must lie in (0, 1], got {self.epsilon}; 0 is the method greedy")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {self.horizon}")

    @property
    def uniform_share(self) -> float | None:
        return self.epsilon if self.horizon is None and self.estimate == "model" else None

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        return (*((Total(),) if self.horizon else ()), *((Counts(),) if self.estimate == "counts" else ()))

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (
            NoiseInput(name="coin", distribution="uniform", scope="request", draws=1, width=1),
            NoiseInput(name="uniform", distribution="uniform", scope="candidate", draws=1, width=1),
        )

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        explore = inputs.noise["coin"][0, :, 0] < self._epsilon(params)  # (R,)
        zero = torch.zeros_like(p)
        score = torch.where(explore, inputs.noise["uniform"][0, :, 0], self._estimate(network, params, inputs, p))
        return Scores(p, score, zero, explore.to(p.dtype) + zero, zero, zero)

    def _epsilon(self, params: Params) -> Tensor | float:
        if self.horizon is None:
            return self.epsilon
        return self.epsilon * torch.clamp(1.0 - below(Total(), params)["examples"] / self.horizon, min=0.0)

    def _estimate(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor], p: Tensor) -> Tensor:
        """What the greedy requests are ordered by, (B,)."""
        if self.estimate == "model":
            return p
        state, rows = below(Counts(), params), id_rows(network.spec, inputs.batch)
        return state["clicked"][rows] / state["shown"][rows].clamp(min=1)
