"""AGE against an independent reference: the paper's equations candidate by candidate, in float64, by autograd."""

import math

import numpy as np
import pytest
import torch

from models.exploration.age import Age
from models.features import item_hashes
from models.networks.click import tensors
from models.noise import draw
from models.policy import Policy
from models.registry import build
from models.types import Inputs, Scores

LAMBDA = 3.0
COUNT = 19  # B; D is 20, the layers 23, 14 and 9, N is 20 or 6
VARIANTS = {
    "thompson_pgd": {},
    "thompson_fgm": {"direction": "fgm"},
    **{f"literal_{steps}": {"steps": steps} for steps in range(1, 6)},
    **{f"projected_{steps}": {"pgd": "projected", "steps": steps} for steps in range(1, 6)},
    "ucb": {"uncertainty": "ucb"},
    "ucb_projected_candidate": {"uncertainty": "ucb", "draws": 6, "pgd": "projected", "mask_scope": "candidate"},
    "ucb_last_layer": {"uncertainty": "ucb", "dropout": "last_layer"},
    "last_layer_version": {"dropout": "last_layer", "mask_scope": "version"},
    "candidate": {"mask_scope": "candidate"},
    "version": {"mask_scope": "version"},
    "fixed_gate": {"gate": "fixed", "gate_threshold": 0.2},
    "no_gate": {"gate": "none"},
    "new_items": {"gate": "none", "max_impressions": 9},
    "gaussian": {"uncertainty": "gaussian"},
    "ones": {"direction": "ones"},
    "novelty": {"novelty": 4.0, "pgd": "projected"},
}


class Reference:
    """f, f_s and the equations, written again from the paper: one candidate at a time, float64, autograd."""

    def __init__(self, network, params):
        self.network = network
        self.params = {name: value.double() for name, value in params.items()}
        sides = [self.params.pop(f"mlp.0.{side}") for side in ("context", "item")]
        self.params["mlp.0.weight"] = torch.cat(sides, dim=1)

    def f(self, h, mask=None, last_layer=False):
        z, taken = h, 0
        for layer, units in enumerate(self.network.config.hidden):
            z = torch.relu(self.params[f"mlp.{layer}.weight"] @ z + self.params[f"mlp.{layer}.bias"])
            is_last = layer == len(self.network.config.hidden) - 1
            if mask is not None and (is_last or not last_layer):
                z = z * mask[taken : taken + units]
                taken += units
        return torch.sigmoid(self.params["mlp.out.weight"] @ z + self.params["mlp.out.bias"])

    def gradient(self, h):
        h = h.detach().requires_grad_()
        return torch.autograd.grad(self.f(h), h)[0]

    def gate(self, h):
        z = torch.relu(self.params["gate.0.weight"] @ h[self.network.spec.context.width :] + self.params["gate.0.bias"])
        return torch.sigmoid(self.params["gate.out.weight"] @ z + self.params["gate.out.bias"])

    def direction(self, age, h, radius):
        if age.direction == "fgm":
            return unit(self.gradient(h))
        if age.direction == "ones":
            return unit(torch.ones_like(h))
        dz = torch.zeros_like(h)
        for _ in range(age.steps):
            if age.pgd == "literal":
                dz = unit(dz + self.gradient(h + dz))
            else:
                dz = dz + 2.5 * radius / age.steps * unit(self.gradient(h + dz))
                if dz.norm() > radius:
                    dz = dz * radius / dz.norm()
        return unit(dz)

    def uncertainty(self, age, h, drawn):
        if age.uncertainty == "gaussian":
            one, other = drawn[0].tolist()
            return math.sqrt(-2.0 * math.log(1.0 - one)) * math.cos(2.0 * math.pi * other)
        y = float(self.f(h))
        draws = [float(self.f(h, mask, age.dropout == "last_layer")) for mask in drawn]
        if age.uncertainty == "ucb":
            return math.sqrt(sum((one - y) ** 2 for one in draws) / (len(draws) - 1))
        return draws[0] - y

    def score(self, age, h, drawn, impressions):
        """(y', y_final, dy, gate) of one candidate; drawn (S, U)."""
        y, dy = self.f(h), self.uncertainty(age, h, drawn)
        if age.novelty is not None:
            dy *= math.sqrt(age.novelty / (age.novelty + impressions))
        threshold = {"learned": self.gate(h), "fixed": age.gate_threshold, "none": 0.0}[age.gate]
        is_open = float(y) >= float(threshold) and (age.max_impressions is None or impressions < age.max_impressions)
        g = self.direction(age, h, LAMBDA * abs(dy))
        return float(y), float(self.f(h + (LAMBDA * dy * g if is_open else 0.0))), dy, is_open


