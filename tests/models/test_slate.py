"""Slates: order, ties, what exploration changed, closed-form propensities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.slate import choose, tie_break
from models.types import Scores


def scores(p, score):
    p, score = np.array(p, dtype=np.float32), np.array(score, dtype=np.float32)
    zero = np.zeros_like(p)
    return Scores(p, score, zero, zero, zero, zero)


def slate(p, score, *, seed=1, top_k=100, **rest):
    return choose(scores(p, score), item_hash=np.arange(len(p), dtype=np.uint64), seed=seed, top_k=top_k, **rest)


def test_orders_by_score_and_tells_what_changed():
    found = slate([0.1, 0.4, 0.3, 0.2], [0.5, 0.4, 0.3, 0.2], top_k=3)
    assert found.order.tolist() == [0, 1, 2]
    assert found.greedy.tolist() == [3, 0, 1, 2]
    assert found.explored.tolist() == [True, True, True]
    assert slate([0.4, 0.3, 0.1], [0.4, 0.2, 0.1]).explored.tolist() == [False] * 3


def test_bids_order_by_expected_revenue():
    found = slate([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], bid=np.array([9.0, 2.0, 1.0]))
    assert found.order.tolist() == [0, 1, 2]
    assert not found.explored.any()


def test_ties_are_fair_over_seeds_and_repeatable():
    first = [slate([0.5] * 4, [0.5] * 4, seed=seed).order[0] for seed in range(2000)]
    assert np.bincount(first).min() > 400
    assert first[7] == slate([0.5] * 4, [0.5] * 4, seed=7).order[0]
    assert not slate([0.5] * 4, [0.5] * 4).explored.any()


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=9), st.integers(0, 2**64 - 1))
def test_every_order_is_a_sorted_permutation(values, seed):
    found = slate(values, values, seed=seed)
    assert sorted(found.order.tolist()) == list(range(len(values)))
    assert sorted(found.greedy.tolist()) == list(range(len(values)))
    assert np.all(np.diff(np.array(values)[found.order]) <= 0)


def test_the_tie_break_hash_differs_per_item():
    assert len(np.unique(tie_break(np.arange(1000, dtype=np.uint64), 3))) == 1000


@pytest.mark.parametrize(("share", "top_k"), [(1.0, 2), (0.3, 1), (0.3, 3)])
def test_propensity_equals_the_observed_frequency(share, top_k):
    """Brute force: draw the randomness of an epsilon-greedy slate many times."""
    rng = np.random.default_rng(0)
    p = np.array([0.1, 0.4, 0.3, 0.2, 0.05])
    shown, claimed, runs = np.zeros(5), np.zeros(5), 8_000
    for _ in range(runs):
        score = rng.random(5) if rng.random() < share else p
        found = slate(p, score, top_k=top_k, uniform_share=share)
        shown[found.order] += 1
        claimed[found.order] = found.propensity
    assert np.all((claimed > 0) & (claimed <= 1))
    np.testing.assert_allclose(claimed, shown / runs, atol=5 * np.sqrt(0.25 / runs))


def test_bids_that_differ_leave_a_random_order_without_a_closed_form():
    p, bid = np.array([0.1, 0.1, 0.1, 0.1]), np.array([1.0, 1.0, 1.0, 50.0])
    found = slate(p, [0.9, 0.7, 0.5, 0.3], top_k=1, bid=bid, uniform_share=1.0)
    assert found.order.tolist() == [3]  # as in nearly every draw, not in one of four
    assert found.propensity is None
    assert slate(p, p, top_k=1, bid=np.full(4, 2.0), uniform_share=1.0).propensity.tolist() == [0.25]


def test_a_deterministic_method_has_no_propensity():
    assert slate([0.1, 0.2], [0.1, 0.2]).propensity is None
