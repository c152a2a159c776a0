"""The formula of each method that adds to the prediction, written again from its parts, in float64."""

import math

import numpy as np
import pytest
import torch

from models.features import item_hashes
from models.networks.click import tensors
from models.noise import draw
from models.policy import Policy
from models.registry import build

COUNT = 17
IMPRESSIONS = np.arange(COUNT) * 40


class Case:
    """One method on one request, with what its formula is made of."""

    def __init__(self, network, params, batch, ids, options):
        self.network, self.batch = network, batch
        self.policy = Policy(network, params, build("any", options))
        self.exploration = self.policy.strategy.exploration
        seed = np.array([5], dtype=np.uint64)
        self.noise = draw(self.policy.noise, request_seed=seed, version=9, item_hash=item_hashes(ids))
        self.params = {name: value.double() if value.is_floating_point() else value for name, value in params.items()}
        one = tensors(batch)
        self.encoded = one._replace(context_weight=one.context_weight.double(), item_weight=one.item_weight.double())
        self.at = network.forward(self.params, network.first(self.params, *network.embed(self.params, self.encoded)))
        self.p = torch.sigmoid(self.at.logit[:, 0])

    def bonus(self):
        """What the method adds at lambda 1, and whether lambda weighs it: (B,) float64."""
        found = self.policy.scores(self.batch, self.noise, 1.0, IMPRESSIONS)
        weak = self.policy.scores(self.batch, self.noise, 0.125, IMPRESSIONS)
        np.testing.assert_allclose(found.p_click, self.p, rtol=1e-5)
        for scores, lambda_ in ((found, 1.0), (weak, 0.125)):
            expected = np.clip(scores.p_click + lambda_ * scores.uncertainty, 0.0, 1.0)
            np.testing.assert_allclose(scores.score, expected, rtol=1e-6)
        return found.uncertainty

    def state(self, prefix):
        return {
            name.removeprefix(f"{prefix}."): value
            for name, value in self.params.items()
            if name.startswith(f"{prefix}.")
        }

    @property
    def normal(self):
        one, other = torch.from_numpy(self.noise["normal"][0]).double().tensor_split(2, dim=1)
        return torch.sqrt(-2.0 * torch.log1p(-one)) * torch.cos(2.0 * math.pi * other)

    def member(self, each):
        return each[int(self.noise["member"].item() * len(each))]

    def item_rows(self):
        (column,) = (c for table in self.network.spec.item.tables for c in table.columns if c.field.source == "id")
        return torch.from_numpy(self.batch.item_index[:, column.start].astype(np.int64)) - column.offset

    def sigma(self):
        """Of the gradient, from the covariance; tests/models/beliefs hold that to autograd."""
        belief = self.exploration.beliefs[0]
        state = self.state("gradient")
        variance = belief.variance(
            self.network, self.params, state | belief.prepare(self.network, state), self.encoded, self.at
        )
        return torch.sqrt(self.exploration.nu * variance)


def ensemble(case):
    members = case.exploration.beliefs[0].shape
    each = members.logits(case.network, case.params, case.state(case.exploration.beliefs[0].name), case.encoded)
    each = torch.sigmoid(each)
    return each.std(0) if getattr(case.exploration, "uncertainty", None) == "ucb" else case.member(each) - case.p


def heads(case):
    state = case.state("heads")
    each = torch.sigmoid(state["weight"] @ case.at.hidden[-1].T + state["bias"][:, None])
    return each.std(0) if case.exploration.uncertainty == "ucb" else case.member(each) - case.p


def gradient(case):
    return case.sigma() * (1.0 if case.exploration.uncertainty == "ucb" else case.normal[:, 0])


def underestimation(case):
    weight = 1_000.0 / (1_000.0 + torch.from_numpy(IMPRESSIONS))
    return weight * case.sigma() * (1.0 if case.exploration.uncertainty == "ucb" else case.normal[:, 0].abs())


