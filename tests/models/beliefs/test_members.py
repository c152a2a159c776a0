"""Members: K click models at once are what K click models are one by one."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.beliefs.members import Members, picked, weighted_loss
from models.networks.click import tensors
from models.networks.embedding import is_table

COUNT, MEMBERS = 11, 3


def apart(network, params, state, tables):
    """The members' parameters, as K dictionaries of a click model's."""
    found = []
    for k in range(MEMBERS):
        one = dict(params)
        for name, value in state.items():
            if is_table(name):
                width = value.shape[1] // MEMBERS
                one[name] = value[:, k * width : (k + 1) * width]
            else:
                one[name] = value[k]
        found.append(one)
    assert (tables == "own") == any(is_table(name) for name in state)
    return found


@pytest.fixture(params=["own", "shared"])
def case(request, network, params):
    members = Members(count=MEMBERS, tables=request.param)
    state = members.init(network, torch.Generator().manual_seed(1))
    return members, state, apart(network, params, state, request.param)


def test_each_says_what_it_would_say_alone(case, network, params, make_request, make_training_batch):
    members, state, alone = case
    for batch in (make_request(COUNT, seed=3)[0], make_training_batch(COUNT, seed=3)):
        logits = members.logits(network, params, state, tensors(batch))
        expected = torch.stack([network.logit(one, tensors(batch)) for one in alone])
        torch.testing.assert_close(logits, expected)
    assert (logits.std(0) > 1e-4).all()  # they were not drawn alike
    rows = torch.zeros(COUNT, dtype=torch.int64)
    shared = members.logits(network, params, state, tensors(make_request(COUNT, seed=3)[0]), rows)
    torch.testing.assert_close(shared, logits)


def test_each_learns_what_it_would_learn_alone(case, network, params, make_training_batch):
    members, state, _ = case
    batch = tensors(make_training_batch(COUNT, seed=3))
    generator = torch.Generator().manual_seed(0)
    clicked, unclicked = (torch.rand(MEMBERS, COUNT, generator=generator) for _ in range(2))
    live = {name: value.clone().requires_grad_() for name, value in state.items()}
    click = {name: params[name].clone().requires_grad_() for name in network.init(torch.Generator())}
    weighted_loss(members.logits(network, click, live, batch), clicked, unclicked).backward()
    assert all(value.grad is None for value in click.values())
    for k, one in enumerate(apart(network, params, state, members.tables)):
        mine = {name: one[name].clone().requires_grad_() for name in state}
        logit = network.logit(one | mine, batch)
        labels = torch.ones(COUNT), torch.zeros(COUNT)
        losses = [functional.binary_cross_entropy_with_logits(logit, y, reduction="none") for y in labels]
        (clicked[k] * losses[0] + unclicked[k] * losses[1]).mean().backward()
        for name, value in mine.items():
            found, expected = live[name].grad.to_dense(), value.grad.to_dense()
            parts = found.tensor_split(MEMBERS, dim=1) if is_table(name) else found
            torch.testing.assert_close(parts[k], expected, rtol=1e-5, atol=1e-8)


def test_every_member_is_picked_as_often():
    each = torch.arange(5.0)[:, None].expand(-1, 4000)
    uniform = torch.from_numpy(np.random.default_rng(0).random((1, 4000, 1)).astype(np.float32))
    counts = torch.bincount(picked(each, uniform).long(), minlength=5)
    assert (counts - 800).abs().max() < 5 * (4000 * 0.2 * 0.8) ** 0.5
    together = picked(each, uniform[:, :1])
    assert (together == together[0]).all()
    extremes = torch.tensor([0.0, 1.0 - 2.0**-24]).reshape(1, 2, 1)
    assert picked(each[:, :2], extremes).tolist() == [0.0, 4.0]
