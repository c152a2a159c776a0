"""A world whose click probabilities are known, so that the best that could have been done is known too.

It has the shape of the Yahoo! R6B log: visits of users with 136 binary features to a page that shows articles of a
changing pool of about 38, clicked at about 4 % under random display. The numbers behind that shape are ours.

    logit P(click) = base + quality of the item + taste of the user . style of the item

Tastes are linear in the user's features and styles are of low rank, so a small click model can learn the world online.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.types import Array

FEATURES = 136  # binary, numbered from 1; feature 1 is the constant
_BLOCK = 256  # items made at a time


class Visit(NamedTuple):
    """One user in front of the pool of the moment, with what only a simulator knows."""

    user_id: str
    features: list[int]  # active ones, ascending, 1 first
    candidates: list[str]
    click_probability: Array  # (B,) float64

    def click(self, positions: Sequence[int], generator: np.random.Generator) -> Array:
        """(L,) bool: which of the candidates shown are clicked, each independently of the others."""
        shown = self.click_probability[np.asarray(positions, dtype=np.intp)]
        return generator.random(len(shown)) < shown

    def oracle_ctr(self, shown: int) -> float:
        """Expected CTR of the best `shown` candidates: no policy gets more."""
        return float(np.sort(self.click_probability)[-shown:].mean())

    def random_ctr(self) -> float:
        """Expected CTR of candidates shown at random."""
        return float(self.click_probability.mean())


class R6bWorld:
    """Users, items, and who would click what.

    An item is born every lifetime_s / pool seconds and lives 0.5 to 1.5 lifetimes; the pool is full from time 0 on.
    Items and users depend on the seed alone, never on what is asked of the world; who comes is drawn visit by visit.

    Args:
        seed: of everything.
        users: how many come back again and again, each known by a sticky id.
        pool: mean number of candidates.
        lifetime_s: mean life of an item; by default about that of R6B, 652 articles in 15 days.
        ctr: click probability under random display.
        quality_sd: spread of the items' log odds, the same for every user.
        affinity_sd: spread of the log odds that a known user's taste adds.
        rank: dimensions of taste and style.
        anonymous: share of users of whom only the constant feature is known.
    """

    def __init__(
        self,
        *,
        seed: int,
        users: int = 1_000,
        pool: int = 38,
        lifetime_s: float = 75_000.0,
        ctr: float = 0.04,
        quality_sd: float = 0.4,
        affinity_sd: float = 0.3,
        rank: int = 4,
        anonymous: float = 0.3,
    ) -> None:
        self._seed = seed
        self._lifetime_s = lifetime_s
        self._birth_interval_s = lifetime_s / pool
        self._quality_sd = quality_sd
        # The mean of a sigmoid far below 1/2 is that of a lognormal: half a variance above its centre.
        variance = quality_sd**2 + (1.0 - anonymous) * affinity_sd**2
        self._base = math.log(ctr / (1.0 - ctr)) - variance / 2.0
        self._arrivals = np.random.default_rng([seed, 0])
        self._user_ids = [f"user-{number}" for number in range(users)]
        self._features, taste = _users(np.random.default_rng([seed, 1]), users, rank, anonymous)
        self._taste = affinity_sd / math.sqrt(rank) * taste  # (users, rank)
        self._item_ids: list[str] = []
        self._death_s = np.empty(0)  # (items,) world time
        self._quality = np.empty(0)  # (items,)
        self._style = np.empty((0, rank))  # (items, rank)

    def visit(self, time_s: float) -> Visit:
        """The next user, at a time >= 0 since the world began."""
        oldest = int(time_s / self._birth_interval_s)
        newest = int((time_s + 1.5 * self._lifetime_s) / self._birth_interval_s)
        while newest >= len(self._item_ids):
            self._bear()
        alive = oldest + np.flatnonzero(self._death_s[oldest : newest + 1] > time_s)
        user = int(self._arrivals.integers(len(self._user_ids)))
        logit = self._base + self._quality[alive] + self._style[alive] @ self._taste[user]
        return Visit(
            user_id=self._user_ids[user],
            features=self._features[user],
            candidates=[self._item_ids[item] for item in alive.tolist()],
            click_probability=1.0 / (1.0 + np.exp(-logit)),
        )

    def _bear(self) -> None:
        """The next block of items. Each block has its own generator, so no item depends on when it is asked for."""
        first, rank = len(self._item_ids), self._style.shape[1]
        generator = np.random.default_rng([self._seed, 2, first])
        number = np.arange(first, first + _BLOCK)
        # Births start 1.5 lifetimes early, the longest life, so that the first visit meets a pool of all ages.
        birth_s = number * self._birth_interval_s - 1.5 * self._lifetime_s
        death_s = birth_s + generator.uniform(0.5, 1.5, _BLOCK) * self._lifetime_s
        self._item_ids += [f"item-{one}" for one in number]
        self._death_s = np.concatenate([self._death_s, death_s])
        self._quality = np.concatenate([self._quality, generator.normal(0.0, self._quality_sd, _BLOCK)])
        self._style = np.concatenate([self._style, generator.normal(size=(_BLOCK, rank))])


def _users(generator: np.random.Generator, users: int, rank: int, anonymous: float) -> tuple[list[list[int]], Array]:
    """Active features of every user, and tastes (users, rank) of unit variance, 0 for the anonymous."""
    popularity = generator.beta(0.5, 3.0, FEATURES - 1)  # a few features common, most rare: about 20 active
    active = generator.random((users, FEATURES - 1)) < popularity
    active[generator.random(users) < anonymous] = False
    loading = generator.normal(size=(FEATURES - 1, rank))
    spread = math.sqrt(float(np.sum(popularity * (1.0 - popularity))))
    taste = (active - popularity) @ loading / spread
    taste[~active.any(axis=1)] = 0.0
    return [[1, *(2 + np.flatnonzero(row)).tolist()] for row in active], taste
