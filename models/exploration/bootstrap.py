"""Bootstrap: each member learns its own resample of the history; one of them, picked at random, ranks.

References:
    [1] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.beliefs.belief import below
from models.beliefs.bootstrap import Bootstrap
from models.beliefs.members import Tables, member_input, speak
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class VanillaBootstrap:
    """An item whose few impressions brought no click is worthless to every member, for ever: see `guideboot`.

    Args:
        members: K; 5 in [1].
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        history: examples kept to be drawn from again. The paper keeps all; a stream cannot. Ours.
        replayed: examples drawn a step. Ours.
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    history: int = 10_000
    replayed: int = 256
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")
        if not (self.history >= 1 and self.replayed >= 1):
            raise ValueError(f"history and replayed must be at least 1, got {self.history} and {self.replayed}")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return (
            Bootstrap(
                name="bootstrap",
                members=self.members,
                tables=self.tables,
                resampling="poisson",
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
