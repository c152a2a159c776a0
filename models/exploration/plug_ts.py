"""PlugTS: Thompson sampling of the last layer alone, in the space of logits.

References:
    [1] "Pluggable Deep Thompson Sampling with Applications to Recommendation", SDM 2023; PlugTS and PlugTS-P.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.covariance import Covariance, check
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class PlugTS:
    """logit ~ N(s, nu sum_j lambda g_j^2 / U_j), g = [last hidden layer; 1], U = lambda + sum of g^2 over examples.

    Args:
        covariance: "diagonal", PlugTS, or "none", U = lambda: PlugTS-P.
        ridge: lambda; the middle of the grid 1, 0.1, 0.01 of [1].
        nu: the largest of the grid 1e-3, 1e-4, 1e-5 of [1].
        window: examples after which what was learned counts 1 / e of itself; ours. [1] learns anew from a window.
        scope: what shares a sample: a "candidate" has its own, as in [1]. Ours: all candidates of a "request", or all
            requests of a "version", share one sample of the last layer's weights.
    """

    initial_lambda: ClassVar[float] = 1.0

    covariance: Literal["diagonal", "none"] = "diagonal"
    ridge: float = 0.1
    nu: float = 1e-3
    window: int | None = None
    scope: Scope = "candidate"

    def __post_init__(self) -> None:
        check(ridge=self.ridge, nu=self.nu, window=self.window)

    @property
    def beliefs(self) -> tuple[Covariance, ...]:
        if self.covariance == "none":
            return ()
        return (Covariance(name="plug_ts", of="logit", layers="last", ridge=self.ridge, window=self.window),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        weights = network.config.hidden[-1] + 1
        return (bonus.normal_input(self.scope, 1 if self.scope == "candidate" else weights),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        logit = at.logit.squeeze(1)
        gradient = torch.cat([at.hidden[-1], torch.ones_like(at.logit)], dim=1)  # (B, H + 1)
        each = gradient * (self.nu * self._unlearned(params)) ** 0.5
        normal = bonus.normal(inputs.noise["normal"])  # (R, 1) or (R, H + 1)
        if self.scope == "candidate":
            moved = torch.sqrt((each**2).sum(1)) * normal.squeeze(1)
        else:
            moved = (each * normal).sum(1)
        p = torch.sigmoid(logit)
        return bonus.add(p, torch.sigmoid(logit + moved) - p, inputs)

    def _unlearned(self, params: Params) -> Tensor | float:
        """lambda / U, (H + 1,) or 1."""
        if self.covariance == "none":
            return 1.0
        state = below(self.beliefs[0], params)
        return torch.cat([state["prepared.mlp.out.weight"], state["prepared.mlp.out.bias"].reshape(1)])
