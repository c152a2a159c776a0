"""Gradient: the prediction is as uncertain as the gradient of the weights is long, where little was learned along it.

References:
    [1] Wu et al. 2021, arXiv:2112.11136v1, section 5.4: Gradient-TS and Gradient-UCB.
    [2] Zhang, Zhou, Li, Gu 2021, "Neural Thompson Sampling", ICLR, arXiv:2010.00827.
    [3] Zhou, Li, Gu 2020, "Neural Contextual Bandits with UCB-based Exploration", ICML, arXiv:1911.04462.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.covariance import Covariance, check
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """NeuralTS and NeuralUCB with a diagonal covariance, and the bare norm.

    Args:
        uncertainty: "thompson", a normal number times sigma, each candidate its own [2], or "ucb", sigma [3].
        covariance: "diagonal" U of what was learned, or "none", the bare norm of the gradient, which never shrinks:
            what [1] says in words.
        layers: "all" weights, embeddings among them, or the "last" layer's.
        ridge: lambda of [2], U before anything was learned; 0.001 in its code.
        nu: of [2]: sigma^2 is proportional to it; 1 in its code.
        window: examples after which what was learned counts 1 / e of itself. Ours; None, as in [2]: for ever.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    covariance: Literal["diagonal", "none"] = "diagonal"
    layers: Literal["all", "last"] = "all"
    ridge: float = 0.001
    nu: float = 1.0
    window: int | None = None

    def __post_init__(self) -> None:
        check(ridge=self.ridge, nu=self.nu, window=self.window)

    @property
    def beliefs(self) -> tuple[Covariance, ...]:
        return (self._covariance,) if self.covariance == "diagonal" else ()

    @property
    def _covariance(self) -> Covariance:
        return Covariance(name="gradient", of="probability", layers=self.layers, ridge=self.ridge, window=self.window)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        at = network.forward(params, network.first(params, *network.embed(params, inputs.batch)))
        belief = self._covariance
        state = below(belief, params) if self.covariance == "diagonal" else None
        sigma = torch.sqrt(self.nu * belief.variance(network, params, state, inputs.batch, at))
        if self.uncertainty == "thompson":
            sigma = sigma * bonus.normal(inputs.noise["normal"]).squeeze(1)
        return bonus.add(torch.sigmoid(at.logit.squeeze(1)), sigma, inputs)
