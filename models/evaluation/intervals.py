"""Means over seeds and their quotients, with 95 % intervals of Student's t. numpy only."""

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
    """Of the ratio of the means, less 1: one pair a seed, in the same world.

    By the delta method: the ratio r of the means deviates as the mean of value - r other does, over that of the others.
    So a seed with few clicks weighs little, and values that are r times the others in every world have no width.
    """
    value, other = np.asarray(values, dtype=np.float64), np.asarray(against, dtype=np.float64)
    base = float(other.mean())
    ratio = float(value.mean()) / base
    _, low, high = mean_interval(((value - ratio * other) / base).tolist())
    return Interval(ratio - 1.0, ratio - 1.0 + low, ratio - 1.0 + high)
