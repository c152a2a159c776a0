"""What methods that add to the prediction share."""

import numpy as np
import pytest
import torch

from models import bonus
from models.noise import draw
from models.types import Inputs


def test_normal_numbers_are_normal():
    item_hash = np.arange(20_000, dtype=np.uint64)
    declared = bonus.normal_input("candidate", 2)
    noise = draw([declared], request_seed=np.array([1], dtype=np.uint64), version=0, item_hash=item_hash)
    found = bonus.normal(torch.from_numpy(noise["normal"])).double()
    assert found.shape == (20_000, 2)
    assert torch.isfinite(found).all()
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert (found**power).mean(0).numpy() == pytest.approx(expected, abs=0.15)
    assert abs(float(torch.corrcoef(found.T)[0, 1])) < 0.04
    inside = (found.abs() < 1.0).double().mean()
    assert inside.item() == pytest.approx(0.6827, abs=0.015)


def test_the_edge_of_the_uniform_numbers_is_finite():
    edges = torch.tensor([[[0.0, 1.0 - 2.0**-24, 0.0, 1.0 - 2.0**-24]]])
    assert torch.isfinite(bonus.normal(edges)).all()


@pytest.mark.parametrize("per_row", [False, True])
def test_lambda_weighs_the_bonus_and_the_score_stays_a_probability(per_row):
    p, delta = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.05, -0.3, 0.2])
    lambda_ = torch.full((3, 1), 2.0) if per_row else torch.tensor(2.0)
    scores = bonus.add(p, delta, Inputs(None, {}, lambda_, torch.zeros(3, dtype=torch.int64)))
    torch.testing.assert_close(scores.score, torch.tensor([0.2, 0.0, 1.0]))
    assert torch.equal(scores.uncertainty, delta)
    assert torch.equal(scores.p_click, p)


def test_deviation_is_that_of_a_sample():
    draws = torch.rand(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(bonus.deviation(draws), draws.std(0))


def test_novelty_falls_as_a_standard_deviation_does():
    shown = torch.tensor([0, 30, 990])
    torch.testing.assert_close(bonus.novelty(shown, 10.0, torch.float64), torch.tensor([1.0, 0.5, 0.1]).double())
