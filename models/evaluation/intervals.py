"""Means and differences over seeds, with 95 % intervals of Student's t. numpy only."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: 97.5 % points of Student's t with 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.959964


class Interval(NamedTuple):
    """A mean and where the true one lies with 95 % confidence. Bounds are NaN for a single value."""

    mean: float
    low: float
    high: float


def t_975(degrees: int) -> float:
    """The 97.5 % point of Student's t; beyond the table by Cornish and Fisher's expansion, within 1e-3."""
    if degrees < 1:
        return math.nan
    if degrees <= len(_T):
        return _T[degrees - 1]
    return (
        _NORMAL
        + (_NORMAL**3 + _NORMAL) / (4 * degrees)
        + _NORMAL * (5 * _NORMAL**4 + 16 * _NORMAL**2 + 3) / (96 * degrees**2)
    )


def mean_interval(values: Sequence[float]) -> Interval:
    """Of independent values."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, math.nan, math.nan)
    half = t_975(len(sample) - 1) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(mean, mean - half, mean + half)


def paired(values: Sequence[float], against: Sequence[float]) -> Interval:
    """Relative difference of pairs, (value - other) / mean of the others: one pair a seed, in the same world.

    Dividing by the mean and not by each other one keeps the difference linear, so a seed with few clicks weighs little.
    """
    other = np.asarray(against, dtype=np.float64)
    return mean_interval(((np.asarray(values, dtype=np.float64) - other) / other.mean()).tolist())