def plug_ts(case):
    g = torch.cat([case.at.hidden[-1], torch.ones(COUNT, 1)], dim=1)
    u = torch.full((g.shape[1],), 0.1, dtype=torch.float64)
    if case.exploration.covariance == "diagonal":
        state = case.state("plug_ts")
        u = torch.cat([state["mlp.out.weight"], state["mlp.out.bias"].reshape(1)])
    spread = torch.sqrt(0.1 * 1e-3 / u)
    if case.exploration.scope == "candidate":
        moved = torch.sqrt(((spread * g) ** 2).sum(1)) * case.normal[:, 0]
    else:
        moved = g @ (spread * case.normal[0])  # one sample of the weights
    return torch.sigmoid(case.at.logit[:, 0] + moved) - case.p


def mc_dropout(case):
    draws = torch.sigmoid(
        case.network.draws(
            case.params, case.at.hidden, torch.from_numpy(case.noise["masks"]).double(), case.exploration.dropout
        )
    )
    if case.exploration.uncertainty == "ucb":
        return draws.std(0) * torch.sqrt(25.0 / (25.0 + torch.from_numpy(IMPRESSIONS)))
    return draws[0] - case.p


def deep_ucb1(case):
    t = float(case.params["total.examples"])
    return 0.1 * torch.sqrt(math.log(t) / torch.from_numpy(IMPRESSIONS).clamp(min=1))


def count_ucb(case):
    rows, state = case.item_rows(), case.state("counts")
    shown, clicked = state["shown"][rows].double(), state["clicked"][rows].double()
    rate = (clicked + 1.0) / (shown + 2.0)
    return rate + 1.96 * torch.sqrt(rate * (1.0 - rate) / (shown + 2.0)) - case.p


def item_laplace(case):
    one = case.exploration
    sigma = 1.0 / torch.sqrt(1.0 / one.prior_sd**2 + torch.from_numpy(IMPRESSIONS) * case.p * (1.0 - case.p))
    z = case.normal[:, 0] if one.uncertainty == "thompson" else 1.0
    return torch.sigmoid(torch.logit(case.p) + z * sigma) - case.p


def item_posterior(case):
    one, rows, state = case.exploration, case.item_rows(), case.state("residuals")
    weight = case.p * (1.0 - case.p) / (1.0 / one.prior_sd**2 + state["information"][rows])
    mean = case.p + weight * state["residual"][rows]
    e = case.normal[:, 0] if one.uncertainty == "thompson" else 1.0
    return mean + one.z * e * torch.sqrt(weight * mean * (1.0 - mean)) - case.p


def gaussian_process(case):
    belief, state = case.exploration.beliefs[0], case.state("gp")
    mean, variance = belief.posterior(case.network, state | belief.prepare(case.network, state), case.at.hidden[-1])
    if case.exploration.uncertainty == "thompson":
        return torch.sigmoid(mean + torch.sqrt(variance) * case.normal[:, 0]) - case.p
    grid = torch.linspace(-9.0, 9.0, 20_001, dtype=torch.float64)[:, None]
    p, weight = torch.sigmoid(mean + torch.sqrt(variance) * grid), torch.exp(-0.5 * grid**2)
    weight = weight / weight.sum()
    centre = (weight * p).sum(0)
    return centre + torch.sqrt((weight * (p - centre) ** 2).sum(0)) - case.p


def density(case):
    mean, variance = case.exploration.beliefs[0].mixture(case.state("density"), case.at.hidden[-1]).moments()
    return mean + 1.0 * torch.sqrt(variance) - case.p


def linear(case):
    belief, state = case.exploration.beliefs[0], case.state("logistic")
    mean, variance = belief.posterior(case.network, state | belief.prepare(case.network, state), case.encoded)
    if case.policy.strategy.method == "ts_blr":
        return torch.sigmoid(mean + torch.sqrt(variance) * case.normal[:, 0]) - case.p
    return torch.sigmoid(mean + torch.sqrt(math.log(float(state["examples"])) * variance)) - case.p


