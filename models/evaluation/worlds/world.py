"""What a world is: visits come, each with a pool and with the true click probability of every candidate.

A world depends on its seed alone, never on what is shown in it, so all strategies meet the same visits. A click is
decided by a number drawn for the visit, its luck: two strategies that show the same item to the same visit get the same
answer, and differ only by what they chose.
"""

from typing import NamedTuple, Protocol

import numpy as np

from models.evaluation.driver import Visits
from models.evaluation.items import Items
from models.spec import FeatureSpec
from models.types import Array

#: Worlds of these seeds may be looked at while a method is made and tuned; figures are reported on those after them.
TUNING_SEEDS = range(100)


class Scene(NamedTuple):
    """V visits and what only a simulator knows."""

    visits: Visits  # items numbered as in `World.items`
    user: Array  # (V,) int64: who comes
    p_click: Array  # (B,) float64, the truth
    luck: Array  # (V,) float64 in [0, 1): what is shown is clicked where luck < p_click


class World(Protocol):
    """Visits without end, in an order that the seed alone decides.

    Attributes:
        spec: the features by which a model may know users and items.
        items: all that were born so far.
    """

    spec: FeatureSpec
    items: Items

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        """The next `count` visits.

        Args:
            pace: time that passes between two of them, in intervals of the world. A replay keeps one of |A| logged
                visits, and a world's visits are those that were kept; its log is |A| times as dense.
        """
        ...


class Arrivals:
    """Who comes and with what luck, however many are asked for at a time. One generator a seed and purpose."""

    def __init__(self, seed: int) -> None:
        self.user = np.random.default_rng([seed, 0])
        self._luck = np.random.default_rng([seed, 4])
        self._time = 0.0
        self.count = 0  # visits so far

    def next(self, count: int, pace: float) -> tuple[Array, Array]:
        """(times of the next `count` visits in intervals, ascending, and their luck), (V,) float64 each."""
        time = self._time + pace * np.arange(count)
        self._time += pace * count
        self.count += count
        return time, self._luck.random(count)


def check_seeds(seeds: range, *, tuning: bool) -> None:
    """Raises ValueError where a report would use a seed for tuning, or tuning one of a report."""
    if tuning and not set(seeds) <= set(TUNING_SEEDS):
        raise ValueError(f"seeds from {TUNING_SEEDS.stop} on are for reports: tune on 0 to {TUNING_SEEDS.stop - 1}")
    if not tuning and set(seeds) & set(TUNING_SEEDS):
        raise ValueError(f"seeds 0 to {TUNING_SEEDS.stop - 1} are for tuning: report on {TUNING_SEEDS.stop} and above")


def flat(present: Array, first: int) -> tuple[Array, Array]:
    """Which items each visit meets, (V, n) bool of the items from number `first` on -> (visit, item), (B,) each."""
    visit, place = np.nonzero(present)
    return visit, place + first
