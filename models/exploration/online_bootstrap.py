"""OBB, the online bootstrap: each member learns each example as often as Poisson(1) says, and never again.

References:
    [1] Tang et al. 2015, "Personalized Recommendation via Parameter-Free Contextual Bandits", SIGIR.
    [2] Owen, Eckles 2012, "Bootstrapping data arrays of arbitrary order", Ann. Appl. Statist.: double or nothing.
    [3] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline OBB.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.beliefs.belief import below
from models.beliefs.bootstrap import Bootstrap, Resampling
from models.beliefs.members import Tables, member_input, speak
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class OnlineBootstrap:
    """Needs no history, and learns at the pace of the stream.

    Args:
        members: K; 5 in [3].
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        resampling: "poisson" [1], "double_or_nothing" [2], or "none": members differ in where they began.
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    resampling: Resampling = "poisson"
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return (
            Bootstrap(
                name="online_bootstrap",
                members=self.members,
                tables=self.tables,
                resampling=self.resampling,
            ),
        )

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        return speak(belief.shape, network, params, below(belief, params), inputs)
