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
    ],
)
def test_refuses_and_names_the_strategy(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        build("mine", options)
    assert "'mine'" in str(caught.value)
