"""The click model: summed embeddings, an MLP with dropout, and the item-only gate.

Written as functions of a parameter dictionary, because the parameters are inputs of the exported ranking graphs: a new
version is new tensors for the same graph. The gradient is a hand-written vector-Jacobian product, because autograd does
not export; tests hold it to autograd.

References:
    [1] Wu et al. 2021, "Adversarial Gradient Driven Exploration for Deep Click-Through Rate Prediction",
        arXiv:2112.11136
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.spec import FeatureSpec, Layout
from models.types import Batch

Params = dict[str, Tensor]
Dropout = Literal["full", "last_layer"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the click model.

    Args:
        hidden: units of the MLP's hidden layers.
        dropout: rate, in training after every hidden layer. 0.01 is the paper's.
        gate_hidden: units of the gate's hidden layer.
        initial_ctr: what an untrained model predicts, so that it starts calibrated.
    """

    hidden: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.01
    gate_hidden: int = 32
    initial_ctr: float = 0.05


def tensors(batch: Batch, device: torch.device | str = "cpu") -> Batch[Tensor]:
    """The batch on a device; on the CPU the memory is shared."""
    return Batch(*(torch.from_numpy(array).to(device) for array in batch))


@dataclass(frozen=True)
class ClickNetwork:
    """f(h) and its gate. Holds shapes only; the parameters are always an argument."""

    spec: FeatureSpec
    config: NetworkConfig

    @property
    def context_width(self) -> int:
        return self.spec.context.width

    @property
    def width(self) -> int:
        """D."""
        return self.spec.context.width + self.spec.item.width

    def init(self, generator: torch.Generator) -> Params:
        """Fresh float32 parameters. The scales are ours: He for the MLP, 0.05 for embeddings."""

        def normal(*shape: int, std: float) -> Tensor:
            return torch.randn(*shape, generator=generator) * std

        params = {}
        for layout in (self.spec.context, self.spec.item):
            for table in layout.tables:
                params[f"embedding.{table.name}"] = normal(table.rows, table.width, std=0.05)
        bias = math.log(self.config.initial_ctr / (1.0 - self.config.initial_ctr))
        for name, sizes in (
            ("mlp", (self.width, *self.config.hidden)),
            ("gate", (self.spec.item.width, self.config.gate_hidden)),
        ):
            for layer, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
                params[f"{name}.{layer}.weight"] = normal(fan_out, fan_in, std=math.sqrt(2.0 / fan_in))
                params[f"{name}.{layer}.bias"] = torch.zeros(fan_out)
            params[f"{name}.out.weight"] = normal(sizes[-1], std=0.1 / math.sqrt(sizes[-1]))
            params[f"{name}.out.bias"] = torch.full((), bias)
        return params

    def embed(self, params: Params, batch: Batch[Tensor]) -> Tensor:
        """h = [context | item], (B, D)."""
        context = _pool(params, self.spec.context, batch.context_index, batch.context_weight)  # (C, Dc)
        item = _pool(params, self.spec.item, batch.item_index, batch.item_weight)  # (B, Di)
        return torch.cat([context.expand(item.shape[0], -1), item], dim=1)

    def logit(self, params: Params, h: Tensor, masks: Tensor | None = None, *, dropout: Dropout = "full") -> Tensor:
        """Click logit.

        Args:
            h: (B, D).
            masks: (S, R, U) dropout masks, already scaled by 1 / (1 - rate).
            dropout: what the masks cover: "full", all hidden units in the order of the layers, or "last_layer" alone:
                one trunk and S heads.

        Returns:
            (B,) without masks, (S, B) with.
        """
        start = 0 if dropout == "full" else -sum(self.config.hidden[:-1])
        z = h
        for layer, units in enumerate(self.config.hidden):
            z = torch.relu(functional.linear(z, params[f"mlp.{layer}.weight"], params[f"mlp.{layer}.bias"]))
            if masks is not None and start >= 0:
                z = z * masks[:, :, start : start + units]  # (S, B, H)
            start += units
        return torch.matmul(z, params["mlp.out.weight"]) + params["mlp.out.bias"]

    def click_and_gradient(self, params: Params, h: Tensor) -> tuple[Tensor, Tensor]:
        """f(h) (B,) and grad_h f (B, D), f the click probability, without autograd."""
        z, slopes = h, []
        for layer in range(len(self.config.hidden)):
            a = functional.linear(z, params[f"mlp.{layer}.weight"], params[f"mlp.{layer}.bias"])
            z = torch.relu(a)
            slopes.append((a > 0).to(a.dtype))  # (B, H); torch, too, takes 0 for the slope at 0
        p = torch.sigmoid(torch.matmul(z, params["mlp.out.weight"]) + params["mlp.out.bias"])
        u = (p * (1.0 - p))[:, None] * params["mlp.out.weight"] * slopes[-1]  # (B, H): df/da of the last layer
        for layer in range(len(self.config.hidden) - 1, 0, -1):
            u = torch.matmul(u, params[f"mlp.{layer}.weight"]) * slopes[layer - 1]
        return p, torch.matmul(u, params["mlp.0.weight"])

    def gate(self, params: Params, h: Tensor) -> Tensor:
        """Logit of y_s = f_s(h_item), (B,): [1] eq. (13), a 2-layer MLP. No gradient reaches the embeddings."""
        item = h[:, self.context_width :].detach()
        z = torch.relu(functional.linear(item, params["gate.0.weight"], params["gate.0.bias"]))
        return torch.matmul(z, params["gate.out.weight"]) + params["gate.out.bias"]

    def loss(self, params: Params, batch: Batch[Tensor], masks: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropies of f under dropout and of the gate, trained by their sum ([1] eq. (15)).

        Args:
            batch: B rows, C = B.
            masks: (1, B, U).
            label: (B,) float32, 1 clicked.
        """
        h = self.embed(params, batch)
        click = functional.binary_cross_entropy_with_logits(self.logit(params, h, masks)[0], label)
        gate = functional.binary_cross_entropy_with_logits(self.gate(params, h), label)
        return click, gate


def _pool(params: Params, layout: Layout, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of each field's rows: (R, K) -> (R, width of the side)."""
    parts = []
    for table in layout.tables:
        first, last = table.columns[0], table.columns[-1]
        end = last.start + last.field.slots
        rows = functional.embedding(index[:, first.start : end], params[f"embedding.{table.name}"])
        rows = rows * weight[:, first.start : end, None]  # (R, slots, width)
        single = sum(column.field.slots == 1 for column in table.columns)
        if single:  # `models.spec` puts them first, so that they need no sum
            parts.append(rows[:, :single].flatten(1))
        for column in table.columns[single:]:
            begin = column.start - first.start
            parts.append(rows[:, begin : begin + column.field.slots].sum(1))
    return torch.cat(parts, dim=1) if parts else weight.new_zeros(weight.shape[0], 0)
