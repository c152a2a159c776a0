"""Giro: garbage in, reward out. With every example pairs of pseudo examples enter the history, clicked and not.

References:
    [1] Kveton et al. 2019, "Garbage In, Reward Out: Bootstrapping Exploration in Multi-Armed Bandits", ICML,
        arXiv:1811.05154.
    [2] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
"""

from dataclasses import dataclass

from models.beliefs.bootstrap import Bootstrap
from models.resampled import Replayed


@dataclass(frozen=True, kw_only=True)
class Giro(Replayed):
    """Members see an item more optimistic or pessimistic than it is, but never cease to: the pairs do not thin out.

    Args: those of `Replayed`, and
        pseudo: a, pairs an example; 1 in [1]'s analysis. [2] found large values unacceptable for ads; its own is lost.
    """

    pseudo: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pseudo > 0.0:
            raise ValueError(f"pseudo must be above 0, got {self.pseudo}; 0 is the method bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return self._bootstrap("giro", pseudo=self.pseudo)
