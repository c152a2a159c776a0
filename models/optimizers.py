"""Optimisers: the gradients of a batch become a step. Those of embedding tables come as the rows that the batch read.

References:
    [1] Kingma, Ba 2015, "Adam: A Method for Stochastic Optimization", ICLR, arXiv:1412.6980
    [2] Duchi, Hazan, Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR
    [3] Mudigere et al. 2022, "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning
        Recommendation Models", ISCA, arXiv:2104.05158: exact row-wise Adagrad
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from models.adam import BETA_1, BETA_2, EPSILON, MOMENTS, FusedAdam
from models.networks.click import Params
from models.networks.embedding import is_table
from models.rows import added
from models.types import Array


class Optimizer(Protocol):
    """Moves the parameters that it was made for."""

    #: Whether rows of tables move on that no batch has read since; else they stay as they are, bit for bit.
    moves_unread: ClassVar[bool]

    def __init__(self, params: Params, *, learning_rate: float, **options: float | None) -> None: ...

    def step(self) -> None:
        """Takes one step along the gradients of all parameters, and the gradients away."""
        ...

    def state(self) -> dict[str, Array]:
        """Copies of what it remembers, by name; nothing before the first step."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues from `state` after at least one step, given among other arrays.

        Raises:
            ValueError: it is another optimiser's.
        """
        ...


class Adam:
    """[1] for every number in every step: rows that the batch did not read move on by their momentum.

    A step costs the reading and writing of all tables.

    Args:
        params: what it moves.
        learning_rate: of all.
        table_learning_rate: of the embedding tables instead.
    """

    moves_unread: ClassVar[bool] = True

    def __init__(self, params: Params, *, learning_rate: float, table_learning_rate: float | None = None) -> None:
        self._params = params
        tables, others = _apart(params)
        self._adam = FusedAdam((others, learning_rate), (tables, table_learning_rate or learning_rate))
        # Of the tables: zero between steps, because they are large and a batch reads few of their rows.
        self._gradients = {name: torch.zeros(value.shape) for name, value in tables.items()}

    def step(self) -> None:
        rows: dict[str, Tensor] = {}
        for name, gradient in self._gradients.items():
            sparse = self._params[name].grad
            if sparse is not None:
                rows[name] = sparse._indices()[0]
                self._params[name].grad = gradient.index_add_(0, rows[name], sparse._values())
        self._adam.step()
        for name, read in rows.items():
            self._gradients[name].index_fill_(0, read, 0.0)

    def state(self) -> dict[str, Array]:
        return {
            f"adam.{moment}.{name}": tensor.numpy().copy()
            for name, moments in self._adam.moments.items()
            for moment, tensor in zip(MOMENTS, moments, strict=True)
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        for name in self._params:
            self._adam.moments[name] = tuple(_tensor(state, f"adam.{one}.{name}") for one in MOMENTS)


class SparseAdam:
    """[1] for the rows that the batch read; other rows and their moments stay as they are. Otherwise `Adam`.

    A step costs what the batch costs, however large the tables are. Rows seldom read take longer steps than under
    `Adam`, where their momentum dies away in between. Arguments as there.
    """

    moves_unread: ClassVar[bool] = False

    def __init__(self, params: Params, *, learning_rate: float, table_learning_rate: float | None = None) -> None:
        self._tables, others = _apart(params)
        self._others = Adam(others, learning_rate=learning_rate)
        self._rate = table_learning_rate or learning_rate
        self._steps = 0
        self._mean = {name: torch.zeros(value.shape) for name, value in self._tables.items()}
        self._square = {name: torch.zeros(value.shape) for name, value in self._tables.items()}

    def step(self) -> None:
        self._steps += 1
        with torch.no_grad():
            for name, rows, g in _read(self._tables):
                self._move(name, rows, g)
        self._others.step()

    def state(self) -> dict[str, Array]:
        if not self._steps:
            return {}
        tables = _named("sparse_adam", {"exp_avg": self._mean, "exp_avg_sq": self._square})
        return {"sparse_adam.step": np.array(self._steps, dtype=np.int64), **tables, **self._others.state()}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._steps = int(_tensor(state, "sparse_adam.step"))
        self._mean = {name: _tensor(state, f"sparse_adam.exp_avg.{name}") for name in self._tables}
        self._square = {name: _tensor(state, f"sparse_adam.exp_avg_sq.{name}") for name in self._tables}
        self._others.restore(state)

    def _move(self, name: str, rows: Tensor, g: Tensor) -> None:
        value = self._tables[name]
        mean = self._mean[name].index_select(0, rows).lerp_(g, 1.0 - BETA_1)
        square = self._square[name].index_select(0, rows).mul_(BETA_2).addcmul_(g, g, value=1.0 - BETA_2)
        size = self._rate / (1.0 - BETA_1**self._steps)
        spread = (square / (1.0 - BETA_2**self._steps)).sqrt_().add_(EPSILON)
        value.index_copy_(0, rows, value.index_select(0, rows).addcdiv_(mean, spread, value=-size))
        self._mean[name].index_copy_(0, rows, mean)
        self._square[name].index_copy_(0, rows, square)


class RowwiseAdagrad:
    """[2] for the rows that the batch read, with one accumulator for a whole row, as [3] has it. Of the others `Adam`.

    A row's step is learning rate * g / sqrt(v), v the sum of the mean squares of its gradients g: rows seldom read take
    long steps, others ever shorter ones. v is one number a row, where Adam has two for each weight.

    Args:
        params, learning_rate, table_learning_rate: as of `Adam`.
        half_life: steps in which v loses half of itself, whether the row is read or not. Steps then do not shrink for
            ever, and the model follows a world that changes. None: never, as in [2].
    """

    moves_unread: ClassVar[bool] = False

    def __init__(
        self,
        params: Params,
        *,
        learning_rate: float,
        table_learning_rate: float | None = None,
        half_life: float | None = None,
    ) -> None:
        self._tables, others = _apart(params)
        self._others = Adam(others, learning_rate=learning_rate)
        self._rate, self._half_life = table_learning_rate or learning_rate, half_life
        self._steps = 0
        self._sum = {name: torch.zeros(len(value)) for name, value in self._tables.items()}
        self._last = {name: torch.zeros(len(value), dtype=torch.int32) for name, value in self._tables.items()}

    def step(self) -> None:
        self._steps += 1
        with torch.no_grad():
            for name, rows, g in _read(self._tables):
                v = self._decayed(name, rows).add_(g.square().mean(1))
                self._sum[name].index_copy_(0, rows, v)
                self._tables[name].index_add_(0, rows, g / v.sqrt().add_(EPSILON)[:, None], alpha=-self._rate)
        self._others.step()

    def state(self) -> dict[str, Array]:
        if not self._steps:
            return {}
        tables = _named("rowwise_adagrad", {"sum": self._sum, "last": self._last})
        return {"rowwise_adagrad.step": np.array(self._steps, dtype=np.int64), **tables, **self._others.state()}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._steps = int(_tensor(state, "rowwise_adagrad.step"))
        self._sum = {name: _tensor(state, f"rowwise_adagrad.sum.{name}") for name in self._tables}
        self._last = {name: _tensor(state, f"rowwise_adagrad.last.{name}") for name in self._tables}
        self._others.restore(state)

    def _decayed(self, name: str, rows: Tensor) -> Tensor:
        """v of these rows, now."""
        v, last = self._sum[name].index_select(0, rows), self._last[name].index_select(0, rows)
        self._last[name].index_fill_(0, rows, self._steps)
        if self._half_life is None:
            return v
        # Not by torch.exp2, whose last bit depends on where among the others a row stands: ranks move some of them.
        return v.mul_(torch.from_numpy(np.exp2(((last - self._steps) / self._half_life).numpy())))


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "sparse_adam": SparseAdam,
    "rowwise_adagrad": RowwiseAdagrad,
}


def _apart(params: Params) -> tuple[Params, Params]:
    """(embedding tables, everything else)."""
    tables = {name: value for name, value in params.items() if is_table(name)}
    return tables, {name: value for name, value in params.items() if name not in tables}


def _read(tables: Params) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(table, (N,) rows that the batch read, (N, D) their gradients), and takes the gradients away."""
    for name, value in tables.items():
        if value.grad is not None:
            read, values = value.grad._indices()[0], value.grad._values()
            value.grad = None
            yield name, *added(read, values)


def _named(optimizer: str, parts: Mapping[str, Params]) -> dict[str, Array]:
    """Copies, as state."""
    return {
        f"{optimizer}.{part}.{name}": tensor.numpy().copy() for part, of in parts.items() for name, tensor in of.items()
    }


def _tensor(state: Mapping[str, Array], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"{name} is missing: the state is another optimiser's")
    return torch.from_numpy(np.array(state[name]))
