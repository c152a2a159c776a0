"""The click network: its hand-written gradient, its masks, its gate, its initial calibration."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.networks.click import ClickNetwork, NetworkConfig, tensors


@pytest.mark.parametrize("hidden", [(23, 14, 9), (5,), (8, 30)])
@pytest.mark.parametrize("count", [1, 19])
def test_the_hand_written_gradient_equals_autograd(hidden, count, spec, make_request):
    network = ClickNetwork(spec, NetworkConfig(hidden=hidden))
    params = {name: value.double() * 3 for name, value in network.init(torch.Generator().manual_seed(2)).items()}
    h = torch.randn(count, network.width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h.requires_grad_()
    p = torch.sigmoid(network.logit(params, h))
    (expected,) = torch.autograd.grad(p.sum(), h)
    found_p, found = network.click_and_gradient(params, h)
    assert found.shape == (count, network.width)
    torch.testing.assert_close(found_p, p, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-15)
    assert (expected != 0).any()  # a narrow network has dead rows, whose gradient is 0 on both sides


def test_embed_is_the_weighted_sum_of_each_fields_rows(spec, network, params, make_request):
    batch, _ = make_request(7, seed=1)
    h = network.embed(params, tensors(batch))
    assert h.shape == (7, network.width)
    at = 0
    for layout, index, weight in (
        (spec.context, np.repeat(batch.context_index, 7, 0), np.repeat(batch.context_weight, 7, 0)),
        (spec.item, batch.item_index, batch.item_weight),
    ):
        for table in layout.tables:
            values = params[f"embedding.{table.name}"].numpy()
            for column in table.columns:
                slots = slice(column.start, column.start + column.field.slots)
                for row in range(7):
                    expected = sum(w * values[i] for i, w in zip(index[row, slots], weight[row, slots], strict=True))
                    np.testing.assert_allclose(h[row, at : at + table.width], expected, rtol=1e-5, atol=1e-7)
                at += table.width
    assert at == network.width


def test_masks_of_ones_change_nothing_and_last_layer_masks_equal_full_ones(network, params, make_request):
    batch, _ = make_request(7, seed=2)
    h = network.embed(params, tensors(batch))
    hidden = network.config.hidden
    plain = network.logit(params, h)
    torch.testing.assert_close(network.logit(params, h, torch.ones(4, 1, sum(hidden))), plain.expand(4, 7))
    last = (torch.rand(4, 1, hidden[-1], generator=torch.Generator().manual_seed(0)) > 0.5).float()
    full = torch.cat([torch.ones(4, 1, sum(hidden[:-1])), last], dim=2)
    torch.testing.assert_close(
        network.logit(params, h, last, dropout="last_layer"), network.logit(params, h, full, dropout="full")
    )


def test_no_gradient_of_the_gate_reaches_the_embeddings(network, params, make_request):
    live = {name: value.clone().requires_grad_() for name, value in params.items()}
    batch, _ = make_request(7, seed=3)
    label = (torch.rand(7, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    functional.binary_cross_entropy_with_logits(
        network.gate(live, network.embed(live, tensors(batch))), label
    ).backward()
    reached = {name for name, value in live.items() if value.grad is not None and value.grad.abs().sum() > 0}
    assert reached == {"gate.0.weight", "gate.0.bias", "gate.out.weight", "gate.out.bias"}


def test_the_gate_sees_the_item_alone(network, params, make_request):
    one, _ = make_request(7, seed=4)
    other, _ = make_request(7, seed=5)
    mixed = one._replace(context_index=other.context_index, context_weight=other.context_weight)
    assert not np.array_equal(one.context_index, mixed.context_index)
    torch.testing.assert_close(
        network.gate(params, network.embed(params, tensors(one))),
        network.gate(params, network.embed(params, tensors(mixed))),
        rtol=0,
        atol=0,
    )


def test_an_untrained_model_predicts_the_initial_ctr(spec, make_request):
    network = ClickNetwork(spec, NetworkConfig(initial_ctr=0.031))
    params = network.init(torch.Generator().manual_seed(0))
    batch, _ = make_request(50, seed=0)
    h = network.embed(params, tensors(batch))
    for logit in (network.logit(params, h), network.gate(params, h)):
        assert torch.sigmoid(logit).mean().item() == pytest.approx(0.031, rel=0.1)
