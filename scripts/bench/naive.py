"""The same network and the same method written the obvious way: what AGE costs whoever follows the paper line by line.

torch modules, autograd for every gradient, a full pass of its own for every dropout mask, everything for all
candidates. It shares no code with `models`, so it is a reference for exactness, too. The masks are arguments: equal
masks give comparable scores.

References:
    [1] Wu et al. 2021, arXiv:2112.11136v1.
"""

import io
import warnings
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn


class NaiveNetwork(nn.Module):
    """The benchmark's network, which has categorical fields alone.

    Args:
        params: of `models.networks.click`; copied.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        super().__init__()
        params = {name: value.detach().clone() for name, value in params.items()}
        self.context_embedding = _table(params, "embedding.context_")
        self.item_embedding = _table(params, "embedding.item_")
        first = torch.cat([params["mlp.0.context"], params["mlp.0.item"]], dim=1)
        weights = [first, params["mlp.1.weight"], params["mlp.2.weight"]]
        biases = [params[f"mlp.{layer}.bias"] for layer in range(len(weights))]
        self.hidden = nn.ModuleList(map(_linear, weights, biases))
        self.out = _linear(params["mlp.out.weight"][None], params["mlp.out.bias"][None])
        self.gate = nn.Sequential(
            _linear(params["gate.0.weight"], params["gate.0.bias"]),
            nn.ReLU(),
            _linear(params["gate.out.weight"][None], params["gate.out.bias"][None]),
        )

    def embed(self, context_index: Tensor, item_index: Tensor) -> Tensor:
        """(1, Kc) and (B, Ki) rows of the tables -> h (B, D)."""
        item = self.item_embedding(item_index).flatten(1)
        context = self.context_embedding(context_index).flatten(1)
        return torch.cat([context.expand(item.shape[0], -1), item], dim=1)

    def click(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """f(h) (B,), under a dropout mask (1, U) or (B, U) over all hidden units where one is given."""
        z, start = h, 0
        for layer in self.hidden:
            z = torch.relu(layer(z))
            if mask is not None:
                z = z * mask[:, start : start + z.shape[1]]
            start += z.shape[1]
        return torch.sigmoid(self.out(z)).squeeze(1)

    def threshold(self, h: Tensor) -> Tensor:
        """y_s (B,), from the item's part of h."""
        item = h[:, -cast(nn.Linear, self.gate[0]).in_features :]
        return torch.sigmoid(self.gate(item)).squeeze(1)

    def forward(self, context_index: Tensor, item_index: Tensor) -> Tensor:
        """What a ranking without exploration is."""
        return self.click(self.embed(context_index, item_index))


def age(
    network: NaiveNetwork, context_index: Tensor, item_index: Tensor, masks: Tensor, lambda_: float, *, steps: int = 3
) -> Tensor:
    """y_final (B,) of AGE with literal projected gradient descent and the learned gate.

    Args:
        masks: (N, 1, U) over all hidden units. One is Thompson sampling, several are UCB.
        steps: T.
    """
    h = network.embed(context_index, item_index).detach()
    p, gradient = _click_and_gradient(network, h)
    with torch.no_grad():
        draws = torch.stack([network.click(h, mask) for mask in masks])  # (N, B)
    uncertainty = draws[0] - p  # [1] eq. (9)
    if len(masks) > 1:
        uncertainty = torch.sqrt(((draws - p) ** 2).sum(0) / (len(masks) - 1))  # [1] eq. (8)
    dz = nn.functional.normalize(gradient)
    for _ in range(1, steps):
        dz = nn.functional.normalize(dz + _click_and_gradient(network, h + dz)[1])  # [1] eq. (11)
    with torch.no_grad():
        explored = network.click(h + lambda_ * uncertainty[:, None] * dz)
        return torch.where(p >= network.threshold(h), explored, p)  # [1] eq. (14)


def full_masks(masks: Tensor, network: NaiveNetwork) -> Tensor:
    """Masks of the last layer (N, R, H) as such over all hidden units: nothing before it is dropped."""
    units = sum(cast(nn.Linear, layer).out_features for layer in network.hidden)
    return nn.functional.pad(masks, (units - masks.shape[2], 0), value=1.0)


def plain_graph(network: NaiveNetwork) -> bytes:
    """`NaiveNetwork.forward` as ONNX with the weights in it: "context_index", "item_index" int32 -> "p_click" (B,)."""
    sides = network.context_embedding, network.item_embedding
    width = network.context_embedding.embedding_dim
    inputs = cast(nn.Linear, network.gate[0]).in_features
    slots = (cast(nn.Linear, network.hidden[0]).in_features - inputs) // width, inputs // width
    assert all(side.embedding_dim == width for side in sides), "both sides have fields of one width"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as in `models.export`
        torch.onnx.export(
            network,
            (torch.zeros(1, slots[0], dtype=torch.int32), torch.zeros(3, slots[1], dtype=torch.int32)),
            cast(str, buffer),
            input_names=["context_index", "item_index"],
            output_names=["p_click"],
            dynamic_axes={"item_index": {0: "candidates"}, "p_click": {0: "candidates"}},
            opset_version=17,
            dynamo=False,
        )
    return buffer.getvalue()


def _click_and_gradient(network: NaiveNetwork, h: Tensor) -> tuple[Tensor, Tensor]:
    """f(h) (B,) and its gradient (B, D)."""
    h = h.detach().requires_grad_()
    p = network.click(h)
    (gradient,) = torch.autograd.grad(p.sum(), h)
    return p.detach(), gradient


def _table(params: Mapping[str, Tensor], prefix: str) -> nn.Embedding:
    (weight,) = (value for name, value in params.items() if name.startswith(prefix))
    return nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight, _freeze=True)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    return layer
