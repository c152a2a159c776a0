"""Online GuideBoot: `guideboot` from the stream alone. Every example is learned once, with its fakes.

A batch of the learner stands for the paper's buffer, as one mini-batch: its members share the order of the examples.

References:
    [1] Pan et al. 2021, "GuideBoot: Guided Bootstrap for Deep Contextual Bandits in Online Advertising", WWW,
        arXiv:2107.08383, Algorithm 3.
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
class OnlineGuideBoot:
    """One member, picked at random, ranks; what they differ in is where they began and which fakes they learn.

    Args:
        members: K; 5 in [1].
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        alpha: pseudo impressions of each sign, lost from our copy of [1]; 1, the uniform prior, is ours.
        guidance: fakes by the impressions of the "item", [1] eq. (6), or of all "fields", eq. (7).
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    alpha: float = 1.0
    guidance: Guidance = "item"
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}; 0 is the method online_bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return (
            Bootstrap(
                name="online_guideboot",
                members=self.members,
                tables=self.tables,
                resampling="none",
                alpha=self.alpha,
                guidance=self.guidance,
            ),
        )

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        return speak(belief.shape, network, params, below(belief, params), inputs)
