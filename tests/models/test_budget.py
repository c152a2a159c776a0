"""The budget controller: it finds the lambda of a target share, also behind a delay, and never winds up."""

import math

import numpy as np
import pytest

from models.budget import HIGHEST, LOWEST, WINDOW, Budget


def share_of(lambda_):
    """A response like the ranker's: nothing at small lambda, everything at large, steep in between."""
    return 1 - math.exp(-((lambda_ / 60.0) ** 0.8))


def drive(budget, slates, *, delay, rng, slots=4):
    """Slates are served with the lambda of `delay` slates ago, as a published model does."""
    used = [budget.lambda_] * (delay + 1)
    shares = []
    for _ in range(slates):
        lambda_ = used[-1 - delay]
        changed = rng.binomial(slots, share_of(lambda_))
        budget.observe(int(changed), slots, lambda_)
        used.append(budget.lambda_)
        shares.append(changed / slots)
    return float(np.mean(shares[-len(shares) // 3 :]))


@pytest.mark.parametrize("start", [0.01, 10.0, 3000.0])
@pytest.mark.parametrize("delay", [0, 400])
def test_it_holds_the_target(start, delay):
    budget = Budget(0.05, start)
    share = drive(budget, 12000, delay=delay, rng=np.random.default_rng(1))
    assert share == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("target", [0.05, 0.1, 0.2])
def test_it_holds_the_target_on_average_where_the_share_jumps(target):
    budget, shares = Budget(target, 1.0), []
    for _ in range(3_000):  # as of a bonus without noise: nothing changes, or more than half
        share = 0.6 if budget.lambda_ > 0.4 else 0.0
        budget.observe(round(share * WINDOW), WINDOW, budget.lambda_)
        shares.append(share)
    assert np.mean(shares) == pytest.approx(target, rel=0.35)


def test_lambda_stays_in_bounds_when_the_target_cannot_be_met():
    never, always = Budget(0.05, 10.0), Budget(0.05, 10.0)
    for _ in range(200):
        never.observe(0, WINDOW, never.lambda_)
        always.observe(WINDOW, WINDOW, always.lambda_)
    assert never.lambda_ == HIGHEST
    assert always.lambda_ == LOWEST


@pytest.mark.parametrize("lambda_used", [0.0, 5e-324, 1.7e308])
def test_whatever_lambda_a_record_claims_it_goes_on(lambda_used):
    budget = Budget(0.05, 10.0)
    budget.observe(0, WINDOW, lambda_used)
    assert LOWEST <= budget.lambda_ <= HIGHEST


def test_state_round_trip_continues_alike():
    one = Budget(0.1, 5.0)
    rng = np.random.default_rng(2)
    for _ in range(333):
        one.observe(int(rng.binomial(7, 0.3)), 7, one.lambda_)
    other = Budget.restore(0.1, one.state())
    for _ in range(333):
        changed = int(rng.binomial(7, 0.3))
        one.observe(changed, 7, one.lambda_)
        other.observe(changed, 7, other.lambda_)
    assert one.state() == other.state()
