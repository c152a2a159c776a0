"""Ensemble: several models, and what they disagree about is uncertain.

References:
    [1] Wu et al. 2021, arXiv:2112.11136v1, section 5.4: Ensemble-TS and Ensemble-UCB, of 5 models.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models import bonus
from models.beliefs.belief import below
from models.beliefs.ensemble import Ensemble as Belief
from models.beliefs.members import Tables, member_input, speak
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Beside the click model, whose prediction stays the one that is reported.

    Args:
        uncertainty: "thompson", the score is that of one member, or "ucb", p plus the members' standard deviation.
        members: K; 5 in [1].
        tables: "own", complete models as in [1], or "shared", MLPs on the click model's embeddings: a K-th of the
            memory, and little disagreement about new items.
        scope: of thompson: what shares a member, the candidates of a request or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    members: int = 5
    tables: Tables = "own"
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"an ensemble needs members >= 2 to disagree, got {self.members}")

    @property
    def beliefs(self) -> tuple[Belief]:
        return (Belief(members=self.members, tables=self.tables),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),) if self.uncertainty == "thompson" else ()

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        state = below(belief, params)
        if self.uncertainty == "thompson":
            return speak(belief.shape, network, params, state, inputs)
        p = torch.sigmoid(network.logit(params, inputs.batch))
        each = torch.sigmoid(belief.shape.logits(network, params, state, inputs.batch))  # (K, B)
        return bonus.add(p, bonus.deviation(each), inputs)
