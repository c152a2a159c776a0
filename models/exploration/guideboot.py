"""GuideBoot: members also learn fake examples, clicked and not, the more of them the less the example is known.

The fakes stand for a prior Beta(alpha, alpha) of every item's click probability, so that no few impressions make an
item hopeless; they thin out as impressions come.

References:
    [1] Pan et al. 2021, "GuideBoot: Guided Bootstrap for Deep Contextual Bandits in Online Advertising", WWW,
        arXiv:2107.08383, Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.beliefs.belief import below
from models.beliefs.bootstrap import Bootstrap, Guidance
from models.beliefs.members import Tables, member_input, speak
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class GuideBoot:
    """One member, picked at random, ranks, [1] eq. (1); all learn from a resampled history.

    Args:
        members: K; 5 in [1].
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        alpha: pseudo impressions of each sign, lost from our copy of [1]; 1, the uniform prior, is ours.
        guidance: fakes by the impressions of the "item", [1] eq. (6), or of all "fields", eq. (7).
        history: examples kept to be drawn from again. The paper keeps all; a stream cannot. Ours.
        replayed: examples drawn a step. Ours.
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    alpha: float = 1.0
    guidance: Guidance = "item"
    history: int = 10_000
    replayed: int = 256
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")
        if not (self.history >= 1 and self.replayed >= 1):
            raise ValueError(f"history and replayed must be at least 1, got {self.history} and {self.replayed}")
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}; 0 is the method bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return (
            Bootstrap(
                name="guideboot",
                members=self.members,
                tables=self.tables,
                resampling="poisson",
                alpha=self.alpha,
                guidance=self.guidance,
                history=self.history,
                replayed=self.replayed,
            ),
        )

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        return speak(belief.shape, network, params, below(belief, params), inputs)
