"""A world with the shape of GuideBoot's ad logs: 13 fields of the user and 12 of the ad, large pools, and drift.

Tencent Ads A is 4.5 million visits to 8,900 ads, with 250 to 450 candidates each; B is 14.7 million to 6,500 ads, with
100 to 200 [1]. Everything else is ours:

    logit P(click) = base + sum over the ad's fields of their values' effects + the ad's own quality
                     + taste of the user . style of the ad + swing of the ad's category at this time

Tastes are sums over the user's fields and styles over the ad's, so what one ad teaches holds for others. The swing is
the drift: each category goes up and down with a phase of its own.

References:
    [1] "GuideBoot: Guided Bootstrap for Deep Contextual Bandits", WWW 2021, arXiv:2107.08383, section 5.
"""

import math
from dataclasses import dataclass

import numpy as np

from models.evaluation.driver import Visits
from models.evaluation.items import Items
from models.evaluation.worlds.lives import BLOCK, Lives
from models.evaluation.worlds.world import Arrivals, Scene, flat
from models.features import Encoder
from models.noise import combine, uniform
from models.spec import FeatureSpec, Field
from models.types import Array

USER_VALUES = (3, 10, 6, 34, 20, 4, 5, 50, 50, 7, 24, 7, 15)
AD_VALUES = (300, 30, 120, 8, 12, 6, 4, 40, 10, 100, 60)  # and the id: 12
_CATEGORY = 1  # the field that drifts


def _spec() -> FeatureSpec:
    user = (_field(f"user_{number}", "user", values) for number, values in enumerate(USER_VALUES))
    ad = (_field(f"ad_{number}", "item", values) for number, values in enumerate(AD_VALUES))
    own = Field(name="id", side="item", kind="categorical", source="id", buckets=16_384, width=4)
    return FeatureSpec((*user, *ad, own))


def _field(name: str, side: str, values: int) -> Field:
    return Field(name=name, side=side, kind="categorical", buckets=8 * values, width=4)  # type: ignore[arg-type]


