"""A semi-real world: who clicks what was fitted on a log; who comes and what is in the pool is simulated.

    logit P(click) = effect of the user + effect of the item + factor of the user . factor of the item

Items appear in groups (the arms of a headline test, or one video) in an order that the seed decides, and die.
"""

from typing import NamedTuple

import numpy as np

from models.evaluation.driver import Visits
from models.evaluation.items import Items
from models.evaluation.worlds.lives import BLOCK, Lives
from models.evaluation.worlds.world import Arrivals, Scene, flat
from models.features import Encoder
from models.spec import FeatureSpec, Field
from models.types import Array


class Fit(NamedTuple):
    """What was learned from a log of M users and N items. Shapes as given; codes are the models' features."""

    user_share: Array  # (M,) float64, how often each comes; sums to 1
    user_effect: Array  # (M,) float64
    user_factor: Array  # (M, r) float64
    user_codes: Array  # (M, Fu) int64, categorical; Fu = 0 where nothing is known of users
    item_effect: Array  # (N,) float64
    item_factor: Array  # (N, r) float64
    item_codes: Array  # (N, Fi) int64
    item_group: Array  # (N,) int64, ascending: items of a group appear together
    pool: Array  # () int64, mean number of candidates
    visits_per_item: Array  # () float64, visits between two births

    def check(self) -> None:
        """Raises ValueError where the arrays do not fit each other."""
        users, items = len(self.user_share), len(self.item_effect)
        of_users = (self.user_effect, self.user_factor, self.user_codes)
        of_items = (self.item_factor, self.item_codes, self.item_group)
        if any(len(one) != users for one in of_users) or any(len(one) != items for one in of_items):
            raise ValueError("the arrays of a fitted world differ in length")
        if not users or not items or self.user_factor.shape[1:] != self.item_factor.shape[1:]:
            raise ValueError("a fitted world needs users, items, and factors of one rank")
        numbers = (self.user_share, self.user_effect, self.user_factor, self.item_effect, self.item_factor)
        if not all(np.isfinite(one).all() for one in numbers) or not abs(self.user_share.sum() - 1.0) < 1e-6:
            raise ValueError("a fitted world needs finite numbers, and shares of users that sum to 1")
        if not (self.pool >= 2 and self.visits_per_item > 0):
            raise ValueError("a fitted world needs a pool of 2 or more and visits between two births")


class FittedWorld:
    """A `World` from a `Fit`. Time is counted in visits.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    def __init__(self, fit: Fit, *, seed: int) -> None:
        fit.check()
        self.spec = _spec(fit)
        self.items = Items(self.spec)
        self._fit, self._seed = fit, seed
        pool, visits = int(fit.pool), float(fit.visits_per_item)
        self._lives = Lives(seed, pool=pool, lifetime_s=pool * visits)
        self._arrivals = Arrivals(seed)
        groups = np.random.default_rng([seed, 1]).permutation(np.unique(fit.item_group))
        first, last = (np.searchsorted(fit.item_group, groups, side) for side in ("left", "right"))
        self._order = np.concatenate([np.arange(*span) for span in zip(first, last, strict=True)])  # (N,)
        self._context = _contexts(self.spec, fit.user_codes)

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        """See `World`."""
        fit = self._fit
        time, luck = self._arrivals.next(count, pace)
        present, first = self._lives.present(time)
        self._bear(self._lives.needed(float(time[-1])))
        user = self._arrivals.user.choice(len(fit.user_share), count, p=fit.user_share)
        real = self._real(first, first + present.shape[1])
        logit = fit.user_effect[user][:, None] + fit.item_effect[real] + fit.user_factor[user] @ fit.item_factor[real].T
        index, weight = self._context
        visits = Visits(index[user], weight[user], *flat(present, first))
        return Scene(visits, user, 1.0 / (1.0 + np.exp(-logit[present])), luck)

    def _real(self, first: int, last: int) -> Array:
        """Which item of the fit each newborn is; after the last one the first comes again, under another id."""
        return self._order[np.arange(first, last) % len(self._order)]

    def _bear(self, count: int) -> None:
        while (first := len(self.items)) < count:
            codes = self._fit.item_codes[self._real(first, first + BLOCK)]
            features = [{f"item_{number}": one for number, one in enumerate(row)} for row in codes.tolist()]
            self.items.add([f"item-{number}" for number in range(first, first + BLOCK)], features)


def _spec(fit: Fit) -> FeatureSpec:
    fields = [Field(name="id", side="item", kind="categorical", source="id", buckets=16_384, width=8)]
    for number, codes in enumerate(fit.item_codes.T):
        fields.append(Field(name=f"item_{number}", side="item", kind="categorical", buckets=_buckets(codes), width=4))
    for number, codes in enumerate(fit.user_codes.T):
        fields.append(Field(name=f"user_{number}", side="user", kind="categorical", buckets=_buckets(codes), width=4))
    return FeatureSpec(tuple(fields))


def _buckets(codes: Array) -> int:
    return 4 * len(np.unique(codes))


def _contexts(spec: FeatureSpec, codes: Array) -> tuple[Array, Array]:
    """(M, Kc) rows and weights."""
    encoder = Encoder(spec)
    distinct, place = np.unique(codes, axis=0, return_inverse=True)
    rows = [
        encoder.context(user={f"user_{number}": one for number, one in enumerate(row)}) for row in distinct.tolist()
    ]
    index, weight = (np.concatenate(side)[place] for side in zip(*rows, strict=True))
    return index, weight
