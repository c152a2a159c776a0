"""Giro: garbage in, reward out. With every example pairs of pseudo examples enter the history, clicked and not.

References:
    [1] Kveton et al. 2019, "Garbage In, Reward Out: Bootstrapping Exploration in Multi-Armed Bandits", ICML,
        arXiv:1811.05154.
    [2] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
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
class Giro:
    """Members see an item more optimistic or pessimistic than it is, but never cease to: the pairs do not thin out.

    Args:
        members: K; 5 in [2].
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        pseudo: a, pairs an example; 1 in [1]'s analysis. [2] found large values unacceptable for ads; its own is lost.
        history: examples kept to be drawn from again. The paper keeps all; a stream cannot. Ours.
        replayed: examples drawn a step. Ours.
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    pseudo: float = 1.0
    history: int = 10_000
    replayed: int = 256
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")
        if not (self.history >= 1 and self.replayed >= 1):
            raise ValueError(f"history and replayed must be at least 1, got {self.history} and {self.replayed}")
        if not self.pseudo > 0.0:
            raise ValueError(f"pseudo must be above 0, got {self.pseudo}; 0 is the method bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return (
            Bootstrap(
                name="giro",
                members=self.members,
                tables=self.tables,
                resampling="poisson",
                pseudo=self.pseudo,
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
