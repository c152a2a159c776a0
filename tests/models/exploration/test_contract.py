"""What every exploration method owes its callers (DESIGN: belief and choice)."""

import numpy as np
import pytest

from models.features import item_hashes
from models.noise import draw
from models.policy import Policy
from models.registry import METHODS, build
from models.slate import choose

#: Every method as it stands, and others where an option makes it another one.
STRATEGIES = {name: {} for name in METHODS} | {
    "age_ts": {"method": "age", "rate": 0.1},
    "age_ucb": {"method": "age", "rate": 0.1, "uncertainty": "ucb", "draws": 5, "dropout": "last_layer"},
    "age_ts_candidate": {"method": "age", "rate": 0.1, "mask_scope": "candidate", "pgd": "projected"},
    "age_gaussian": {"method": "age", "uncertainty": "gaussian", "novelty": 5.0},
    "age_ones": {"method": "age", "rate": 0.1, "direction": "ones", "gate": "none"},
    "epsilon_decays": {"method": "epsilon_greedy", "horizon": 5_000},
    "epsilon_counts": {"method": "epsilon_greedy", "estimate": "counts"},
    "ensemble_ucb": {"method": "ensemble", "uncertainty": "ucb"},
    "ensemble_version": {"method": "ensemble", "scope": "version"},
    "gradient_ucb": {"method": "gradient", "uncertainty": "ucb"},
    "gradient_norm": {"method": "gradient", "covariance": "none"},
    "ur_ucb": {"method": "underestimation", "uncertainty": "ucb"},
    "plug_ts_p": {"method": "plug_ts", "covariance": "none"},
    "plug_ts_request": {"method": "plug_ts", "scope": "request"},
    "multi_head_ucb": {"method": "multi_head", "uncertainty": "ucb"},
    "item_posterior_ucb": {"method": "item_posterior", "uncertainty": "ucb"},
    "gp_ucb": {"method": "gaussian_process", "uncertainty": "ucb"},
    "mc_dropout_ucb": {"method": "mc_dropout", "uncertainty": "ucb", "dropout": "full", "novelty": 50.0},
}
COUNT = 13


BUILT = {name: build(name, options) for name, options in STRATEGIES.items()}


@pytest.fixture(params=STRATEGIES)
def policy(request, network, params):
    return Policy(network, params, BUILT[request.param])


def only(names):
    """The test runs for these alone."""
    return pytest.mark.parametrize("policy", list(names), indirect=True)


def noise(policy, ids, seeds=(1,), version=2):
    return draw(
        policy.noise, request_seed=np.array(seeds, dtype=np.uint64), version=version, item_hash=item_hashes(ids)
    )


def rank(policy, batch, ids, *, seed=1, lambda_=5.0):
    return policy.scores(batch, noise(policy, ids, (seed,)), lambda_, np.zeros(len(ids), dtype=np.int64))


def test_scores_are_finite_probabilities_of_one_shape(policy, make_request):
    scores = rank(policy, *make_request(COUNT, seed=1))
    for column in scores:
        assert column.shape == (COUNT,)
        assert column.dtype == np.float32
        assert np.isfinite(column).all()
    for column in (scores.p_click, scores.score):
        assert ((column >= 0) & (column <= 1)).all()
    assert set(np.unique(scores.gate_open)) <= {0.0, 1.0}


def test_the_same_seed_gives_the_same_bytes(policy, make_request):
    batch, ids = make_request(COUNT, seed=1)
    one, other = rank(policy, batch, ids), rank(policy, batch, ids)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_p_click_is_the_plain_prediction_whatever_the_method(policy, learner, make_request, make_training_batch):
    batch, ids = make_request(COUNT, seed=1)
    np.testing.assert_allclose(
        rank(policy, batch, ids).p_click, learner.predict(make_training_batch(COUNT, seed=1)), rtol=1e-6
    )


@only(name for name, one in BUILT.items() if one.method not in ("greedy", "random", "epsilon_greedy"))
def test_lambda_zero_is_greedy_for_methods_that_take_a_lambda(policy, make_request):
    scores = rank(policy, *make_request(COUNT, seed=1), lambda_=0.0)
    assert np.array_equal(scores.score, scores.p_click)


def test_rows_of_several_requests_score_as_each_request_alone(policy, make_request, make_training_batch):
    """Replay flattens many requests into one batch."""
    parts = [make_request(count, seed=count) for count in (3, 5, 4)]
    flat = [make_training_batch(count, seed=count) for count in (3, 5, 4)]
    batch = type(flat[0])(*(np.concatenate(columns) for columns in zip(*flat, strict=True)))
    ids = [one for _, names in parts for one in names]
    seeds = np.repeat([11, 12, 13], [3, 5, 4])
    together = policy.scores(batch, noise(policy, ids, seeds), 5.0, np.zeros(12, dtype=np.int64))
    start = 0
    for seed, (alone, names) in zip((11, 12, 13), parts, strict=True):
        expected = rank(policy, alone, names, seed=seed)
        rows = slice(start, start + len(names))
        np.testing.assert_allclose(together.score[rows], expected.score, rtol=1e-5, atol=1e-6)
        start += len(names)


@only(name for name, one in BUILT.items() if one.uniform_share is not None)
def test_a_claimed_propensity_equals_the_observed_frequency(policy, make_request):
    share = policy.strategy.uniform_share
    batch, ids = make_request(5, seed=1)
    hashes, runs = item_hashes(ids), 1000
    shown, claimed = np.zeros(5), np.zeros(5)
    for seed in range(runs):
        slate = choose(rank(policy, batch, ids, seed=seed), item_hash=hashes, seed=seed, top_k=2, uniform_share=share)
        shown[slate.order] += 1
        claimed[slate.order] = slate.propensity
    np.testing.assert_allclose(shown / runs, claimed, atol=5 * np.sqrt(0.25 / runs))
