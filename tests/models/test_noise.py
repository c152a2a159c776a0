"""Counter-based noise: repeatable, right in distribution, and following the candidate."""

import numpy as np
import pytest

from models.noise import draw, seed_of, uniform
from models.types import NoiseInput


def masks(scope="request", draws=20, width=448, rate=0.01, name="masks"):
    return NoiseInput(name=name, distribution="dropout", scope=scope, draws=draws, width=width, rate=rate)


def take(noise, seeds=(5,), version=3, items=(11, 12, 13)):
    return draw(
        [noise],
        request_seed=np.array(seeds, dtype=np.uint64),
        version=version,
        item_hash=np.array(items, dtype=np.uint64),
    )[noise.name]


def test_published_bits_never_change():
    """A logged decision must be repeatable by any later build; these numbers are the format."""
    assert seed_of("request-1") == 4002112897250542239
    values = (uniform(np.array([1, 2**63], dtype=np.uint64), 3) * 2**24).astype(int)
    assert values.tolist() == [[12578688, 6247724, 7353183], [6883465, 16170781, 2974993]]


@pytest.mark.parametrize(("scope", "rows"), [("request", 1), ("candidate", 3), ("version", 1)])
def test_shape_is_draws_rows_width(scope, rows):
    assert take(masks(scope, draws=4, width=5)).shape == (4, rows, 5)


def test_what_each_scope_follows():
    for scope, by_request, by_version in (("request", 1, 0), ("candidate", 1, 0), ("version", 0, 1)):
        first = take(masks(scope, rate=0.5))
        assert np.array_equal(first, take(masks(scope, rate=0.5)))
        assert np.array_equal(first, take(masks(scope, rate=0.5), seeds=(6,))) != by_request
        assert np.array_equal(first, take(masks(scope, rate=0.5), version=4)) != by_version
    one = take(masks("candidate", rate=0.5), items=(11, 12, 13))
    other = take(masks("candidate", rate=0.5), items=(13, 11))
    assert np.array_equal(one[:, [2, 0]], other)


def test_rows_of_several_requests_equal_each_request_alone():
    for scope in ("request", "candidate"):
        noise = masks(scope, rate=0.5)
        together = take(noise, seeds=(5, 5, 9), items=(11, 12, 11))
        assert np.array_equal(together[:, 2:], take(noise, seeds=(9,), items=(11,)))
        assert np.array_equal(together[:, 1:2], take(noise, seeds=(5,), items=(12,)))


def test_inputs_of_one_method_are_independent():
    assert not np.array_equal(take(masks(rate=0.5, name="a")), take(masks(rate=0.5, name="b")))


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_dropout_has_its_rate_and_mean_one(rate):
    values = np.concatenate([take(masks("candidate", rate=rate), seeds=(seed,)).ravel() for seed in range(20)])
    dropped = (values == 0).mean()
    assert dropped == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / values.size))
    assert np.allclose(values[values != 0], 1 / (1 - rate))


def test_uniform_is_uniform_and_uncorrelated():
    values = uniform(np.arange(400, dtype=np.uint64), 500).astype(np.float64)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 64, (0, 1))[0]
    expected = values.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)  # chi-square, 5 sigma
    for a, b in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
