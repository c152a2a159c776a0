"""Strategies from their configuration."""

from dataclasses import asdict

import pytest

from models.exploration.age import Age
from models.registry import INITIAL_LAMBDA, METHODS, build


def test_the_name_is_the_method_unless_it_is_given():
    assert build("greedy", {}).method == "greedy"
    strategy = build("mine", {"method": "age", "uncertainty": "ucb", "draws": 7, "lambda": 3, "budget": 0.1})
    assert strategy.exploration == Age(uncertainty="ucb", draws=7)
    assert (strategy.name, strategy.lambda_, strategy.budget) == ("mine", 3.0, 0.1)
    assert strategy.options == asdict(Age(uncertainty="ucb", draws=7))
    assert build("age", {}).lambda_ == INITIAL_LAMBDA


def test_only_methods_that_mix_in_uniform_orders_have_a_uniform_share():
    shares = {name: share for name in METHODS if (share := build(name, {}).uniform_share) is not None}
    assert shares == {"random": 1.0, "epsilon_greedy": 0.1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "thomson"}, "unknown method 'thomson'; known are age"),
        ({"method": "age", "step": 3}, r"unknown options \['step'\]"),
        ({"method": "age", "uncertainty": "both"}, "uncertainty"),
        ({"method": "age", "steps": "three"}, "steps"),
        ({"method": "age", "budget": 1.5}, "budget"),
        ({"method": "age", "budget": "small"}, "budget"),
        ({"method": "age", "lambda": -1.0}, "lambda"),
        ({"method": "age", "lambda": float("inf")}, "lambda"),
        ({"method": "age", "lambda": float("nan")}, "lambda"),
        ({"method": "age", "lambda": "weak"}, "lambda"),
        ({"method": "age", "propensity_samples": -1}, "propensity_samples"),
        ({"method": "age", "propensity_samples": "many"}, "propensity_samples"),
        ({"method": ["age"]}, "unknown method"),
        ({"method": "epsilon_greedy", "epsilon": 0.0}, "epsilon"),
        ({"method": "epsilon_greedy", "horizon": 0}, "horizon"),
        ({"method": "epsilon_greedy", "estimate": "both"}, "estimate"),
        ({"method": "ensemble", "members": 1}, "members"),
        ({"method": "ensemble", "tables": "none"}, "tables"),
        ({"method": "bootstrap", "history": 0}, "history"),
        ({"method": "guideboot", "alpha": 0.0}, "is the method bootstrap"),
        ({"method": "online_guideboot", "alpha": -1.0}, "alpha"),
        ({"method": "online_bootstrap", "members": 1}, "members"),
        ({"method": "giro", "pseudo": 0.0}, "pseudo"),
        ({"method": "multi_head", "heads": 1}, "heads"),
        ({"method": "multi_head", "share": 0.0}, "share"),
        ({"method": "gradient", "ridge": 0.0}, "ridge"),
        ({"method": "underestimation", "impressions": 0.0}, "impressions"),
        ({"method": "plug_ts", "nu": 0.0}, "nu"),
        ({"method": "plug_ts", "window": 0}, "window"),
        ({"method": "mc_dropout", "rate": 1.0}, "rate"),
        ({"method": "mc_dropout", "uncertainty": "ucb", "draws": 1}, "draws"),
        ({"method": "mc_dropout", "novelty": 0.0}, "novelty"),
        ({"method": "deep_ucb1", "coefficient": 0.0}, "coefficient"),
        ({"method": "deep_ts_beta", "prior": 0.0}, "prior"),
        ({"method": "count_ucb", "prior": 0.0}, "prior"),
        ({"method": "item_laplace", "prior_sd": 0.0}, "prior_sd"),
        ({"method": "item_posterior", "prior_sd": 0.0}, "prior_sd"),
        ({"method": "item_posterior", "z": -1.0}, "z must"),
        ({"method": "gaussian_process", "inducing": 0}, "inducing"),
        ({"method": "density", "components": 0}, "components"),
        ({"method": "ts_blr", "precision": 0.0}, "precision"),
        ({"method": "glm_ucb", "coefficient": 0.0}, "coefficient"),
    ],
)
def test_refuses_and_names_the_strategy(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        build("mine", options)
    assert "'mine'" in str(caught.value)
