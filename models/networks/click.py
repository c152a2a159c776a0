"""The click model: summed embeddings, an MLP with dropout, and the item-only gate.

Written as functions of a parameter dictionary, because the parameters are inputs of the exported ranking graphs: a new
version is new tensors for the same graph. The gradient is a hand-written vector-Jacobian product, because autograd does
not export; tests hold it to autograd.

Everything after the embeddings happens in the first layer's pre-activations, a = W1 h + b1. A step dz of h is known
there by its image W1 dz, and a gradient W1' u by its u = df/da, so that no pass needs h again: see `lift`.

References:
    [1] Wu et al. 2021, "Adversarial Gradient Driven Exploration for Deep Click-Through Rate Prediction",
        arXiv:2112.11136
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.networks.embedding import TABLE, pool
from models.networks.slope import slope
from models.spec import FeatureSpec
from models.types import Batch

Params = dict[str, Tensor]
Dropout = Literal["full", "last_layer"]

#: Prefix of what `ClickNetwork.prepare` adds.
PREPARED = "prepared."


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


class Forward(NamedTuple):
    """What one pass through the MLP leaves for those that start from it."""

    a: Tensor  # (B, H) of the first layer, before its ReLU
    hidden: tuple[Tensor, ...]  # (B, H) of each layer, after its ReLU
    logit: Tensor  # (B, 1)

    def take(self, rows: Tensor) -> "Forward":
        """Of some candidates only."""
        return Forward(self.a[rows], tuple(z[rows] for z in self.hidden), self.logit[rows])


class Loss(NamedTuple):
    """Mean cross entropies, trained by their sum ([1] eq. (15)), and what the network says without dropout."""

    click: Tensor  # () of f under dropout
    gate: Tensor  # () of f_s
    p_click: Tensor  # (B,), has no gradient


def tensors(batch: Batch, device: torch.device | str = "cpu") -> Batch[Tensor]:
    """The batch on a device; on the CPU the memory is shared."""
    return Batch(*(torch.from_numpy(array).to(device) for array in batch))


@dataclass(frozen=True)
class ClickNetwork:
    """f(h) and its gate. Holds shapes only; the parameters are always an argument."""

    spec: FeatureSpec
    config: NetworkConfig

    @property
    def width(self) -> int:
        """D."""
        return self.spec.context.width + self.spec.item.width

    def init(self, generator: torch.Generator) -> Params:
        """Fresh float32 parameters. The scales are ours: He for the MLP, 0.05 for embeddings.

        The first layer's columns are two parameters, `mlp.0.context` (H, Dc) and `mlp.0.item` (H, Di).
        """

        def normal(*shape: int, std: float) -> Tensor:
            return torch.randn(*shape, generator=generator) * std

        params = {}
        for layout in (self.spec.context, self.spec.item):
            for table in layout.tables:
                params[f"{TABLE}{table.name}"] = normal(table.rows, table.width, std=0.05)
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
        first = params.pop("mlp.0.weight")
        params["mlp.0.context"] = first[:, : self.spec.context.width].clone()
        params["mlp.0.item"] = first[:, self.spec.context.width :].clone()
        return params

    def prepare(self, params: Params) -> Params:
        """The parameters, and what ranking derives from them alone: `prepared.gram`, W1 W1' (H, H), where it pays."""
        if not self._gram_is_cheaper:
            return params
        context, item = params["mlp.0.context"], params["mlp.0.item"]
        return params | {f"{PREPARED}gram": context @ context.T + item @ item.T}

    def embed(self, params: Params, batch: Batch[Tensor]) -> tuple[Tensor, Tensor]:
        """h = [context | item] in its two parts, (C, Dc) and (B, Di)."""
        context = pool(params, self.spec.context, batch.context_index, batch.context_weight)
        return context, pool(params, self.spec.item, batch.item_index, batch.item_weight)

    def first(self, params: Params, context: Tensor, item: Tensor, context_row: Tensor | None = None) -> Tensor:
        """a = W1 h + b1, (B, H). The context's share is computed once a row of context.

        Args:
            context: (C, Dc).
            item: (B, Di).
            context_row: (B,) int64, each candidate's row of context; None where C is 1 or B.
        """
        shared = functional.linear(context, params["mlp.0.context"], params["mlp.0.bias"])
        if context_row is not None:
            shared = shared.index_select(0, context_row)
        return torch.addmm(shared, item, params["mlp.0.item"].T)

    def forward(self, params: Params, a: Tensor) -> Forward:
        """f from the first layer's pre-activations (B, H) on."""
        hidden = [torch.relu(a)]
        for layer in range(1, len(self.config.hidden)):
            hidden.append(_relu_layer(params, layer, hidden[-1]))
        return Forward(a, tuple(hidden), _heads(hidden[-1], params["mlp.out.weight"][None], params["mlp.out.bias"]).T)

    def logit(self, params: Params, batch: Batch[Tensor]) -> Tensor:
        """Click logit without dropout, (B,)."""
        return self.forward(params, self.first(params, *self.embed(params, batch))).logit.squeeze(1)

    def draws(self, params: Params, hidden: Sequence[Tensor], masks: Tensor, dropout: Dropout = "full") -> Tensor:
        """Click logits under dropout, (S, B).

        Args:
            hidden: `Forward.hidden`; "full" reads its first layer alone.
            masks: (S, R, U) dropout masks, already scaled by 1 / (1 - rate).
            dropout: what the masks cover: "full", all hidden units in the order of the layers, or "last_layer" alone:
                one trunk and S heads.
        """
        weight, bias = params["mlp.out.weight"], params["mlp.out.bias"]
        draws, rows = masks.shape[:2]
        if dropout == "last_layer":
            if rows == 1:
                return _heads(hidden[-1], masks[:, 0] * weight, bias)
            return torch.matmul(hidden[-1] * masks, weight) + bias
        z, start = hidden[0], 0
        for layer, units in enumerate(self.config.hidden):
            if layer:
                z = _relu_layer(params, layer, z.reshape(-1, self.config.hidden[layer - 1])).reshape(draws, -1, units)
            z = z * masks[:, :, start : start + units]  # (S, B, H)
            start += units
        return _heads(z.reshape(-1, self.config.hidden[-1]), weight[None], bias).reshape(draws, -1)

    def pullback(self, params: Params, at: Forward) -> Tensor:
        """u = df/da (B, H), f the click probability, without autograd: grad_h f = W1' u."""
        p = torch.sigmoid(at.logit)
        u = p * (1.0 - p) * params["mlp.out.weight"] * slope(at.hidden[-1])
        for layer in range(len(self.config.hidden) - 1, 0, -1):
            u = torch.matmul(u, params[f"mlp.{layer}.weight"]) * slope(at.hidden[layer - 1])
        return u

    def lift(self, params: Params, u: Tensor, *, onto: Tensor | None = None) -> Tensor:
        """The image W1 W1' u (B, H) of the gradient W1' u, plus `onto`. Inner products with the gradient: with u.

        With the Gram matrix H^2 multiplications a row, without it 2 D H: `prepare` chose.
        """
        if self._gram_is_cheaper:
            gram = params[f"{PREPARED}gram"]
            return torch.matmul(u, gram) if onto is None else torch.addmm(onto, u, gram)
        context, item = params["mlp.0.context"], params["mlp.0.item"]
        image = u @ context @ context.T + u @ item @ item.T
        return image if onto is None else onto + image

    def gate(self, params: Params, item: Tensor) -> Tensor:
        """Logit of y_s = f_s(h_item), (B, 1): [1] eq. (13), a 2-layer MLP. No gradient reaches the embeddings."""
        z = torch.relu(functional.linear(item.detach(), params["gate.0.weight"], params["gate.0.bias"]))
        return _heads(z, params["gate.out.weight"][None], params["gate.out.bias"]).T

    def loss(
        self,
        params: Params,
        batch: Batch[Tensor],
        masks: Tensor,
        label: Tensor,
        context_row: Tensor | None = None,
        *,
        offset: float = 0.0,
    ) -> Loss:
        """What to learn from B labelled rows.

        Args:
            batch: with C rows of context.
            masks: (1, B, U).
            label: (B,) float32, 1 clicked.
            context_row: as in `first`.
            offset: log odds of the labels above those that shall be predicted, because of how they were sampled.
        """
        context, item = self.embed(params, batch)
        a = self.first(params, context, item, context_row)
        with torch.no_grad():
            p_click = torch.sigmoid(self.forward(params, a).logit.squeeze(1))
        draw, gate_logit = self.draws(params, [torch.relu(a)], masks)[0], self.gate(params, item).squeeze(1)
        click = functional.binary_cross_entropy_with_logits(draw + offset, label)
        gate = functional.binary_cross_entropy_with_logits(gate_logit + offset, label)
        return Loss(click, gate, p_click)

    @property
    def _gram_is_cheaper(self) -> bool:
        return self.config.hidden[0] < 2 * self.width


def _relu_layer(params: Params, layer: int, z: Tensor) -> Tensor:
    return torch.relu(functional.linear(z, params[f"mlp.{layer}.weight"], params[f"mlp.{layer}.bias"]))


def _heads(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """S outputs of a last layer: (B, H), (S, H), () -> (S, B). onnxruntime is slow at products with one column."""
    return torch.addmm(bias.reshape(1, 1), weight, z.T)
