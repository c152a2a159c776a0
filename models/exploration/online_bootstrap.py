"""OBB, the online bootstrap: each member learns each example as often as Poisson(1) says, and never again.

References:
    [1] Tang et al. 2015, "Personalized Recommendation via Parameter-Free Contextual Bandits", SIGIR.
    [2] Owen, Eckles 2012, "Bootstrapping data arrays of arbitrary order", Ann. Appl. Statist.: double or nothing.
    [3] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline OBB.
"""

from dataclasses import dataclass

from models.beliefs.bootstrap import Bootstrap, Resampling
from models.resampled import Resampled


@dataclass(frozen=True, kw_only=True)
class OnlineBootstrap(Resampled):
    """Needs no history, and learns at the pace of the stream.

    Args: those of `Resampled`, and
        resampling: "poisson" [1], "double_or_nothing" [2], or "none": members differ in where they began.
    """

    resampling: Resampling = "poisson"

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return self._bootstrap("online_bootstrap", resampling=self.resampling)