BAGS = ("bootstrap", "online_bootstrap", "giro", "guideboot", "online_guideboot")
CASES = [
    *((ensemble, {"method": name}) for name in ("ensemble", *BAGS)),
    (ensemble, {"method": "ensemble", "uncertainty": "ucb"}),
    (heads, {"method": "multi_head"}),
    (heads, {"method": "multi_head", "uncertainty": "ucb"}),
    (gradient, {"method": "gradient"}),
    (gradient, {"method": "gradient", "uncertainty": "ucb"}),
    (underestimation, {"method": "underestimation"}),
    (underestimation, {"method": "underestimation", "uncertainty": "ucb"}),
    (plug_ts, {"method": "plug_ts"}),
    (plug_ts, {"method": "plug_ts", "covariance": "none"}),
    (plug_ts, {"method": "plug_ts", "scope": "request"}),
    (mc_dropout, {"method": "mc_dropout"}),
    (mc_dropout, {"method": "mc_dropout", "uncertainty": "ucb", "dropout": "full", "novelty": 25.0}),
    (deep_ucb1, {"method": "deep_ucb1"}),
    (count_ucb, {"method": "count_ucb"}),
    (item_laplace, {"method": "item_laplace"}),
    (item_laplace, {"method": "item_laplace", "uncertainty": "thompson", "prior_sd": 2.0}),
    (item_posterior, {"method": "item_posterior"}),
    (item_posterior, {"method": "item_posterior", "uncertainty": "ucb", "prior_sd": 0.3, "z": 2.0}),
    (gaussian_process, {"method": "gaussian_process"}),
    (gaussian_process, {"method": "gaussian_process", "uncertainty": "ucb"}),
    (density, {"method": "density"}),
    (linear, {"method": "ts_blr"}),
    (linear, {"method": "glm_ucb"}),
]


@pytest.mark.parametrize(("formula", "options"), CASES, ids=["-".join(map(str, one.values())) for _, one in CASES])
def test_equals_its_formula(formula, options, network, params, make_request):
    case = Case(network, params, *make_request(COUNT, seed=3), options)
    expected = formula(case).numpy()
    assert np.ptp(expected) > 1e-5, "the case does not tell candidates apart"
    np.testing.assert_allclose(case.bonus(), expected, rtol=2e-4, atol=2e-6)


def test_deep_ts_beta_is_a_beta_distribution_about_the_prediction(network, params, make_request):
    """Over many requests: mean f, variance f (1 - f) / (n + 2), since a + b = n + 1."""
    batch, ids = make_request(COUNT, seed=3)
    policy = Policy(network, params, build("deep_ts_beta", {}))
    found = []
    for seed in range(200):
        noise = draw(
            policy.noise, request_seed=np.array([seed], dtype=np.uint64), version=9, item_hash=item_hashes(ids)
        )
        scores = policy.scores(batch, noise, 1.0, IMPRESSIONS)
        found.append(scores.score)
    p = scores.p_click.astype(np.float64)
    variance = p * (1.0 - p) / (IMPRESSIONS + 2.0)
    np.testing.assert_allclose(np.mean(found, axis=0), p, atol=5.0 * np.sqrt(variance.max() / 200))
    assert np.mean(np.var(found, axis=0) / variance) == pytest.approx(1.0, abs=0.15)


def test_epsilon_falls_to_zero_over_its_horizon(network, params, make_request):
    batch, ids = make_request(COUNT, seed=3)
    shares = {}
    for horizon in (1, 930, 10**9):
        policy = Policy(network, params, build("epsilon_greedy", {"epsilon": 0.5, "horizon": horizon}))
        explored = 0
        for seed in range(100):
            noise = draw(
                policy.noise, request_seed=np.array([seed], dtype=np.uint64), version=9, item_hash=item_hashes(ids)
            )
            explored += int(policy.scores(batch, noise, 1.0, IMPRESSIONS).gate_open[0])
        shares[horizon] = explored / 100
    assert float(params["total.examples"]) == 465  # half of the second horizon
    assert shares[1] == 0.0
    assert shares[930] == pytest.approx(0.25, abs=0.17)
    assert shares[10**9] == pytest.approx(0.5, abs=0.17)


def test_textbook_epsilon_greedy_goes_by_the_counts(network, params, make_request):
    batch, ids = make_request(COUNT, seed=3)
    case = Case(network, params, batch, ids, {"method": "epsilon_greedy", "estimate": "counts", "epsilon": 1e-6})
    rows, state = case.item_rows(), case.state("counts")
    rate = state["clicked"][rows] / state["shown"][rows].clamp(min=1)
    np.testing.assert_allclose(case.policy.scores(batch, case.noise, 1.0, IMPRESSIONS).score, rate, rtol=1e-6)
