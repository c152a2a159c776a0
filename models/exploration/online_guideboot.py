"""Online GuideBoot: `guideboot` from the stream alone. Every example is learned once, with its fakes.

A batch of the learner stands for the paper's buffer, as one mini-batch: its members share the order of the examples.

References:
    [1] Pan et al. 2021, "GuideBoot: Guided Bootstrap for Deep Contextual Bandits in Online Advertising", WWW,
        arXiv:2107.08383, Algorithm 3.
"""

from dataclasses import dataclass

from models.beliefs.bootstrap import Bootstrap, Guidance
from models.resampled import Resampled


@dataclass(frozen=True, kw_only=True)
class OnlineGuideBoot(Resampled):
    """One member, picked at random, ranks; what they differ in is where they began and which fakes they learn.

    Args: those of `Resampled`, and
        alpha: pseudo impressions of each sign, lost from our copy of [1]; 1, the uniform prior, is ours.
        guidance: fakes by the impressions of the "item", [1] eq. (6), or of all "fields", eq. (7).
    """

    alpha: float = 1.0
    guidance: Guidance = "item"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}; 0 is the method online_bootstrap")

    @property
    def beliefs(self) -> tuple[Bootstrap]:
        return self._bootstrap("online_guideboot", resampling="none", alpha=self.alpha, guidance=self.guidance)
