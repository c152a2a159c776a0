"""A sparse variational Gaussian process on the click model's last hidden layer, in two dimensions.

    f ~ GP(m0, k),  k(a, b) = amplitude^2 exp(-|a - b|^2 / (2 length^2)),  a = A z + c, z the last hidden layer
    u = m0 + L v at M inducing points, L L' = k(Z, Z) + jitter I,  q(v) = N(mu, diag(s^2))
    m(x) = m0 + w' mu,   v(x) = amplitude^2 - |w|^2 + |s w|^2,   w = L^-1 k(Z, x)

This is [1] with the inducing values whitened [2]: the same family of posteriors where the covariance is full, another
where it is diagonal, as in the published code and here. Adapter, inducing points and q learn by

    loss = -E_q[log p(y | f)] + temperature KL(q(v) | N(0, I)) + attraction kmeans(a, Z)

References:
    [1] Du et al. 2021, "Exploration in Online Advertising Systems with Deep Uncertainty-Aware Learning" (DUAL), KDD,
        arXiv:2012.02298; the constants are those of its code.
    [2] Hensman, Matthews, Ghahramani 2015, "Scalable Variational Gaussian Process Classification", AISTATS.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.beliefs.belief import Belief, Lesson, State
from models.networks.click import ClickNetwork, Params

_DIMENSIONS = 2
_AMPLITUDE, _LENGTH = 0.3, 2.0
_JITTER = 1e-4
_TEMPERATURE, _ATTRACTION = 1e-6, 0.1


@dataclass(frozen=True, kw_only=True)
class SparseGP(Belief):
    """Reads the click model's last hidden layer, which learns nothing from it; in [1] both learn together.

    Args:
        inducing: M.
    """

    inducing: int
    name: str = "gp"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        units = network.config.hidden[-1]
        return State(
            trained={
                "adapter.weight": torch.randn(_DIMENSIONS, units, generator=generator) / math.sqrt(units),
                "adapter.bias": torch.zeros(_DIMENSIONS),
                "inducing": torch.randn(self.inducing, _DIMENSIONS, generator=generator),
                "mean": torch.zeros(self.inducing),
                "log_sd": torch.zeros(self.inducing),
            }
        )

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor:
        place = self._place(state, lesson.at.hidden[-1])
        mean, variance = self._posterior(network, state, place, _root(state["inducing"]))
        nodes, weights = _quadrature(mean.dtype)
        logit = at_nodes(nodes, mean, variance)  # (20, B)
        # -log p(y | f) of a click is softplus(-f), of none softplus(f).
        surprise = (weights @ functional.softplus(torch.where(lesson.label > 0, -logit, logit))).mean()
        log_sd, mu = state["log_sd"], state["mean"]
        divergence = 0.5 * (torch.exp(2.0 * log_sd) + mu**2 - 1.0 - 2.0 * log_sd).sum()
        far = _distances(place, state["inducing"])
        kmeans = far.min(1).values.mean() + far.min(0).values.mean()
        return surprise + _TEMPERATURE * divergence + _ATTRACTION * kmeans

    def prepare(self, network: ClickNetwork, state: Params) -> Params:
        nodes, weights = (one.to(state["mean"].device) for one in _quadrature(state["mean"].dtype))
        return {"prepared.root": _root(state["inducing"]), "prepared.nodes": nodes, "prepared.weights": weights}

    def posterior(self, network: ClickNetwork, state: Params, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the logits (B,) from the last hidden layer (B, H); `state` is prepared."""
        return self._posterior(network, state, self._place(state, hidden), state["prepared.root"])

    def moments(self, state: Params, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the click probability (B,), from those of the logit; `state` is prepared."""
        p, weights = torch.sigmoid(at_nodes(state["prepared.nodes"], mean, variance)), state["prepared.weights"]
        centre = weights @ p
        return centre, torch.sqrt(weights @ (p - centre) ** 2)

    def _place(self, state: Params, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, state["adapter.weight"], state["adapter.bias"])

    def _posterior(self, network: ClickNetwork, state: Params, place: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """root: L^-1 (M, M) float64. So is all that it touches: it is large, and what comes of it small."""
        ctr = network.config.initial_ctr
        w = _kernel(place.double(), state["inducing"].double()) @ root.T  # (B, M)
        mean = math.log(ctr / (1.0 - ctr)) + w @ state["mean"].double()
        variance = _AMPLITUDE**2 + (w**2) @ (torch.exp(2.0 * state["log_sd"].double()) - 1.0)
        # Nothing but rounding may bring it to 0, for |w| is less than the amplitude.
        return mean.to(place.dtype), variance.clamp(min=1e-8).to(place.dtype)


def at_nodes(nodes: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Values of N(mean, variance) (B,) at the nodes of Gauss-Hermite quadrature, (20, B)."""
    return mean + torch.sqrt(2.0 * variance) * nodes[:, None]


def _quadrature(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Nodes, and weights that sum to 1, (20,) each."""
    nodes, weights = np.polynomial.hermite.hermgauss(20)
    return torch.from_numpy(nodes).to(dtype), torch.from_numpy(weights / math.sqrt(math.pi)).to(dtype)


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Squared, (B, D), (M, D) -> (B, M)."""
    return ((one[:, None] - other[None]) ** 2).sum(2)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return _AMPLITUDE**2 * torch.exp(_distances(one, other) / (-2.0 * _LENGTH**2))


def _root(inducing: Tensor) -> Tensor:
    """L^-1 in float64: inducing points move together, and k(Z, Z) is then nearly singular."""
    exact = inducing.double()
    size = len(exact)
    identity = torch.eye(size, dtype=exact.dtype, device=exact.device)
    lower = torch.linalg.cholesky(_kernel(exact, exact) + _JITTER * identity)
    # By rows, as checkpoints write arrays; it comes by columns.
    root: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False).contiguous()
    return root
