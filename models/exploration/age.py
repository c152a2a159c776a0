"""AGE: adversarial gradient driven exploration.

The score of a candidate is what the model would say after one imagined training step on it, the step being as long as
the model is uncertain: y_final = f(h + gate * lambda * dy * g).

References:
    [1] Wu et al. 2021, arXiv:2112.11136v1; equation numbers are those of this version.
    [2] the same, v2 (KDD 2022): perturbs the embedding h, detaches the gate from the embeddings.
    [3] Guo et al. 2020, "Deep Bayesian Bandits", arXiv:2008.00727: dropout on the last hidden layer alone.
    [4] Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks", arXiv:1706.06083: the
        projected steps, each 2.5 radius / T long.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Dropout, Params
from models.types import Batch, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class Age:
    """The method and its choices.

    Args:
        uncertainty: "thompson", one mask and a signed difference, or "ucb", the spread of `draws` masks.
        draws: N of "ucb"; 20 in [1].
        dropout: which units the masks cover: "full", all hidden layers, or "last_layer" [3].
        rate: dropout rate of the masks; 0.01 in [1].
        mask_scope: what shares a mask: the candidates of a request, nothing, or all requests of a model version.
        direction: "fgm", one normalised gradient, or "pgd", `steps` of them; [1] finds pgd better.
        pgd: "literal", eq. (11) as printed, or "projected" onto the ball of radius lambda |dy|.
        steps: T of pgd, published nowhere; 3 is ours.
        gate: "learned" threshold, "fixed" at `gate_threshold`, or "none".
        gate_threshold: of the fixed gate.
        max_impressions: explore only items shown less often; 3,000 online in [2]. None: all items.
    """

    uncertainty: Literal["thompson", "ucb"] = "thompson"
    draws: int = 20
    dropout: Dropout = "full"
    rate: float = 0.01
    mask_scope: Scope = "request"
    direction: Literal["fgm", "pgd"] = "pgd"
    pgd: Literal["literal", "projected"] = "literal"
    steps: int = 3
    gate: Literal["learned", "fixed", "none"] = "learned"
    gate_threshold: float = 0.01
    max_impressions: int | None = None

    def __post_init__(self) -> None:
        if self.uncertainty == "ucb" and self.draws < 2:
            raise ValueError(f"ucb needs draws >= 2 for a spread, got {self.draws}")
        if self.steps < 1:
            raise ValueError(f"pgd needs steps >= 1, got {self.steps}")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}: without dropout there is no uncertainty")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        hidden = network.config.hidden
        return (
            NoiseInput(
                name="masks",
                distribution="dropout",
                scope=self.mask_scope,
                draws=self.draws if self.uncertainty == "ucb" else 1,
                width=sum(hidden) if self.dropout == "full" else hidden[-1],
                rate=self.rate,
            ),
        )

    def scores(
        self,
        network: ClickNetwork,
        params: Params,
        batch: Batch[Tensor],
        noise: Mapping[str, Tensor],
        lambda_: Tensor,
        impressions: Tensor,
    ) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        h = network.embed(params, batch)  # (B, D)
        p, gradient = network.click_and_gradient(params, h)  # y' and grad_h f, [1] eq. (2) and (10)
        draws = torch.sigmoid(network.logit(params, h, noise["masks"], dropout=self.dropout))  # (S, B)
        uncertainty = self._uncertainty(p, draws)
        threshold = self._threshold(network, params, h)
        is_open = p >= threshold  # [1] eq. (14)
        if self.max_impressions is not None:
            is_open = is_open & (impressions < self.max_impressions)
        step = torch.where(is_open, lambda_ * uncertainty, 0.0)  # (B,)
        g = self._direction(network, params, h, gradient, step.abs())  # (B, D)
        explored = torch.sigmoid(network.logit(params, h + step[:, None] * g))  # [1] eq. (14)
        norm = torch.linalg.vector_norm(gradient, dim=1)
        # Without a step the score is f(h) to the bit, not the same number by another path.
        score = torch.where((step != 0) & (norm > 0), explored, p)
        return Scores(p, score, uncertainty, is_open.to(p.dtype), threshold, norm)

    def _uncertainty(self, p: Tensor, draws: Tensor) -> Tensor:
        """dy (B,) from y' (B,) and N dropout predictions (S, B)."""
        if self.uncertainty == "thompson":
            return draws[0] - p  # [1] eq. (9), signed
        return torch.sqrt(((draws - p) ** 2).sum(0) / (self.draws - 1))  # [1] eq. (8), about y', not the mean

    def _threshold(self, network: ClickNetwork, params: Params, h: Tensor) -> Tensor:
        """y_s (B,), [1] eq. (13); 0 lets every candidate through."""
        if self.gate == "learned":
            return torch.sigmoid(network.gate(params, h))
        return torch.full_like(h[:, 0], self.gate_threshold if self.gate == "fixed" else 0.0)

    def _direction(self, network: ClickNetwork, params: Params, h: Tensor, gradient: Tensor, radius: Tensor) -> Tensor:
        """g (B, D), unit length or 0, from the gradient at h and the radius lambda |dy| (B,) of the projection."""
        if self.direction == "fgm":
            return _unit(gradient)  # [1] eq. (10)
        if self.pgd == "literal":
            dz = _unit(gradient)  # [1] eq. (11), t = 1
            for _ in range(1, self.steps):
                dz = _unit(dz + network.click_and_gradient(params, h + dz)[1])
            return dz
        stride = 2.5 / self.steps * radius[:, None]  # [4]
        dz = _project(stride * _unit(gradient), radius)
        for _ in range(1, self.steps):
            dz = _project(dz + stride * _unit(network.click_and_gradient(params, h + dz)[1]), radius)
        return _unit(dz)


def _unit(vector: Tensor) -> Tensor:
    """Rows scaled to length 1; a zero row stays zero."""
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector / torch.where(norm > 0, norm, 1.0)


def _project(vector: Tensor, radius: Tensor) -> Tensor:
    """Rows onto the ball of radius (B,)."""
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector * torch.clamp(radius[:, None] / torch.where(norm > 0, norm, 1.0), max=1.0)
