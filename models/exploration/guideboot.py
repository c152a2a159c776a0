"""GuideBoot: members also learn fake examples, clicked and not, the more of them the less the example is known.

The fakes stand for a prior Beta(alpha, alpha) of every item's click probability, so that no few impressions make an
item hopeless; they thin out as impressions come.

References:
    [1] Pan et al. 2021, "GuideBoot: Guided Bootstrap for Deep Contextual Bandits in Online Advertising", WWW,
        arXiv:2107.08383, Algorithm 1.
"""

from dataclasses import dataclass

from models.beliefs.bootstrap import Bootstrap, Guidance
from models.resampled import Replayed


@dataclass(frozen=True, kw_only=True)
class GuideBoot(Replayed):
    """One member, picked at random, ranks, [1] eq. (1); all learn from a resampled history.

    Args: those of `Replayed`, and
        alpha: pseudo impressions of each sign, lost from our copy of [1]; 1, the uniform prior, is ours.
        guidance: fakes by the impressions of the "item", [1] eq. (6), or of all "fields", eq. (7).
    """

    alpha: float = 1.0
    guidance: Guidance = "item"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}; 0 is the method bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return self._bootstrap("guideboot", alpha=self.alpha, guidance=self.guidance)
