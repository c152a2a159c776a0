"""Off-policy estimates: what a target policy would have earned, from the log of a policy that chose at random.

For each of N logged impressions the log knows the reward r and the propensity p with which the logging policy chose
what it showed; the target would have shown the same with probability t. With weights w = t / p:

    replay   mean of r where the target would have shown just this; only where display was uniform and t is 0 or 1
    IPS      mean of w r                                                     unbiased [1]
    SNIPS    sum of w r / sum of w                                           biased by O(1/N), steadier [2]
    DR       mean of v + w (r - q)                                           unbiased; the better q, the narrower [3]

q is a model's prediction for what was shown and v its mean under the target; neither may have been learned from this
log's rewards. Intervals are normal ones, at 95 %; that of SNIPS by the delta method. A sum of few clicks is not normal:
where fewer than FEW carry an estimate (`Support.carried`) there is no interval, since none would hold the truth as
often as it says.

References:
    [1] Horvitz, Thompson 1952; Strehl et al. 2010, "Learning from Logged Implicit Exploration Data", arXiv:1003.0120.
    [2] Swaminathan, Joachims 2015, "The Self-Normalized Estimator for Counterfactual Learning", NeurIPS.
    [3] Dudik, Langford, Li 2011, "Doubly Robust Policy Evaluation and Learning", ICML, arXiv:1103.4601.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.types import Array

_NORMAL = 1.959964
#: Of `Support.carried`, below which there is no interval: the textbooks' n p (1 - p) for a share p of n.
FEW = 10.0
#: Lower bounds of the overlap table's propensities; a row a power of about two.
OVERLAP = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class DeterministicLogError(ValueError):
    """The log says nothing about what was not shown."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """N logged impressions, and what the target thinks of them.

    Args:
        reward: (N,) float, such as 1 for a click.
        propensity: (N,) float in (0, 1], of what was shown.
        target: (N,) float in [0, 1], the target's probability of the same.
        model: (N,) float, q; None where there is no model.
        value: (N,) float, v; None where there is no model.

    Raises:
        ValueError: shapes or ranges are wrong; the text names the first row at fault, counted from 0.
        DeterministicLogError: every propensity is 1.
    """

    reward: Array
    propensity: Array
    target: Array
    model: Array | None = None
    value: Array | None = None

    def __post_init__(self) -> None:
        columns = {name: column for name, column in vars(self).items() if column is not None}
        if len({np.shape(column) for column in columns.values()}) != 1 or self.reward.ndim != 1 or not len(self.reward):
            raise ValueError("a log needs at least one impression, and columns of one length")
        if (self.model is None) != (self.value is None):
            raise ValueError("a model is q and v: one of them is missing")
        for name, column in columns.items():
            low, high = {"propensity": (0.0, 1.0), "target": (0.0, 1.0)}.get(name, (-math.inf, math.inf))
            wrong = ~np.isfinite(column) | (column < low) | (column > high)
            if name == "propensity":
                wrong |= column == 0.0
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ValueError(f"row {row}: {name} {column[row]} is no {'probability' if high == 1 else 'number'}")
        if (self.propensity == 1.0).all():
            raise DeterministicLogError(
                "every propensity is 1: the log is deterministic and says nothing about what was not shown"
            )

    @property
    def weight(self) -> Array:
        """(N,) float64, w."""
        return np.asarray(self.target / self.propensity, dtype=np.float64)


class Estimate(NamedTuple):
    """A value and its 95 % interval. NaN where the log allows none: the value has none, or so few rewards carry it."""

    value: float
    low: float
    high: float


class Support(NamedTuple):
    """How much of the log speaks about the target."""

    impressions: int
    certain: int  # with propensity 1
    matched: int  # that the target might have shown, w > 0
    effective: float  # (sum of w)^2 / sum of w^2
    largest: float  # w
    carried: float  # clicks, or non-clicks where they are fewer, by the effective sample
    mean: Estimate  # of w; 1 is outside where the log lacks what the target shows, or propensities are wrong


class Overlap(NamedTuple):
    """Impressions whose propensity is at least `propensity`, below the next bound."""

    propensity: float
    impressions: int
    share: float  # of the sum of all w
    largest: float  # w


def replay(logged: Logged) -> Estimate:
    """Unbiased only where every item of a pool was equally likely, and all pools are of one size or clicks do not
    depend on it: otherwise use IPS.

    Raises:
        ValueError: the target is not deterministic.
    """
    if not np.isin(logged.target, (0.0, 1.0)).all():
        raise ValueError("replay needs a target that shows an item for certain or not at all")
    return mean(logged.reward[logged.target == 1.0])


def ips(logged: Logged) -> Estimate:
    return _mean(logged.weight * logged.reward, carried(logged.reward, logged.weight))


def snips(logged: Logged) -> Estimate:
    weight = logged.weight
    total = float(weight.sum())
    if total == 0.0:
        return _NOTHING
    value, count = float(weight @ logged.reward) / total, len(weight)
    apart = weight * (logged.reward - value)
    error = math.sqrt(float(apart @ apart) * count / max(count - 1, 1)) / total
    return _estimate(value, error, carried(logged.reward, weight))


def dr(logged: Logged) -> Estimate:
    """Raises ValueError: there is no model."""
    if logged.model is None or logged.value is None:
        raise ValueError("DR needs a model: predictions for what was shown, and their mean under the target")
    return _mean(logged.value + logged.weight * (logged.reward - logged.model), carried(logged.reward, logged.weight))


def support(logged: Logged) -> Support:
    weight = logged.weight
    squared = float(weight @ weight)
    return Support(
        impressions=len(weight),
        certain=int((logged.propensity == 1.0).sum()),
        matched=int((weight > 0.0).sum()),
        effective=float(weight.sum()) ** 2 / squared if squared else 0.0,
        largest=float(weight.max()),
        carried=carried(logged.reward, weight),
        mean=_mean(weight, math.inf),  # no sum of few clicks
    )


def overlap(logged: Logged) -> list[Overlap]:
    """By propensity; bounds without impressions are left out."""
    weight, total = logged.weight, float(logged.weight.sum())
    place = np.searchsorted(OVERLAP, logged.propensity, side="right") - 1
    rows = []
    for number in np.unique(place).tolist():
        mine = weight[place == number]
        share = float(mine.sum()) / total if total else 0.0
        rows.append(Overlap(OVERLAP[number], len(mine), share, float(mine.max())))
    return rows


def mean(values: Array) -> Estimate:
    """Of independent values (N,); what the logging policy earned, where they are its rewards."""
    return _mean(values, carried(values, np.ones(len(values)))) if len(values) else _NOTHING


def carried(values: Array, weight: Array) -> float:
    """How many carry a weighted mean: n p (1 - p) where a share p of an effective sample of n is 1 and the others 0.

    So the number of clicks where these are seldom. Of any values n (sum of w |d|)^2 / 4 (sum of w) (sum of w d^2), d
    their deviations.
    """
    total, squared = float(weight.sum()), float(weight @ weight)
    if total == 0.0:
        return 0.0
    apart = values - float(weight @ values) / total
    spread = float(weight @ apart**2)
    return total * float(weight @ np.abs(apart)) ** 2 / (4.0 * squared * spread) if spread else 0.0


def _mean(values: Array, carriers: float) -> Estimate:
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return _estimate(float(np.mean(values, dtype=np.float64)), error, carriers)


def _estimate(value: float, error: float, carriers: float) -> Estimate:
    if carriers < FEW:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, value - _NORMAL * error, value + _NORMAL * error)


_NOTHING = Estimate(math.nan, math.nan, math.nan)