def unit(vector):
    norm = vector.norm()
    return vector / norm if norm > 0 else vector


def noise_of(exploration, network, ids, seed=5):
    return draw(
        exploration.noise(network),
        request_seed=np.array([seed], dtype=np.uint64),
        version=77,
        item_hash=item_hashes(ids),
    )


def run(
    age, network, params, batch, noise, *, lambda_=LAMBDA, impressions=None, dtype=torch.float32, static=False
) -> Scores:
    impressions = np.arange(len(batch.item_index)) if impressions is None else impressions
    params = network.prepare({name: value.to(dtype) for name, value in params.items()})
    converted = tensors(batch)
    converted = converted._replace(
        context_weight=converted.context_weight.to(dtype), item_weight=converted.item_weight.to(dtype)
    )
    noise = {name: torch.from_numpy(value).to(dtype) for name, value in noise.items()}
    lambda_ = torch.tensor(lambda_, dtype=dtype)
    return age.scores(network, params, Inputs(converted, noise, lambda_, torch.from_numpy(impressions), static))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_equals_the_float64_autograd_reference(options, network, params, make_request):
    age = Age(rate=0.1, **options)  # a higher rate than the paper's, so that a single mask drops units
    reference = Reference(network, params)
    batch, ids = make_request(COUNT, seed=3)
    noise = noise_of(age, network, ids)
    context, item = network.embed({name: value.double() for name, value in params.items()}, doubled(batch))
    h = torch.cat([context.expand(COUNT, -1), item], dim=1)
    (drawn,) = (torch.from_numpy(one).double() for one in noise.values())
    expected = [reference.score(age, h[row], drawn[:, row if drawn.shape[1] > 1 else 0], row) for row in range(COUNT)]
    y, final, dy, is_open = (np.array(one) for one in zip(*expected, strict=True))
    assert np.any(final != y), "the case explores nothing"
    exact = run(age, network, params, batch, noise, dtype=torch.float64)
    np.testing.assert_allclose(exact.score.numpy(), final, rtol=1e-10)
    np.testing.assert_allclose(exact.uncertainty.numpy(), np.where(is_open, dy, 0.0), rtol=1e-9, atol=1e-14)
    norm = [1.0 if age.direction == "ones" else float(reference.gradient(one).norm()) for one in h]
    np.testing.assert_allclose(exact.gradient_norm.numpy(), np.where(is_open, norm, 0.0), rtol=1e-10)
    assert np.array_equal(exact.gate_open.numpy(), is_open)
    single = run(age, network, params, batch, noise)
    np.testing.assert_allclose(single.p_click.numpy(), y, rtol=1e-5)
    np.testing.assert_allclose(single.score.numpy(), final, rtol=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_static_shapes_give_the_same(options, network, params, make_request):
    age = Age(rate=0.1, **options)
    batch, ids = make_request(COUNT, seed=3)
    noise = noise_of(age, network, ids)
    compact, static = (run(age, network, params, batch, noise, static=static) for static in (False, True))
    for name, one, other in zip(Scores._fields, compact, static, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def doubled(batch):
    converted = tensors(batch)
    return converted._replace(
        context_weight=converted.context_weight.double(), item_weight=converted.item_weight.double()
    )


@pytest.mark.parametrize("uncertainty", ["thompson", "ucb"])
@pytest.mark.parametrize("how", ["closed", "lambda 0", "dy 0", "enough impressions"])
def test_without_a_step_the_score_is_the_prediction_to_the_bit(how, uncertainty, network, params, make_request):
    options = {"closed": {"gate": "fixed", "gate_threshold": 1.1}, "enough impressions": {"max_impressions": 1}}
    age = Age(uncertainty=uncertainty, **options.get(how, {"gate": "none"}))
    batch, ids = make_request(COUNT, seed=4)
    noise = noise_of(age, network, ids)
    if how == "dy 0":  # an output that ignores the masked units
        params = params | {"mlp.out.weight": torch.zeros_like(params["mlp.out.weight"])}
    scores = run(
        age,
        network,
        params,
        batch,
        noise,
        lambda_=0.0 if how == "lambda 0" else LAMBDA,
        impressions=np.full(COUNT, 5, dtype=np.int64),
    )
    assert torch.equal(scores.score, scores.p_click)
    assert how != "dy 0" or (scores.uncertainty.abs() < 1e-7).all()


def test_thompson_is_signed_and_ucb_is_not(network, params, make_request):
    batch, ids = make_request(COUNT, seed=6)
    signed = Age(mask_scope="candidate", rate=0.2, gate="none", direction="fgm")
    scores = run(signed, network, params, batch, noise_of(signed, network, ids))
    assert (scores.uncertainty < 0).any()
    assert (scores.uncertainty > 0).any()
    # To first order the score moves with the sign of dy, since g is a direction of ascent.
    small = run(signed, network, params, batch, noise_of(signed, network, ids), lambda_=0.01)
    moved = small.score != small.p_click
    assert torch.equal(torch.sign(small.score - small.p_click)[moved], torch.sign(small.uncertainty)[moved])
    ucb = Age(uncertainty="ucb", rate=0.2, gate="none", direction="fgm")
    bonus = run(ucb, network, params, batch, noise_of(ucb, network, ids), lambda_=0.01)
    assert (bonus.uncertainty >= 0).all()
    assert (bonus.score >= bonus.p_click).all()


def test_a_dead_network_has_no_direction(network, params, make_request):
    dead = {name: -torch.ones_like(value) if name == "mlp.0.bias" else value for name, value in params.items()}
    dead |= {name: torch.zeros_like(params[name]) for name in ("mlp.0.context", "mlp.0.item")}
    batch, ids = make_request(COUNT, seed=8)
    for options in ({}, {"pgd": "projected"}, {"direction": "fgm"}):
        age = Age(gate="none", rate=0.2, **options)
        scores = run(age, network, dead, batch, noise_of(age, network, ids))
        assert torch.equal(scores.score, scores.p_click)
        assert (scores.gradient_norm == 0).all()


def test_scores_follow_the_candidate_not_its_place(network, params, make_request):
    batch, ids = make_request(COUNT, seed=9)
    order = np.random.default_rng(0).permutation(COUNT)
    shuffled = batch._replace(item_index=batch.item_index[order], item_weight=batch.item_weight[order])
    for scope in ("request", "candidate", "version"):
        policy = Policy(network, params, build("age", {"mask_scope": scope, "rate": 0.1}))
        impressions = np.zeros(COUNT, dtype=np.int64)
        straight = policy.scores(batch, noise_of(policy.strategy.exploration, network, ids), LAMBDA, impressions)
        mixed = policy.scores(
            shuffled,
            noise_of(policy.strategy.exploration, network, [ids[place] for place in order]),
            LAMBDA,
            impressions,
        )
        np.testing.assert_allclose(mixed.score, straight.score[order], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"uncertainty": "ucb", "draws": 1}, "draws"),
        ({"steps": 0}, "steps"),
        ({"rate": 0.0}, "rate"),
        ({"novelty": 0.0}, "novelty"),
    ],
)
def test_refuses_options_that_cannot_explore(options, word):
    with pytest.raises(ValueError, match=word):
        Age(**options)
