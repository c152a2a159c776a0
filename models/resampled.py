"""Resampled: what the methods of the bootstrap family have in common. One of K members, picked at random, ranks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from models.beliefs.belief import below
from models.beliefs.bootstrap import Bootstrap
from models.beliefs.members import Tables, member_input, speak
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class Resampled(ABC):
    """A method whose members differ by the examples that they learn.

    Args:
        members: K; 5 in GuideBoot's paper, arXiv:2107.08383.
        tables: "own", complete models, or "shared", MLPs on the click model's embeddings.
        scope: what shares a member: the candidates of a request, or all requests of a version.
    """

    initial_lambda: ClassVar[float] = 1.0

    members: int = 5
    tables: Tables = "own"
    scope: Scope = "request"

    def __post_init__(self) -> None:
        if not self.members >= 2:
            raise ValueError(f"members must be at least 2 to differ, got {self.members}")

    @property
    @abstractmethod
    def beliefs(self) -> tuple[Bootstrap]:
        """The members and their examples."""

    def _bootstrap(self, name: str, **options: Any) -> tuple[Bootstrap]:
        return (Bootstrap(name=name, members=self.members, tables=self.tables, **options),)

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        return (member_input(self.scope),)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        (belief,) = self.beliefs
        return speak(belief.shape, network, params, below(belief, params), inputs)


@dataclass(frozen=True, kw_only=True)
class Replayed(Resampled):
    """One whose members learn from a history, resampled by Poisson(1).

    Args:
        history: examples kept to be drawn from again. The papers keep all; a stream cannot. Ours.
        replayed: examples drawn a step. Ours.
    """

    history: int = 10_000
    replayed: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.history >= 1 and self.replayed >= 1):
            raise ValueError(f"history and replayed must be at least 1, got {self.history} and {self.replayed}")

    def _bootstrap(self, name: str, **options: Any) -> tuple[Bootstrap]:
        kept = {"history": self.history, "replayed": self.replayed}
        return super()._bootstrap(name, resampling="poisson", **kept, **options)
