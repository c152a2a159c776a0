"""Bootstrap: each member learns its own resample of the history; one of them, picked at random, ranks.

References:
    [1] Pan et al. 2021, "GuideBoot", WWW, arXiv:2107.08383: its baseline of that name.
"""

from dataclasses import dataclass

from models.beliefs.bootstrap import Bootstrap
from models.resampled import Replayed


@dataclass(frozen=True, kw_only=True)
class VanillaBootstrap(Replayed):
    """An item whose few impressions brought no click is worthless to every member, for ever: see `guideboot`.

    Its options are those of `Replayed`.
    """

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return self._bootstrap("bootstrap")
