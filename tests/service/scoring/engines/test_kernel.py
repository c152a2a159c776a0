"""The compiled kernel against the method's own code in float64, which test_age holds to autograd. On every path."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from models.exploration.age import Age
from models.types import Array, Scores
from service.scoring.engines import kernel
from service.scoring.engines.native import method

if not kernel.LIBRARY.exists():
    pytest.skip("the kernel was not compiled: no C compiler when the project was installed", allow_module_level=True)
PATHS = range(kernel.library().age_best() + 1)
LAMBDA = 3.0
Make = Callable[..., Any]  # a case
HIDDEN = [(23, 14, 9), (5,), (1, 1), (70, 33, 16, 8), (9, 8, 7, 6, 5, 6, 7, 8), (256, 128, 64)]
VARIANTS: dict[str, dict[str, Any]] = {
    "thompson_fgm": {"direction": "fgm"},
    **{f"literal_{steps}": {"steps": steps} for steps in range(1, 6)},
    **{f"projected_{steps}": {"pgd": "projected", "steps": steps} for steps in range(1, 6)},
    "ucb": {"uncertainty": "ucb"},
    "ucb_candidate": {"uncertainty": "ucb", "draws": 6, "pgd": "projected", "mask_scope": "candidate"},
    "ucb_last_layer": {"uncertainty": "ucb", "dropout": "last_layer"},
    "ucb_last_layer_candidate": {"uncertainty": "ucb", "dropout": "last_layer", "mask_scope": "candidate"},
    "last_layer_version": {"dropout": "last_layer", "mask_scope": "version"},
    "candidate": {"mask_scope": "candidate"},
    "version": {"mask_scope": "version"},
    "fixed_gate": {"gate": "fixed", "gate_threshold": 0.38},
    "no_gate": {"gate": "none"},
    "new_items": {"gate": "none", "max_impressions": 9},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("count", [1, 75])
def test_plain_is_the_prediction_and_nothing_else(case: Make, count: int, hidden: tuple[int, ...], path: int) -> None:
    one = case(count, hidden=hidden)
    scores, explored = one.kernel(path).plain(one.batch), one.found(Age(rate=0.1), path)
    np.testing.assert_allclose(scores.p_click, one.expected(Age(rate=0.1)).p_click, rtol=1e-5, atol=1e-6)
    assert np.array_equal(scores.p_click, explored.p_click), "f(h) is the same to the bit, whoever asks"
    assert np.array_equal(scores.score, scores.p_click)
    assert not any(column.any() for column in scores[2:])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_method_in_float64(case: Make, variant: str, path: int) -> None:
    scores = case().check(Age(rate=0.1, **VARIANTS[variant]), path)
    assert np.any(scores.score != scores.p_click), "the case explores nothing"
    assert VARIANTS[variant].get("gate") == "none" or 0 < scores.gate_open.sum() < 75


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("spec", ["mixed", "no_context", "wide"])
def test_networks_of_any_shape(case: Make, spec: str, hidden: tuple[int, ...], path: int) -> None:
    for options in ({}, {"uncertainty": "ucb", "pgd": "projected", "mask_scope": "candidate"}):
        case(40, spec, hidden).check(Age(rate=0.1, gate="none", **options), path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", ["literal_3", "projected_3", "ucb", "ucb_last_layer", "candidate", "ucb_candidate"])
def test_a_candidate_has_the_same_bits_in_any_company(case: Make, variant: str, path: int) -> None:
    every, age = case(450), Age(rate=0.1, **VARIANTS[variant])
    masks, packed = every.masks(age), every.kernel(path)

    def scores(rows: Array) -> Scores:
        batch = every.batch._replace(item_index=every.batch.item_index[rows], item_weight=every.batch.item_weight[rows])
        mask = masks[:, rows] if age.mask_scope == "candidate" else masks
        return packed.scores(method(asdict(age)), batch, mask, LAMBDA, every.impressions[rows])

    whole = scores(np.arange(450))
    alone = [np.array([row]) for row in range(25)]
    some = [np.random.default_rng(count).permutation(450)[:count] for count in (2, 7, 63, 64, 65, 72, 73, 145, 450)]
    for rows in alone + some:
        for one, other in zip(scores(rows), whole, strict=True):
            assert np.array_equal(one, other[rows])


@pytest.mark.parametrize("path", PATHS)
def test_without_a_step_the_score_is_the_prediction_to_the_bit(case: Make, path: int) -> None:
    for options, lambda_ in (
        ({"gate": "fixed", "gate_threshold": 1.1}, LAMBDA),
        ({"gate": "none", "max_impressions": 0}, LAMBDA),
        ({"gate": "none"}, 0.0),
    ):
        scores = case().found(Age(**options), path, lambda_)
        assert np.array_equal(scores.score, scores.p_click)
        assert np.array_equal(scores.uncertainty != 0, scores.gate_open * (scores.uncertainty != 0))
        assert scores.gate_open.any() == (lambda_ == 0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"pgd": "projected"}, {"direction": "fgm"}, {"uncertainty": "ucb"}], ids=str)
def test_a_dead_network_has_no_direction(case: Make, options: dict[str, Any], path: int) -> None:
    one = case()
    first = {f"mlp.0.{side}": torch.zeros_like(one.params[f"mlp.0.{side}"]) for side in ("context", "item")}
    dead = one._replace(params=one.params | first | {"mlp.0.bias": -torch.ones(23)})
    scores = dead.check(Age(gate="none", rate=0.2, **options), path)
    assert np.array_equal(scores.score, scores.p_click)
    assert not scores.gradient_norm.any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bias", [-200.0, -20.0, 12.0, 200.0])
@pytest.mark.parametrize("options", [{}, {"pgd": "projected"}, {"uncertainty": "ucb"}], ids=str)
def test_saturated_predictions(case: Make, options: dict[str, Any], bias: float, path: int) -> None:
    one = case()
    saturated = one._replace(params=one.params | {"mlp.out.bias": torch.tensor(bias)})
    assert all(np.isfinite(column).all() for column in saturated.check(Age(gate="none", rate=0.1, **options), path))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("place", ["embedding.item_2", "mlp.1.bias"])
@pytest.mark.parametrize("options", [{}, {"uncertainty": "ucb", "pgd": "projected"}], ids=str)
def test_what_is_no_number_does_not_become_one(case: Make, options: dict[str, Any], place: str, path: int) -> None:
    """Weights are finite when they are loaded; what is computed from those that exploded need not be."""
    one = case()
    exploded = one._replace(params=one.params | {place: torch.full_like(one.params[place], torch.nan)})
    scores = exploded.found(Age(gate="none", rate=0.1, **options), path)
    assert np.isnan(scores.p_click).all()
    assert np.isnan(scores.score).all()


def test_no_candidates(case: Make) -> None:
    scores = case(0).found(Age())
    assert all(column.shape == (0,) for column in scores)


def test_threads_do_not_meet(case: Make) -> None:
    ages = [Age(rate=0.1, **VARIANTS[variant]) for variant in ("literal_3", "ucb_candidate")]
    one = case(450)
    packed, masks = one.kernel(), [one.masks(age) for age in ages]

    def scores(number: int) -> Scores:
        age, mask = ages[number % 2], masks[number % 2]
        return packed.scores(method(asdict(age)), one.batch, mask, LAMBDA, one.impressions)

    alone = [scores(0), scores(1)]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(scores, range(60))):
            assert all(np.array_equal(*pair) for pair in zip(found, alone[number % 2], strict=True))
