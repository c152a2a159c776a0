"""Covariance: how much has been learned in the direction of each parameter's gradient, as its diagonal.

A Gaussian posterior of the weights, linearised about the model: the more examples moved a parameter, the surer it is,

    sigma^2(x) = lambda nu sum_j g_j(x)^2 / U_j,    U = lambda + sum over examples of g_j^2             [1] [2]

with g the gradient of the prediction. Per candidate this needs no gradient as such: of a layer W it is the outer
product of d, the derivative at what the layer puts out, and z, what it takes in: the sum is (d^2)' (1 / U) (z^2).

References:
    [1] Zhang, Zhou, Li, Gu 2021, "Neural Thompson Sampling", ICLR, arXiv:2010.00827; its code keeps the
        diagonal.
    [2] Zhou, Li, Gu 2020, "Neural Contextual Bandits with UCB-based Exploration", ICML, arXiv:1911.04462.
    [3] "Pluggable Deep Thompson Sampling", SDM 2023: the last layer is enough, and logits are sampled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.rows import Read, of_examples, sides
from models.networks.click import ClickNetwork, Forward, Params
from models.networks.embedding import TABLE, is_table
from models.networks.slope import slope
from models.types import Batch


def check(*, ridge: float, nu: float, window: int | None) -> None:
    """Raises ValueError: options of a method that make no covariance."""
    if not (ridge > 0.0 and nu > 0.0):
        raise ValueError(f"ridge and nu must be above 0, got {ridge} and {nu}")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, got {window}")


class _Layer(NamedTuple):
    """One layer's part of the gradient: its weight's is the outer product of both, its bias's the first."""

    name: str  # of the weight
    bias: str  # of the bias, or empty
    d: Tensor  # (B, O), of what it puts out
    z: Tensor  # (B, I) or (1, I), what it takes in


@dataclass(frozen=True, kw_only=True)
class Covariance(Belief):
    """Its diagonal.

    Args:
        of: whose gradient: of the click "probability" or of its "logit".
        layers: "all" weights, embeddings among them, or the "last" layer's [3].
        ridge: lambda, U before anything was learned.
        window: examples after which what was learned counts a third (1 / e) of itself; None: it counts for ever.
    """

    name: str
    of: Literal["probability", "logit"]
    layers: Literal["all", "last"]
    ridge: float
    window: int | None

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        names = self._names(network)
        return State(kept={name: torch.full(shape, self.ridge) for name, shape in names.items()})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        if self.window is not None:
            stays = float(np.exp(-len(lesson.label) / self.window))
            for value in state.values():
                value.sub_(self.ridge).mul_(stays).add_(self.ridge)
        for layer in self._layers(network, click, lesson.batch, lesson.at, lesson.context_row):
            state[layer.name] += ((layer.d**2).T @ (layer.z**2).expand(len(layer.d), -1)).reshape(
                state[layer.name].shape
            )
            if layer.bias:
                state[layer.bias] += (layer.d**2).sum(0).reshape(state[layer.bias].shape)
        if self.layers == "all":
            self._note_tables(network, click, state, lesson)

    def prepare(self, network: ClickNetwork, state: Params) -> Params:
        return {f"prepared.{name}": self.ridge / value for name, value in state.items() if not is_table(name)}

    def variance(
        self, network: ClickNetwork, params: Params, state: Params | None, batch: Batch[Tensor], at: Forward
    ) -> Tensor:
        """sigma^2 / nu of B candidates, (B,).

        Args:
            params: of the click model.
            state: prepared; None for U = lambda, the squared norm of the gradient.
            batch: C is 1 or B.
            at: the click model's pass over the candidates.
        """
        total = torch.zeros_like(at.logit[:, 0])
        for layer in self._layers(network, params, batch, at):
            d, z = layer.d**2, layer.z**2
            if state is None:
                total = total + d.sum(1) * (z.sum(1) + (1.0 if layer.bias else 0.0))
                continue
            total = total + (d @ state[f"prepared.{layer.name}"].reshape(d.shape[1], -1) * z).sum(1)
            if layer.bias:
                total = total + d @ state[f"prepared.{layer.bias}"].reshape(-1)
        if self.layers == "all":
            for read, gradient in zip(sides(network, batch), self._at_embeddings(network, params, at), strict=True):
                for one, part in _parts(read, gradient):
                    total = total + self._of_field(one, part, state)
        return total

    def _of_field(self, read: Read, gradient: Tensor, state: Params | None) -> Tensor:
        """What a field's rows add to the variance, (B,)."""
        square = read.weight[:, :, None] ** 2 * gradient[:, None] ** 2  # (B, slots, width)
        if state is not None:
            square = square * (self.ridge / state[f"{TABLE}{read.table.name}"][read.row])
        return square.sum((1, 2))

    def _note_tables(self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson) -> None:
        context, item = self._at_embeddings(network, click, lesson.at)
        gradient = torch.cat([context, item], dim=1)
        for one, part in _parts(of_examples(network, lesson), gradient):
            square = (one.weight[:, :, None] * part[:, None]) ** 2  # (B, slots, width)
            state[f"{TABLE}{one.table.name}"].index_add_(0, one.row.flatten(), square.flatten(0, 1))

    def _names(self, network: ClickNetwork) -> dict[str, tuple[int, ...]]:
        last = ("mlp.out.weight", "mlp.out.bias")
        shapes = {name: tuple(value.shape) for name, value in network.init(torch.Generator()).items()}
        return {
            name: shape
            for name, shape in shapes.items()
            if name in last or (self.layers == "all" and not name.startswith("gate."))
        }

    def _scale(self, at: Forward) -> Tensor:
        """Derivative of the prediction at the logit, (B, 1)."""
        if self.of == "logit":
            return torch.ones_like(at.logit)
        p = torch.sigmoid(at.logit)
        return p * (1.0 - p)

    def _layers(
        self,
        network: ClickNetwork,
        params: Params,
        batch: Batch[Tensor],
        at: Forward,
        context_row: Tensor | None = None,
    ) -> Iterator[_Layer]:
        d = self._scale(at)
        yield _Layer("mlp.out.weight", "mlp.out.bias", d, at.hidden[-1])
        if self.layers == "last":
            return
        d = d * params["mlp.out.weight"] * slope(at.hidden[-1])
        for layer in range(len(network.config.hidden) - 1, 0, -1):
            yield _Layer(f"mlp.{layer}.weight", f"mlp.{layer}.bias", d, at.hidden[layer - 1])
            d = torch.matmul(d, params[f"mlp.{layer}.weight"]) * slope(at.hidden[layer - 1])
        context, item = network.embed(params, batch)
        yield _Layer("mlp.0.context", "mlp.0.bias", d, context if context_row is None else context[context_row])
        yield _Layer("mlp.0.item", "", d, item)

    def _at_embeddings(self, network: ClickNetwork, params: Params, at: Forward) -> tuple[Tensor, Tensor]:
        """The gradient at h, in its two parts (B, Dc) and (B, Di)."""
        u = network.pullback(params, at)  # of the probability
        if self.of == "logit":
            p = torch.sigmoid(at.logit)
            u = u / (p * (1.0 - p))
        return u @ params["mlp.0.context"], u @ params["mlp.0.item"]


def _parts(read: list[Read], gradient: Tensor) -> Iterator[tuple[Read, Tensor]]:
    """Each field, and the gradient at its embedding (B, width): they stand in the order of `pool`."""
    start = 0
    for one in read:
        yield one, gradient[:, start : start + one.table.width]
        start += one.table.width
