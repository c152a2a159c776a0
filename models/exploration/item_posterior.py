"""Item posterior: the click model learns an item in small steps; what its clicks say beyond the model counts at once.

Suppose the truth is logit f(h) + b with b ~ N(0, prior_sd^2), a number of the item. With S and I of its examples
(`models.beliefs.residuals`) a Newton step from b = 0 finds its posterior, of variance 1 / (1 / prior_sd^2 + I) and
mean S times that. To first order in b the click probability then has

    mean m = f + w S  and variance w m (1 - m),  with w = f (1 - f) / (1 / prior_sd^2 + I)

where the variance is Beta's: for one f, m is the mean of a Beta distribution that began at f. Of rare clicks this is
the gamma-Poisson model of [1]: of C clicks where E were foreseen, m = f (a + C) / (a + E) with a = 1 / prior_sd^2.
Ours: the click model in the place of a rate. It learns what is counted here, too, and what it has learned counts twice
until I outweighs it.

Where items have groups (`models.beliefs.groups`), the same is done twice: by the group's sums f becomes the group's m,
and by the item's, of what that leaves unexplained, the item's. An item that is shown more than others of its group then
does not rank higher for it, as it would where the model has all of them too low.

References:
    [1] Agarwal, Chen, Elango 2009, "Spatio-temporal Models for Estimating Click-through Rate", WWW.
    [2] Chapelle, Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.groups import Groups, apart, group_column, raised
from models.beliefs.residuals import Residuals
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores

#: Of an item within its group: as prior_sd, and the share of z with which it is explored. Ours: variants of one thing
#: differ less, and are gone sooner. Tuned on tests of headlines alone.
_WITHIN_SD, _WITHIN_Z = 0.3, 0.25


@dataclass(frozen=True, kw_only=True)
class ItemPosterior:
    """score = m + z e sqrt(w m (1 - m)).

    Args:
        uncertainty: e is a normal number of the candidate and request ("thompson"), or 1 ("ucb").
        prior_sd: of what the model cannot know about a new item, or a new group, in log odds. Ours.
        z: standard deviations; below 1, as in [2], section 4, it explores less than the posterior has it.
    """

    initial_lambda: ClassVar[float] = 1.0
    beliefs: ClassVar[tuple[Residuals, Groups]] = (Residuals(), Groups())

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    prior_sd: float = 1.0
    z: float = 0.5

    def __post_init__(self) -> None:
        if not self.prior_sd > 0.0:
            raise ValueError(f"prior_sd must be above 0, got {self.prior_sd}")
        if not self.z >= 0.0:
            raise ValueError(f"z must not be negative, got {self.z}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (bonus.normal_input(),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        p = torch.sigmoid(network.logit(params, inputs.batch))
        residuals, groups = self.beliefs
        residual, information = residuals.of(network, below(residuals, params), inputs.batch)
        base, variance, z = p, torch.tensor(self.prior_sd**2), torch.tensor(self.z)
        if column := group_column(network.spec):
            grouped, effect = groups.effect(column, below(groups, params), inputs.batch, variance)
            base, residual = torch.where(grouped, raised(p, effect), p), residual - effect * information
            information = information * (base * (1.0 - base)) / (apart(p) * (1.0 - apart(p)))
            variance, z = torch.where(grouped, _WITHIN_SD**2, variance), torch.where(grouped, _WITHIN_Z * z, z)
        weight = base * (1.0 - base) / (1.0 / variance + information)
        mean = torch.clamp(base + weight * residual, 0.0, 1.0)  # far from 0, first order is too long a step
        e = bonus.normal(inputs.noise["normal"]).squeeze(1) if self.uncertainty == "thompson" else 1.0
        return bonus.add(p, mean + z * e * torch.sqrt(weight * mean * (1.0 - mean)) - p, inputs)
