"""The click network: its hand-written gradient, its masks, its gate, its initial calibration."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.spec import FeatureSpec
from models.types import Batch


@pytest.mark.parametrize("hidden", [(23, 14, 9), (5,), (8, 30), (61, 4)])
@pytest.mark.parametrize("count", [1, 19])
def test_the_hand_written_gradient_equals_autograd(hidden, count, spec, make_request):
    """D is 20, so the Gram matrix pays below 40 units and not above."""
    network = ClickNetwork(spec, NetworkConfig(hidden=hidden))
    params = {name: value.double() * 3 for name, value in network.init(torch.Generator().manual_seed(2)).items()}
    params = network.prepare(params)
    assert ("prepared.gram" in params) == (hidden[0] < 40)
    h = torch.randn(count, network.width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h.requires_grad_()
    context, item = h.split([spec.context.width, spec.item.width], dim=1)
    at = network.forward(params, network.first(params, context, item))
    p = torch.sigmoid(at.logit)
    (expected,) = torch.autograd.grad(p.sum(), h)
    u = network.pullback(params, at)
    weight = torch.cat([params["mlp.0.context"], params["mlp.0.item"]], dim=1)
    torch.testing.assert_close(u @ weight, expected, rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(network.lift(params, u), expected @ weight.T, rtol=1e-10, atol=1e-15)
    onto = torch.rand(count, hidden[0], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(network.lift(params, u, onto=onto), onto + expected @ weight.T, rtol=1e-10, atol=1e-15)
    assert (expected != 0).any()  # a narrow network has dead rows, whose gradient is 0 on both sides


def test_embed_is_the_weighted_sum_of_each_fields_rows(spec, network, params, make_request):
    batch, _ = make_request(7, seed=1)
    sides = network.embed(params, tensors(batch))
    layouts = (
        (spec.context, batch.context_index, batch.context_weight),
        (spec.item, batch.item_index, batch.item_weight),
    )
    for found, (layout, index, weight) in zip(sides, layouts, strict=True):
        at = 0
        for table in layout.tables:
            values = params[f"embedding.{table.name}"].numpy()
            for column in table.columns:
                slots = slice(column.start, column.start + column.field.slots)
                for row in range(len(index)):
                    expected = sum(w * values[i] for i, w in zip(index[row, slots], weight[row, slots], strict=True))
                    np.testing.assert_allclose(found[row, at : at + table.width], expected, rtol=1e-5, atol=1e-7)
                at += table.width
        assert found.shape == (len(index), at)
        assert at == layout.width


def test_one_row_of_context_counts_for_every_candidate(network, params, make_request, make_training_batch):
    alone, repeated = tensors(make_request(7, seed=2)[0]), tensors(make_training_batch(7, seed=2))
    torch.testing.assert_close(network.logit(params, alone), network.logit(params, repeated))


def test_a_network_needs_no_context():
    spec = FeatureSpec.from_toml('[[fields]]\nname="id"\nside="item"\nkind="categorical"\nbuckets=7\nsource="id"')
    network = ClickNetwork(spec, NetworkConfig(hidden=(5, 3)))
    params = network.init(torch.Generator().manual_seed(0))
    item = torch.arange(4, dtype=torch.int32)[:, None]
    batch = Batch(item[:1, :0], torch.ones(1, 0), item, torch.ones(4, 1))
    z = params["embedding.item_8"][:4]
    for layer, name in enumerate(("mlp.0.item", "mlp.1.weight")):
        z = torch.relu(z @ params[name].T + params[f"mlp.{layer}.bias"])
    expected = z @ params["mlp.out.weight"] + params["mlp.out.bias"]
    torch.testing.assert_close(network.logit(params, batch), expected)


@pytest.mark.parametrize("rows", [1, 7])
def test_draws_mask_the_units_of_every_layer_or_of_the_last(rows, network, params, make_request):
    batch, _ = make_request(7, seed=2)
    at = network.forward(params, network.first(params, *network.embed(params, tensors(batch))))
    hidden = network.config.hidden
    masks = 1.25 * (torch.rand(4, rows, sum(hidden), generator=torch.Generator().manual_seed(0)) > 0.2).float()
    for dropout, taken in (("full", masks), ("last_layer", masks[:, :, -hidden[-1] :])):
        found = network.draws(params, at.hidden, taken, dropout)
        assert found.shape == (4, 7)
        for draw in range(4):
            mask = masks[draw] if dropout == "full" else torch.cat([torch.ones(rows, sum(hidden[:-1])), taken[draw]], 1)
            parts = mask.split(list(hidden), dim=1)
            z = at.hidden[0] * parts[0]
            for layer in (1, 2):
                a = z @ params[f"mlp.{layer}.weight"].T + params[f"mlp.{layer}.bias"]
                z = torch.relu(a) * parts[layer]
            torch.testing.assert_close(found[draw], z @ params["mlp.out.weight"] + params["mlp.out.bias"])


def test_no_gradient_of_the_gate_reaches_the_embeddings(network, params, make_request):
    live = {name: params[name].clone().requires_grad_() for name in network.init(torch.Generator())}
    batch, _ = make_request(7, seed=3)
    label = (torch.rand(7, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    functional.binary_cross_entropy_with_logits(
        network.gate(live, network.embed(live, tensors(batch))[1])[:, 0], label
    ).backward()
    reached = {name for name, value in live.items() if value.grad is not None and value.grad.abs().sum() > 0}
    assert reached == {"gate.0.weight", "gate.0.bias", "gate.out.weight", "gate.out.bias"}


def test_the_gate_sees_the_item_alone(network, params, make_request):
    one, _ = make_request(7, seed=4)
    other, _ = make_request(7, seed=5)
    mixed = one._replace(context_index=other.context_index, context_weight=other.context_weight)
    assert not np.array_equal(one.context_index, mixed.context_index)
    torch.testing.assert_close(
        network.gate(params, network.embed(params, tensors(one))[1]),
        network.gate(params, network.embed(params, tensors(mixed))[1]),
        rtol=0,
        atol=0,
    )


def test_an_untrained_model_predicts_the_initial_ctr(spec, make_request):
    network = ClickNetwork(spec, NetworkConfig(initial_ctr=0.031))
    params = network.init(torch.Generator().manual_seed(0))
    batch, _ = make_request(50, seed=0)
    _, item = network.embed(params, tensors(batch))
    for logit in (network.logit(params, tensors(batch)), network.gate(params, item)):
        assert torch.sigmoid(logit).mean().item() == pytest.approx(0.031, rel=0.1)
