"""Optimisers: the gradients of a batch become a step. Those of embedding tables come as the rows that the batch read.

References:
    [1] Kingma, Ba 2015, "Adam: A Method for Stochastic Optimization", ICLR, arXiv:1412.6980
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.networks.click import Params
from models.networks.embedding import is_table
from models.types import Array

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # [1]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # torch's names for what [1] keeps of each parameter


class Optimizer(Protocol):
    """Moves the parameters that it was made for."""

    #: Whether rows of tables move on that no batch has read since; else they stay as they are, bit for bit.
    moves_unread: bool

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
    """

    moves_unread = True

    def __init__(self, params: Params, *, learning_rate: float) -> None:
        self._params = params
        betas = _BETA_1, _BETA_2
        self._adam = torch.optim.Adam(params.values(), lr=learning_rate, betas=betas, eps=_EPSILON, fused=True)
        # Of the tables: zero between steps, because they are large and a batch reads few of their rows.
        self._gradients = {name: torch.zeros(value.shape) for name, value in params.items() if is_table(name)}

    def step(self) -> None:
        rows: dict[str, Tensor] = {}
        for name, gradient in self._gradients.items():
            sparse = self._params[name].grad
            if sparse is not None:
                rows[name] = sparse._indices()[0]
                self._params[name].grad = gradient.index_add_(0, rows[name], sparse._values())
        with without_denormals():
            self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for name, read in rows.items():
            self._gradients[name].index_fill_(0, read, 0.0)

    def state(self) -> dict[str, Array]:
        return {
            f"adam.{moment}.{name}": tensor.numpy().copy()
            for name, value in self._params.items()
            for moment, tensor in self._adam.state[value].items()
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        for name, value in self._params.items():
            self._adam.state[value] = {one: _tensor(state, f"adam.{one}.{name}") for one in _MOMENTS}


class SparseAdam:
    """[1] for the rows that the batch read; other rows and their moments stay as they are. Otherwise `Adam`.

    A step costs what the batch costs, however large the tables are. Rows seldom read take longer steps than under
    `Adam`, where their momentum dies away in between.
    """

    moves_unread = False

    def __init__(self, params: Params, *, learning_rate: float) -> None:
        self._tables = {name: value for name, value in params.items() if is_table(name)}
        others = {name: value for name, value in params.items() if name not in self._tables}
        self._others = Adam(others, learning_rate=learning_rate)
        self._rate = learning_rate
        self._steps = 0
        self._mean = {name: torch.zeros(value.shape) for name, value in self._tables.items()}
        self._square = {name: torch.zeros(value.shape) for name, value in self._tables.items()}

    def step(self) -> None:
        self._steps += 1
        with without_denormals(), torch.no_grad():
            for name, value in self._tables.items():
                if value.grad is not None:
                    self._move(name, value, value.grad.coalesce())
                    value.grad = None
        self._others.step()

    def state(self) -> dict[str, Array]:
        if not self._steps:
            return {}
        moments = {"exp_avg": self._mean, "exp_avg_sq": self._square}
        tables = {
            f"sparse_adam.{moment}.{name}": tensor.numpy().copy()
            for moment, of in moments.items()
            for name, tensor in of.items()
        }
        return {"sparse_adam.step": np.array(self._steps, dtype=np.int64), **tables, **self._others.state()}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._steps = int(_tensor(state, "sparse_adam.step"))
        self._mean = {name: _tensor(state, f"sparse_adam.exp_avg.{name}") for name in self._tables}
        self._square = {name: _tensor(state, f"sparse_adam.exp_avg_sq.{name}") for name in self._tables}
        self._others.restore(state)

    def _move(self, name: str, value: Tensor, gradient: Tensor) -> None:
        rows, g = gradient.indices()[0], gradient.values()
        mean = self._mean[name].index_select(0, rows).lerp_(g, 1.0 - _BETA_1)
        square = self._square[name].index_select(0, rows).mul_(_BETA_2).addcmul_(g, g, value=1.0 - _BETA_2)
        size = self._rate / (1.0 - _BETA_1**self._steps)
        spread = (square / (1.0 - _BETA_2**self._steps)).sqrt_().add_(_EPSILON)
        value.index_copy_(0, rows, value.index_select(0, rows).addcdiv_(mean, spread, value=-size))
        self._mean[name].index_copy_(0, rows, mean)
        self._square[name].index_copy_(0, rows, square)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "sparse_adam": SparseAdam}


def _tensor(state: Mapping[str, Array], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"{name} is missing: the state is another optimiser's")
    return torch.from_numpy(np.array(state[name]))


@contextmanager
def without_denormals() -> Iterator[None]:
    """Lets numbers below 1e-38 be zero, in this thread.

    The moments of rows that are long unread get there and stay, and arithmetic on them takes ten times as long.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
