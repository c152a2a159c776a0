"""Beta numbers have the distribution of numpy's, for shapes large and small."""

import numpy as np
import pytest
import torch

from models.beta import beta, beta_input
from models.noise import draw

COUNT = 20_000


def sample(a, b, seed=1):
    """One number each of so many candidates."""
    item_hash = np.random.default_rng(seed).integers(2**63, size=COUNT, dtype=np.uint64)
    noise = draw([beta_input()], request_seed=np.array([3], dtype=np.uint64), version=0, item_hash=item_hash)
    shapes = (torch.full((COUNT,), float(one)) for one in (a, b))
    return beta(*shapes, torch.from_numpy(noise["beta"])).numpy().astype(np.float64)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1), (0.02, 0.98), (0.5, 0.5), (2, 48), (0.4, 9.6), (60, 1_940), (4_000, 96_000)]
)
def test_has_the_distribution(a, b):
    found, exact = np.sort(sample(a, b)), np.sort(np.random.default_rng(0).beta(a, b, 200_000))
    # Kolmogorov and Smirnov: the largest distance of the two distribution functions, at a level of 1e-4.
    grid = np.concatenate([found, exact])
    apart = np.searchsorted(found, grid, "right") / len(found) - np.searchsorted(exact, grid, "right") / len(exact)
    # Half of the smallest numbers of Beta(0.02, 0.98) are below what float32 has.
    apart = apart[grid > 1e-30]
    assert np.abs(apart).max() < 2.23 * np.sqrt(1 / len(found) + 1 / len(exact))
    assert found.mean() == pytest.approx(a / (a + b), abs=5 * exact.std() / np.sqrt(COUNT))


def test_shapes_of_almost_nothing_stay_finite():
    found = sample(1e-9, 1e-9)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
