"""Intervals hold the truth as often as they say."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from models.evaluation.intervals import mean_interval, paired, t_975

WORLDS, TIMES = 5, 4_000
Gain = Callable[[np.ndarray, np.ndarray], np.ndarray]


def test_of_one_value_nothing_is_known() -> None:
    found = mean_interval([3.0])
    assert found.mean == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(paired([3.0], [2.0]).low)


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (4, 2.776), (15, 2.131), (16, 2.120), (30, 2.042)])
def test_students_t(degrees: int, expected: float) -> None:
    assert t_975(degrees) == pytest.approx(expected, abs=1e-3)


def test_half_in_every_world_is_half_without_a_doubt() -> None:
    assert paired([500, 1000, 1500], [1000, 2000, 3000]) == pytest.approx((-0.5, -0.5, -0.5))


def test_as_many_more_in_every_world_is_no_ratio_that_is_known() -> None:
    found = paired([1100, 1200, 1300, 1400, 1500], [1000, 1100, 1200, 1300, 1400])
    # value - r other = 1200 - other + (value - 1300) less r - 1 = 1/12 of other's deviations: their sd is 158.1 / 12.
    half = 2.776 * 158.11 / 12 / math.sqrt(5) / 1200
    assert found == pytest.approx((1 / 12, 1 / 12 - half, 1 / 12 + half), rel=1e-3)


@pytest.mark.parametrize(
    "gain", [lambda other, noise: other + 300 + noise, lambda other, noise: 1.5 * other + noise], ids=["sum", "product"]
)
def test_the_ratio_of_the_means_is_covered_as_often_as_is_said(gain: Gain) -> None:
    generator = np.random.default_rng(0)
    other = generator.normal(1000, 150, (TIMES, WORLDS))
    values = gain(other, generator.normal(0, 20, other.shape))
    truth = gain(np.full(1, 1000.0), np.zeros(1)).item() / 1000 - 1
    found = [paired(value.tolist(), base.tolist()) for value, base in zip(values, other, strict=True)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.93 < covered < 0.97  # 0.95 within 6 standard errors; with a constant denominator: 0.68 and 1.0
