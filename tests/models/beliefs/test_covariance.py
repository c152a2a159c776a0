"""The covariance against autograd, one example at a time, in float64."""

import numpy as np
import pytest
import torch

from models.beliefs.belief import Lesson
from models.beliefs.covariance import Covariance
from models.networks.click import ClickNetwork, NetworkConfig, tensors

COUNT = 17
CASES = {
    "all": {"of": "probability", "layers": "all"},
    "all_logit": {"of": "logit", "layers": "all"},
    "last": {"of": "probability", "layers": "last"},
    "last_logit": {"of": "logit", "layers": "last"},
}


@pytest.fixture(scope="module")
def click(spec):
    network = ClickNetwork(spec, NetworkConfig(hidden=(8, 6, 5)))
    params = network.init(torch.Generator().manual_seed(4))
    return network, {name: value.double() * 2.0 for name, value in params.items()}


def doubled(batch):
    batch = tensors(batch)
    return batch._replace(context_weight=batch.context_weight.double(), item_weight=batch.item_weight.double())


def gradients(network, params, batch, of):
    """Of each example on its own: [{parameter: dense gradient}]."""
    live = {name: value.clone().requires_grad_() for name, value in params.items() if not name.startswith("gate.")}
    found = []
    for row in range(len(batch.item_index)):
        one = type(batch)(*(column[row : row + 1] for column in batch))
        said = network.logit(live, one)
        said = torch.sigmoid(said) if of == "probability" else said
        parts = torch.autograd.grad(said.sum(), live.values())
        found.append({name: part.to_dense() for name, part in zip(live, parts, strict=True)})
    return found


def lesson(network, params, batch, context_row=None):
    at = network.forward(params, network.first(params, *network.embed(params, batch), context_row))
    return Lesson(batch, torch.zeros(len(batch.item_index), dtype=torch.float64), context_row, at)


def learned(belief, click, batch, context_row=None):
    network, params = click
    state = {name: value.double() for name, value in belief.init(network, torch.Generator()).kept.items()}
    belief.note(network, params, state, lesson(network, params, batch, context_row), np.random.default_rng())
    return state


def without_collisions(spec, batch):
    """Two values of a bag in one bucket count as two features here, and as one to autograd: empties one's slot."""
    for layout, index, weight in (
        (spec.context, batch.context_index, batch.context_weight),
        (spec.item, batch.item_index, batch.item_weight),
    ):
        for column in layout.columns:
            for slot in range(column.start + 1, column.start + column.field.slots):
                before = index[:, column.start : slot] == index[:, slot : slot + 1]
                weight[before.any(1), slot] = 0.0
    return batch


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_sums_over_every_parameter(case, spec, click, make_training_batch):
    network, params = click
    belief = Covariance(name="any", ridge=0.25, window=None, **case)
    past, now = (without_collisions(spec, doubled(make_training_batch(COUNT, seed=seed))) for seed in (3, 6))
    state = learned(belief, click, past)
    names = state.keys()
    assert names == {name for name in params if "gate" not in name} or case["layers"] == "last"
    u = {name: torch.full_like(params[name], 0.25) for name in names}
    for one in gradients(network, params, past, case["of"]):
        for name in names:
            u[name] += one[name] ** 2
    for name in names:
        torch.testing.assert_close(state[name], u[name], rtol=1e-9, atol=1e-14)
    each = gradients(network, params, now, case["of"])
    expected = [sum(float((0.25 * one[name] ** 2 / u[name]).sum()) for name in names) for one in each]
    norms = [sum(float((one[name] ** 2).sum()) for name in names) for one in each]
    at = lesson(network, params, now).at
    prepared = state | belief.prepare(network, state)
    found = belief.variance(network, params, prepared, now, at)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(belief.variance(network, params, None, now, at), norms, rtol=1e-9)
    assert (found < torch.tensor(norms)).all()  # what was learned makes it surer


def test_one_row_of_context_counts_for_every_candidate(click, make_request, make_training_batch):
    network, params = click
    belief = Covariance(name="any", of="probability", layers="all", ridge=0.25, window=None)
    state = learned(belief, click, doubled(make_training_batch(COUNT, seed=1)))
    prepared = state | belief.prepare(network, state)
    alone, repeated = doubled(make_request(COUNT, seed=2)[0]), doubled(make_training_batch(COUNT, seed=2))
    found = [
        belief.variance(network, params, prepared, one, lesson(network, params, one).at) for one in (alone, repeated)
    ]
    torch.testing.assert_close(*found)


def test_examples_that_share_a_context_count_each(click, make_request, make_training_batch):
    belief = Covariance(name="any", of="probability", layers="all", ridge=0.25, window=None)
    shared, alone = doubled(make_request(COUNT, seed=2)[0]), doubled(make_training_batch(COUNT, seed=2))
    one = learned(belief, click, shared, torch.zeros(COUNT, dtype=torch.int64))
    other = learned(belief, click, alone)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_a_window_forgets(click, make_training_batch):
    network, params = click
    belief = Covariance(name="any", of="logit", layers="last", ridge=0.25, window=2 * COUNT)
    batch = doubled(make_training_batch(COUNT, seed=1))
    state = learned(belief, click, batch)
    once = {name: value.clone() - 0.25 for name, value in state.items()}
    belief.note(network, params, state, lesson(network, params, batch), np.random.default_rng())
    for name, value in state.items():
        torch.testing.assert_close(value, 0.25 + once[name] * (1.0 + np.exp(-0.5)))