SPEC = _spec()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a log.

    Args:
        smallest, largest: candidates of a visit, about.
        visits_per_ad: visits between two births.
    """

    smallest: int
    largest: int
    visits_per_ad: float


TENCENT_A = Shape(smallest=250, largest=450, visits_per_ad=4.5e6 / 8_900)
TENCENT_B = Shape(smallest=100, largest=200, visits_per_ad=14.7e6 / 6_500)


class AdWorld:
    """Users, ads, and who would click what, when. A `World`. Time is counted in visits.

    Args:
        seed: of everything.
        shape: of the log.
        users: how many come back again and again.
        ctr: click probability under random display, without the swings.
        field_sd: spread of the log odds of all fields of an ad together.
        quality_sd: spread of an ad's own.
        affinity_sd: spread of the log odds of taste and style.
        swing: amplitude of the categories' drift.
        period: visits of a swing.
        rank: dimensions of taste and style.
    """

    spec = SPEC

    def __init__(
        self,
        *,
        seed: int,
        shape: Shape,
        users: int = 5_000,
        ctr: float = 0.02,
        field_sd: float = 0.3,
        quality_sd: float = 0.25,
        affinity_sd: float = 0.3,
        swing: float = 0.3,
        period: float = 40_000.0,
        rank: int = 4,
    ) -> None:
        self.items = Items(SPEC)
        self._seed, self._shape = seed, shape
        self._lives = Lives(seed, pool=shape.largest, lifetime_s=shape.largest * shape.visits_per_ad)
        self._base = math.log(ctr / (1.0 - ctr)) - (field_sd**2 + quality_sd**2 + affinity_sd**2) / 2.0
        self._quality_sd, self._swing, self._period = quality_sd, swing, period
        self._arrivals = Arrivals(seed)
        generator = np.random.default_rng([seed, 1])
        share = affinity_sd / math.sqrt(rank)
        self._user_value = _values(generator, USER_VALUES, users)  # (users, 13)
        self._taste = share * _sums(generator, USER_VALUES, self._user_value, rank)  # (users, rank)
        spread = 1.0 / math.sqrt(len(AD_VALUES))
        self._effect = [field_sd * spread * generator.normal(size=values) for values in AD_VALUES]
        self._styles = [spread * generator.normal(size=(values, rank)) for values in AD_VALUES]
        self._phase = generator.uniform(0.0, 2.0 * math.pi, AD_VALUES[_CATEGORY])
        self._context = _encoded(self._user_value)
        self._ad_value = np.empty((0, len(AD_VALUES)), dtype=np.int64)  # (ads, 11)
        self._worth = np.empty(0)  # (ads,) log odds that nobody's taste and no swing changes
        self._style = np.empty((0, rank))  # (ads, rank)

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        """See `World`."""
        number = self._arrivals.count + np.arange(count)
        time, luck = self._arrivals.next(count, pace)
        present, first = self._lives.present(time)
        self._bear(self._lives.needed(float(time[-1])))
        user = self._arrivals.user.integers(len(self._taste), size=count)
        present &= self._open(number, first + np.arange(present.shape[1]))
        born = slice(first, first + present.shape[1])
        angle = 2.0 * math.pi * time[:, None] / self._period + self._phase[self._ad_value[born, _CATEGORY]]
        logit = self._base + self._worth[born] + self._taste[user] @ self._style[born].T + self._swing * np.sin(angle)
        index, weight = self._context
        visits = Visits(index[user], weight[user], *flat(present, first))
        return Scene(visits, user, 1.0 / (1.0 + np.exp(-logit[present])), luck)

    def _open(self, visit: Array, ad: Array) -> Array:
        """(V, n) bool: targeting and budgets leave each visit a share of the ads, drawn for the visit."""
        key = combine(np.array([self._seed], dtype=np.uint64), visit.astype(np.uint64))
        least = self._shape.smallest / self._shape.largest
        share = least + (1.0 - least) * uniform(key, 1)  # (V, 1)
        lot = combine(key[:, None], ad.astype(np.uint64)) >> np.uint64(40)
        return np.asarray(lot < share * 2.0**24)

    def _bear(self, count: int) -> None:
        while (first := len(self._worth)) < count:
            generator = np.random.default_rng([self._seed, 3, first])
            value = _values(generator, AD_VALUES, BLOCK)
            features = [{f"ad_{number}": one for number, one in enumerate(row)} for row in value.tolist()]
            self.items.add([f"ad-{number}" for number in range(first, first + BLOCK)], features)
            worth = sum(effect[value[:, number]] for number, effect in enumerate(self._effect))
            style = sum(of[value[:, number]] for number, of in enumerate(self._styles))
            self._ad_value = np.concatenate([self._ad_value, value])
            self._worth = np.concatenate([self._worth, worth + generator.normal(0.0, self._quality_sd, BLOCK)])
            self._style = np.concatenate([self._style, style])


def _values(generator: np.random.Generator, cardinality: tuple[int, ...], count: int) -> Array:
    """(count, fields) int64: low values are common, high ones rare."""
    return np.stack([(values * generator.random(count) ** 2).astype(np.int64) for values in cardinality], axis=1)


def _sums(generator: np.random.Generator, cardinality: tuple[int, ...], value: Array, rank: int) -> Array:
    """(count, rank) of about unit variance: each field's value adds a vector."""
    parts = [generator.normal(size=(values, rank))[value[:, number]] for number, values in enumerate(cardinality)]
    return np.asarray(sum(parts)) / math.sqrt(len(cardinality))


def _encoded(value: Array) -> tuple[Array, Array]:
    """(users, Kc) rows and weights."""
    encoder = Encoder(SPEC)
    rows = [encoder.context(user={f"user_{number}": one for number, one in enumerate(row)}) for row in value.tolist()]
    index, weight = (np.concatenate(side) for side in zip(*rows, strict=True))
    return index, weight
