"""A world with the shape of the Yahoo! R6B log.

Users with 136 binary features visit a page that shows articles of a changing pool of about 38, clicked at about 4 %
under random display. The numbers behind that shape are ours.

    logit P(click) = base + quality of the item + taste of the user . style of the item - fade * age of the item

Tastes are linear in the user's features and styles are of low rank, so a small click model can learn the world online.
News get old: on the page that R6B is a log of, articles lose clicks with age and with those who have seen them [1]. How
fast is ours, chosen on seeds for tuning: so that greedy, which seldom tries what is new, has about the 1.5 times the
clicks of random display that are published, and so that there is room for the best published, 2.06 times [2].

References:
    [1] Agarwal, Chen, Elango 2009, "Spatio-Temporal Models for Estimating Click-through Rate", WWW.
    [2] "Pluggable Deep Thompson Sampling", SDM 2023: PlugTS-P 53,898 clicks, of random 26,213.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.evaluation.driver import Visits
from models.evaluation.items import Items
from models.evaluation.worlds.lives import BLOCK, Lives
from models.evaluation.worlds.world import Arrivals, Scene, flat
from models.features import Encoder
from models.spec import FeatureSpec, Field
from models.types import Array

FEATURES = 136  # binary, numbered from 1; feature 1 is the constant
#: A policy whose picks are replayed keeps 28 million / 38 visits of the log, over its 15 days.
INTERVAL_S = 15 * 86_400 / 740_000

SPEC = FeatureSpec(
    (
        Field(name="features", side="user", kind="multi_hot", buckets=512, max_values=FEATURES, width=8),
        Field(name="id", side="item", kind="categorical", source="id", buckets=8_192, width=8),
    )
)


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
    """Users, items, and who would click what. A `World`.

    Items and users depend on the seed alone, never on what is asked of the world; who comes is drawn visit by visit.

    Args:
        seed: of everything.
        users: how many come back again and again, each known by a sticky id.
        pool: mean number of candidates.
        lifetime_s: mean life of an item; by default about that of R6B, 652 articles in 15 days.
        ctr: click probability under random display.
        quality_sd: spread of the items' log odds, the same for every user.
        affinity_sd: spread of the log odds that a known user's taste adds.
        fade: log odds that an item loses in a mean life.
        rank: dimensions of taste and style.
        anonymous: share of users of whom only the constant feature is known.
        interval_s: between two visits of `visits`.
    """

    spec = SPEC

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
        fade: float = 1.5,
        rank: int = 4,
        anonymous: float = 0.3,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.items = Items(SPEC)
        self._seed, self._interval_s = seed, interval_s
        self._lives = Lives(seed, pool=pool, lifetime_s=lifetime_s)
        self._quality_sd = quality_sd
        # The mean of a sigmoid far below 1/2 is that of a lognormal: half a variance above its centre.
        # Of the ages of the items that are there, in mean lives, the mean is 13/24 and the variance 0.123.
        self._fade = fade
        variance = quality_sd**2 + (1.0 - anonymous) * affinity_sd**2 + 0.1233 * fade**2
        self._base = math.log(ctr / (1.0 - ctr)) - variance / 2.0 + fade * 13.0 / 24.0
        self._arrivals = Arrivals(seed)
        self._features, taste = _users(np.random.default_rng([seed, 1]), users, rank, anonymous)
        self._taste = affinity_sd / math.sqrt(rank) * taste  # (users, rank)
        self._encoded: tuple[Array, Array] | None = None  # of all users
        self._quality = np.empty(0)  # (items,)
        self._style = np.empty((0, rank))  # (items, rank)

    def visit(self, time_s: float) -> Visit:
        """The next user, at a time >= 0 since the world began."""
        user = self._arrivals.user.integers(len(self._features), size=1)
        _, item, p_click = self._meet(np.array([time_s]), user)
        return Visit(
            user_id=f"user-{user[0]}",
            features=self._features[int(user[0])],
            candidates=[f"item-{one}" for one in item.tolist()],
            click_probability=p_click,
        )

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        """See `World`: users come every interval_s."""
        time, luck = self._arrivals.next(count, pace)
        user = self._arrivals.user.integers(len(self._features), size=count)
        visit, item, p_click = self._meet(self._interval_s * time, user)
        index, weight = self._contexts()
        return Scene(Visits(index[user], weight[user], visit, item), user, p_click, luck)

    def _meet(self, time_s: Array, user: Array) -> tuple[Array, Array, Array]:
        """(visit, item, click probability), each (B,): whom the users at these times may be shown."""
        present, first = self._lives.present(time_s)
        self._bear(self._lives.needed(float(time_s[-1])))
        born = slice(first, first + present.shape[1])
        logit = (
            self._base
            - self._fade * self._lives.age(time_s, first, present.shape[1])
            + self._quality[born]
            + self._taste[user] @ self._style[born].T
        )  # (V, n)
        return *flat(present, first), 1.0 / (1.0 + np.exp(-logit[present]))

    def _contexts(self) -> tuple[Array, Array]:
        """(users, Kc) rows and weights."""
        if self._encoded is None:
            encoder = Encoder(SPEC)
            rows = [encoder.context(user={"features": one}) for one in self._features]
            index, weight = (np.concatenate(side) for side in zip(*rows, strict=True))
            self._encoded = index, weight
        return self._encoded

    def _bear(self, count: int) -> None:
        while (first := len(self._quality)) < count:
            generator = np.random.default_rng([self._seed, 3, first])
            self.items.add([f"item-{one}" for one in range(first, first + BLOCK)], [None] * BLOCK)
            self._quality = np.concatenate([self._quality, generator.normal(0.0, self._quality_sd, BLOCK)])
            self._style = np.concatenate([self._style, generator.normal(size=(BLOCK, self._style.shape[1]))])


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
