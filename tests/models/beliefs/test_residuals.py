"""The residuals against sums over the examples of each id; where the model is a constant, a posterior of them."""

from collections import defaultdict

import numpy as np
import torch

from models.beliefs.belief import Lesson, fresh, named
from models.beliefs.counts import id_rows
from models.beliefs.residuals import Residuals
from models.features import Encoder
from models.learner import Learner
from models.networks.click import ClickNetwork, Forward, NetworkConfig, tensors
from models.policy import Policy
from models.registry import build
from models.spec import FeatureSpec

COUNT, BATCHES = 31, 6


def test_sums_over_the_examples_of_each_id(network, make_request, make_training_batch):
    belief = Residuals()
    learner = Learner(network, learning_rate=1e-2, seed=3, beliefs=[belief])
    rng = np.random.default_rng(0)
    expected = defaultdict(lambda: np.zeros(2))  # row of the id -> S, I
    (column,) = (c for table in network.spec.item.tables for c in table.columns if c.field.source == "id")
    for seed in range(BATCHES):
        batch, label = make_training_batch(COUNT, seed=seed), (rng.random(COUNT) < 0.4).astype(np.float32)
        foreseen = learner.predict(batch).astype(np.float64)
        learner.learn(batch, label)
        for row, p, y in zip(batch.item_index[:, column.start] - column.offset, foreseen, label, strict=True):
            expected[int(row)] += y - p, p * (1.0 - p)
    assert COUNT < len(expected) < BATCHES * COUNT  # some ids came again
    batch, _ = make_request(COUNT, seed=2)
    state = {name.removeprefix("residuals."): value for name, value in learner.params.items()}
    found = torch.stack(belief.of(network, state, tensors(batch)), dim=1)
    wanted = [expected[int(row)] for row in batch.item_index[:, column.start] - column.offset]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_of_a_constant_model_the_posterior_is_a_beta_distribution(network, make_request):
    """From a prior with the model's prediction as its mean and the weight of k impressions."""
    f, n, count = network.config.initial_ctr, 7, 9
    k = 1.0 / (0.4**2 * f * (1.0 - f))
    batch, _ = make_request(count, seed=2)
    assert len(id_rows(network.spec, tensors(batch)).unique()) == count
    belief, clicks = Residuals(), np.arange(count) % 5
    state = belief.init(network, torch.Generator()).kept
    logit = torch.full((count, 1), float(np.log(f / (1.0 - f))))
    for number in range(n):
        label = torch.from_numpy((number < clicks).astype(np.float32))
        lesson = Lesson(tensors(batch), label, None, Forward(logit, (logit,), logit))
        belief.note(network, {}, state, lesson, np.random.default_rng())
    params = fresh(network, [], seed=0) | named(belief, state)
    params["mlp.out.weight"] = torch.zeros_like(params["mlp.out.weight"])
    ucb = build("item_posterior", {"uncertainty": "ucb", "prior_sd": 0.4, "z": 1.0})
    scores = Policy(network, params, ucb).scores(batch, {}, 1.0, np.zeros(count, np.int64))
    a, b = k * f + clicks, k * (1.0 - f) + n - clicks
    mean = a / (a + b)
    np.testing.assert_allclose(scores.p_click, f, rtol=1e-6)
    np.testing.assert_allclose(scores.score, mean + np.sqrt(mean * (1.0 - mean) / (a + b)), rtol=1e-5)


def test_items_without_an_id_are_told_apart_by_their_rows():
    """All 6 x 5 pairs of two fields, of which two examples each are learned."""
    fields = [f'[[fields]]\nname = "{one}"\nside = "item"\nkind = "categorical"\nbuckets = 9' for one in ("a", "b")]
    network = ClickNetwork(FeatureSpec.from_toml("\n".join(fields)), NetworkConfig(hidden=(4,), initial_ctr=0.2))
    pairs = [{"a": a, "b": b} for a in range(6) for b in range(5)]
    batch = tensors(Encoder(network.spec).batch([""] * len(pairs), pairs))
    distinct = batch.item_index.unique(dim=0, return_inverse=True)[1]  # buckets may hold two values
    belief = Residuals()
    state = belief.init(network, torch.Generator()).kept
    logit, label = torch.linspace(-2.0, 0.0, len(pairs))[:, None], torch.arange(len(pairs)) % 2.0
    for _ in range(2):
        lesson = Lesson(batch, label, None, Forward(logit, (logit,), logit))
        belief.note(network, {}, state, lesson, np.random.default_rng())
    p = torch.sigmoid(logit[:, 0].double())
    found = belief.of(network, state, batch)
    for sums, each in zip(found, (label - p, p * (1.0 - p)), strict=True):
        wanted = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, distinct, 2.0 * each)[distinct]
        np.testing.assert_allclose(sums, wanted, rtol=1e-5)


def test_an_example_counts_for_those_that_were_left_out(network, make_training_batch):
    belief, batch = Residuals(), make_training_batch(COUNT, seed=3)
    label = (np.random.default_rng(1).random(COUNT) < 0.4).astype(np.float32)
    whole, sampled = (
        Learner(network, learning_rate=1e-2, seed=3, beliefs=[belief], negative_rate=rate) for rate in (1.0, 0.25)
    )
    p = whole.predict(batch)
    whole.learn(batch, label)
    sampled.learn(batch, label)  # of which the sampler has kept a quarter of the unclicked
    rows, weight = id_rows(network.spec, tensors(batch)).numpy(), np.where(label > 0, 1.0, 4.0)
    for weights, learner in ((np.ones(COUNT), whole), (weight, sampled)):
        expected = np.zeros((2, len(learner.params["residuals.residual"])))
        np.add.at(expected[0], rows, weights * (label - p))
        np.add.at(expected[1], rows, weights * p * (1.0 - p))
        np.testing.assert_allclose(learner.params["residuals.residual"], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(learner.params["residuals.information"], expected[1], rtol=1e-5, atol=1e-6)
