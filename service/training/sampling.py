"""Sampling: of the impressions that were not clicked only a share is learned from, and predictions stay what they were.

Where a share r of the unclicked is kept, and all of the clicked, the odds of a click among what is kept are 1 / r times
those in the log. So the learner fits logit(p) - log r to it, and p itself is what it predicts; [1] section 6.3 corrects
the prediction instead, to p = q / (q + (1 - q) / r), the same in other words. Whatever is measured on the sample counts
each unclicked example 1 / r times.

References:
    [1] He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD.
"""

from collections.abc import Sequence

import numpy as np

from models.noise import combine, seed_of, uniform
from models.types import Array
from service.training.memory import UNCLICKED, Closed


class Sampler:
    """Decides by a hash of (seed, request, row), so that a restart, or another process, decides the same.

    Args:
        rate: r, in (0, 1].
        seed: another one keeps others.
    """

    def __init__(self, *, rate: float, seed: int) -> None:
        self.rate = rate
        self._seed = np.uint64(seed)

    def kept(self, closed: Sequence[Closed]) -> list[Closed]:
        """What is learned from: all clicked rows and some of the others, without requests of which nothing is left."""
        if self.rate == 1.0 or not closed:
            return list(closed)
        counts = [len(one.rows) for one in closed]
        request = np.array([seed_of(one.served.request_id) for one in closed], dtype=np.uint64).repeat(counts)
        row = np.array([row for one in closed for row in one.rows], dtype=np.uint64)
        clicked = np.array([click_ms != UNCLICKED for one in closed for click_ms in one.click_ms], dtype=np.bool_)
        drawn = uniform(combine(combine(request, self._seed), row), 1)[:, 0]
        keep = np.split(clicked | (drawn < self.rate), np.cumsum(counts)[:-1])
        return [_part(one, rows) for one, rows in zip(closed, keep, strict=True) if rows.any()]

    def weight(self, label: Array) -> Array:
        """How many examples of the log each kept one stands for: (N,) float32 -> (N,) float32."""
        return np.where(label > 0, np.float32(1.0), np.float32(1.0 / self.rate))


def _part(closed: Closed, keep: Array) -> Closed:
    chosen = np.flatnonzero(keep).tolist()
    return closed._replace(
        rows=[closed.rows[place] for place in chosen], click_ms=[closed.click_ms[place] for place in chosen]
    )
