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

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models import bonus
from models.networks.click import ClickNetwork, Dropout, Forward, Params
from models.networks.masks import mask_input
from models.types import Inputs, NoiseInput, Scope, Scores


@dataclass(frozen=True, kw_only=True)
class Age:
    """The method and its choices.

    Args:
        uncertainty: "thompson", one mask and a signed difference, or "ucb", the spread of `draws` masks. "gaussian" is
            an ablation of [1], AGE without dy: a standard normal number, each candidate its own.
        draws: N of "ucb"; 20 in [1].
        dropout: which units the masks cover: "full", all hidden layers, or "last_layer" [3].
        rate: dropout rate of the masks; 0.01 in [1].
        mask_scope: what shares a mask: the candidates of a request, nothing, or all requests of a model version.
        direction: "fgm", one normalised gradient, or "pgd", `steps` of them; [1] finds pgd better. "ones" is an
            ablation, AGE without g: all dimensions of h move alike, by a vector of length 1; [1] does not say how.
        pgd: "literal", eq. (11) as printed, or "projected" onto the ball of radius lambda |dy|.
        steps: T of pgd, published nowhere; 3 is ours.
        gate: "learned" threshold, "fixed" at `gate_threshold`, or "none".
        gate_threshold: of the fixed gate.
        max_impressions: explore only items shown less often; 3,000 online in [2]. None: all items.
        novelty: c0: dy of an item shown n times is multiplied by sqrt(c0 / (c0 + n)). Ours: dropout alone does not know
            which items are new. None: all items alike.
    """

    uncertainty: Literal["thompson", "ucb", "gaussian"] = "thompson"
    draws: int = 20
    dropout: Dropout = "full"
    rate: float = 0.01
    mask_scope: Scope = "request"
    direction: Literal["fgm", "pgd", "ones"] = "pgd"
    pgd: Literal["literal", "projected"] = "literal"
    steps: int = 3
    gate: Literal["learned", "fixed", "none"] = "learned"
    gate_threshold: float = 0.01
    max_impressions: int | None = None
    novelty: float | None = None

    def __post_init__(self) -> None:
        if self.uncertainty == "ucb" and self.draws < 2:
            raise ValueError(f"ucb needs draws >= 2 for a spread, got {self.draws}")
        if self.steps < 1:
            raise ValueError(f"pgd needs steps >= 1, got {self.steps}")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}: without dropout there is no uncertainty")
        if self.novelty is not None and not self.novelty > 0.0:
            raise ValueError(f"novelty must be above 0, got {self.novelty}")

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        if self.uncertainty == "gaussian":
            return (bonus.normal_input(),)
        draws = self.draws if self.uncertainty == "ucb" else 1
        masks = mask_input(network, dropout=self.dropout, draws=draws, scope=self.mask_scope, rate=self.rate)
        return (masks,)

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """See `models.registry.Exploration`."""
        context, item = network.embed(params, inputs.batch)
        every = network.forward(params, network.first(params, context, item))
        p = torch.sigmoid(every.logit)  # y' (B, 1), [1] eq. (2)
        threshold = self._threshold(network, params, item, p)
        is_open = p >= threshold  # [1] eq. (14)
        if self.max_impressions is not None:
            is_open = is_open & (inputs.impressions[:, None] < self.max_impressions)
        drawn, closed = inputs.noise[self.noise(network)[0].name], (p, torch.zeros_like(p), torch.zeros_like(p))
        scale = self._scale(inputs, p)
        if inputs.static:
            found = self._explore(network, params, every, p, drawn, scale, inputs.lambda_)
            score, dy, norm = (torch.where(is_open, *pair) for pair in zip(found, closed, strict=True))
        else:  # b of the B candidates go on
            place = torch.nonzero(is_open.squeeze(1))  # (b, 1)
            rows = place.squeeze(1)
            drawn = drawn if drawn.shape[1] == 1 else drawn[:, rows]
            scale = scale if scale is None else scale[rows]
            found = self._explore(network, params, every.take(rows), p[rows], drawn, scale, inputs.lambda_)
            score, dy, norm = (old.scatter(0, place, new) for new, old in zip(found, closed, strict=True))
        columns = (p, score, dy, is_open.to(p.dtype), threshold, norm)
        return Scores(*(column.squeeze(1) for column in columns))

    def _explore(
        self,
        network: ClickNetwork,
        params: Params,
        at: Forward,
        p: Tensor,
        drawn: Tensor,
        scale: Tensor | None,
        lambda_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y_final, dy and |grad f|, each (b, 1), of candidates whose gate is open."""
        uncertainty = self._uncertainty(network, params, at, p, drawn)
        if scale is not None:
            uncertainty = uncertainty * scale
        step = lambda_ * uncertainty
        image, norm = self._direction(network, params, at, step.abs())
        explored = torch.sigmoid(network.forward(params, at.a + step * image).logit)  # [1] eq. (14)
        # Without a step the score is f(h) to the bit, not the same number by another path.
        return torch.where(step * norm == 0, p, explored), uncertainty, norm

    def _uncertainty(self, network: ClickNetwork, params: Params, at: Forward, p: Tensor, drawn: Tensor) -> Tensor:
        """dy (b, 1) from y' (b, 1) and what was drawn."""
        if self.uncertainty == "gaussian":
            return bonus.normal(drawn)
        draws = torch.sigmoid(network.draws(params, at.hidden, drawn, self.dropout)).T  # (b, S)
        if self.uncertainty == "thompson":
            return draws - p  # [1] eq. (9), signed
        return torch.sqrt(((draws - p) ** 2).sum(1, keepdim=True) / (self.draws - 1))  # [1] eq. (8), about y'

    def _scale(self, inputs: Inputs[Tensor], p: Tensor) -> Tensor | None:
        """What dy is multiplied by, (B, 1)."""
        if self.novelty is None:
            return None
        return bonus.novelty(inputs.impressions, self.novelty, p.dtype)[:, None]

    def _threshold(self, network: ClickNetwork, params: Params, item: Tensor, p: Tensor) -> Tensor:
        """y_s (B, 1), [1] eq. (13); 0 lets every candidate through."""
        if self.gate == "learned":
            return torch.sigmoid(network.gate(params, item))
        return torch.full_like(p, self.gate_threshold if self.gate == "fixed" else 0.0)

    def _direction(self, network: ClickNetwork, params: Params, at: Forward, radius: Tensor) -> tuple[Tensor, Tensor]:
        """g and |grad f| (b, 1), g of unit length or 0, by its image W1 g (b, H) in the first layer's pre-activations.

        radius: lambda |dy| (b, 1), of the projection.
        """
        if self.direction == "ones":
            rows = params["mlp.0.context"].sum(1) + params["mlp.0.item"].sum(1)
            return (rows / network.width**0.5).expand_as(at.a), torch.ones_like(radius)
        u = network.pullback(params, at)
        image = network.lift(params, u)
        norm = _length(_dot(u, image))  # |grad f|^2 = u' W1 W1' u
        unit = _over(image, norm)  # [1] eq. (10)
        if self.direction == "fgm":
            return unit, norm
        if self.pgd == "literal":
            return self._literal(network, params, at, unit), norm
        return self._projected(network, params, at, unit, norm, radius), norm

    def _literal(self, network: ClickNetwork, params: Params, at: Forward, dz: Tensor) -> Tensor:
        """[1] eq. (11) from t = 2 on; dz (b, H) is the image of a unit vector throughout."""
        for _ in range(1, self.steps):
            u = network.pullback(params, network.forward(params, at.a + dz))
            moved = network.lift(params, u, onto=dz)  # of dz + grad f(h + dz)
            # |dz + grad f|^2 = 1 + 2 dz.grad f + |grad f|^2. A dz of 0 stays, for its gradient is 0.
            dz = _over(moved, _length(1.0 + _dot(u, dz + moved)))
        return dz

    def _projected(
        self, network: ClickNetwork, params: Params, at: Forward, unit: Tensor, norm: Tensor, radius: Tensor
    ) -> Tensor:
        """Steps of 2.5 radius / T along the unit gradient, each projected onto the ball [4]. dz is an image (b, H)."""
        stride = 2.5 / self.steps * radius
        length = torch.where(norm > 0, torch.minimum(stride, radius), 0.0)  # of dz, before its image is taken
        dz = unit * length
        for _ in range(1, self.steps):
            u = network.pullback(params, network.forward(params, at.a + dz))
            image = network.lift(params, u)
            norm = _length(_dot(u, image))
            pace = _over(stride, norm)
            far = _length(length**2 + 2.0 * pace * _dot(u, dz) + (pace * norm) ** 2)
            length = torch.minimum(far, radius)
            dz = (dz + pace * image) * _over(length, far)
        return _over(dz, length)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Row by row, (b, H), (b, H) -> (b, 1)."""
    return (one * other).sum(1, keepdim=True)


def _length(squared: Tensor) -> Tensor:
    """Square root of what may be a rounding error below 0."""
    return torch.sqrt(torch.clamp(squared, min=0.0))


def _over(vector: Tensor, length: Tensor) -> Tensor:
    """vector / length; no direction is made of what is shorter than rounding."""
    return vector / torch.clamp(length, min=1e-15)
