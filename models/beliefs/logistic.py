"""Bayesian logistic regression on the features themselves: one weight for each row of each table, and one for all.

The posterior is Gaussian with a diagonal precision q, learned batch by batch as in [1] Algorithm 3: from N(m, 1 / q)

    w = argmin 1/2 sum_i q_i (w_i - m_i)^2 + sum_j log(1 + exp(-y_j w.x_j)),  m <- w,  q_i += sum_j x_ij^2 p_j (1 - p_j)

It needs no click model; beside one it is a linear second opinion whose uncertainty is known.

References:
    [1] Chapelle, Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS.
    [2] Filippi, Cappe, Garivier, Szepesvari 2010, "Parametric Bandits: The Generalized Linear Case", NeurIPS.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.rows import Read, by_table, of_examples, sides, weighted_sum, zeros
from models.networks.click import ClickNetwork, Params
from models.types import Batch

#: Newton steps towards the argmin at most, halvings of one that went too far, and steps of conjugate gradients in one.
_STEPS, _HALVINGS, _INNER = 8, 12, 12
_BIAS = "bias"  # where tables have their names


@dataclass(frozen=True, kw_only=True)
class Logistic(Belief):
    """Prior and posterior of the weights.

    Args:
        precision: of the prior N(0, 1 / precision) of each weight; that of all examples has its mean at the logit of
            the click model's initial rate.
    """

    precision: float
    name: str = "logistic"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        ctr = network.config.initial_ctr
        tables = {name: value + self.precision for name, value in zeros(network, "precision").items()}
        return State(
            kept={
                **zeros(network, "mean"),
                **tables,
                f"mean.{_BIAS}": torch.tensor(math.log(ctr / (1.0 - ctr))),
                f"precision.{_BIAS}": torch.tensor(self.precision),
                "examples": torch.zeros((), dtype=torch.int64),
            }
        )

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        reads = of_examples(network, lesson)
        features = _compact(reads)
        prior, q = (features.gather(state, kind) for kind in ("mean", "precision"))
        w = _argmin(features, prior, q, lesson.label)
        p = torch.sigmoid(features.dot(w))
        features.scatter(state, "mean", w)
        features.scatter(state, "precision", q + features.back(p * (1.0 - p), power=2))
        state["examples"] += len(lesson.label)

    def prepare(self, network: ClickNetwork, state: Params) -> Params:
        return {f"prepared.{table}": 1.0 / value for table, value in by_table(state, "precision").items()}

    def posterior(self, network: ClickNetwork, state: Params, batch: Batch[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance of the logits (B,); `state` is prepared, and C is 1 or B."""
        means, variances = by_table(state, "mean"), by_table(state, "prepared")
        mean, variance = state[f"mean.{_BIAS}"], state[f"prepared.{_BIAS}"]
        for reads in sides(network, batch):
            mean = mean + weighted_sum(reads, means)
            variance = variance + weighted_sum(reads, variances, power=2)
        return mean, variance


class _Features(NamedTuple):
    """The weights that a batch reads, N of them, numbered anew; the first is that of all examples."""

    rows: dict[str, Tensor]  # table -> rows, in the order of their numbers
    place: Tensor  # (B, S) int64, of the weight
    weight: Tensor  # (B, S)

    def gather(self, state: Params, kind: str) -> Tensor:
        """(N,), copied."""
        return torch.cat([state[f"{kind}.{table}"].reshape(-1)[rows] for table, rows in self.rows.items()])

    def scatter(self, state: Params, kind: str, values: Tensor) -> None:
        start = 0
        for table, rows in self.rows.items():
            state[f"{kind}.{table}"].view(-1)[rows] = values[start : start + len(rows)]
            start += len(rows)

    def dot(self, w: Tensor) -> Tensor:
        """w.x of each example, (N,) -> (B,)."""
        return (self.weight * w[self.place]).sum(1)

    def back(self, values: Tensor, *, power: int = 1) -> Tensor:
        """Sum over examples of x^power times their values, (B,) -> (N,)."""
        total = torch.zeros(sum(len(rows) for rows in self.rows.values()))
        return total.index_add_(0, self.place.flatten(), (self.weight**power * values[:, None]).flatten())


def _argmin(features: _Features, prior: Tensor, q: Tensor, label: Tensor) -> Tensor:
    """w (N,) of the module's equation, by Newton's method."""

    def objective(w: Tensor) -> Tensor:
        logit = features.dot(w)
        return 0.5 * (q * (w - prior) ** 2).sum() + (functional.softplus(logit) - label * logit).sum()

    w, value = prior, objective(prior)
    for _ in range(_STEPS):
        p = torch.sigmoid(features.dot(w))
        step = _solve(features, q, p * (1.0 - p), q * (w - prior) + features.back(p - label))
        for _ in range(_HALVINGS):
            lower = objective(w - step)
            if lower < value:
                break
            step = step / 2.0
        else:
            break  # as low as rounding lets it be
        w, value = w - step, lower
    return w


def _solve(features: _Features, q: Tensor, curvature: Tensor, slope: Tensor) -> Tensor:
    """(diag(q) + X' diag(curvature) X)^-1 slope, by conjugate gradients preconditioned with the diagonal."""
    diagonal = q + features.back(curvature, power=2)
    found, rest = torch.zeros_like(slope), slope
    way = near = rest / diagonal
    for _ in range(_INNER):
        if not bool((rest != 0).any()):
            break
        image = q * way + features.back(curvature * features.dot(way))
        length = (rest * near).sum()
        pace = length / (way * image).sum()
        found, rest = found + pace * way, rest - pace * image
        near = rest / diagonal
        way = near + (rest * near).sum() / length * way
    return found


def _compact(reads: list[Read]) -> _Features:
    count = len(reads[0].row)
    rows = {_BIAS: torch.zeros(1, dtype=torch.int64)}
    index, weight = [torch.zeros(count, 1, dtype=torch.int64)], [torch.ones(count, 1)]
    start = 1
    for name in dict.fromkeys(one.table.name for one in reads):
        mine = [one for one in reads if one.table.name == name]
        rows[name], places = torch.unique(torch.cat([one.row for one in mine], dim=1), return_inverse=True)
        index.append(places + start)
        weight += [one.weight for one in mine]
        start += len(rows[name])
    return _Features(rows, torch.cat(index, dim=1), torch.cat(weight, dim=1))
