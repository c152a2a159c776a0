"""Bonus: exploration that is added to the prediction, as every method but AGE does it ([1] eq. (1), k(mu, delta)).

    score = p + lambda (s - p)

with s the score of the method as its paper states it: lambda 0 is greedy, 1 the paper's method, and what lies between
and beyond can be held to a budget. The score stays a probability, for bids are multiplied with it.

References:
    [1] Wu et al. 2021, arXiv:2112.11136v1.
    [2] Box, Muller 1958, "A Note on the Generation of Random Normal Deviates", Ann. Math. Statist. 29.
"""

import math

import torch
from torch import Tensor

from models.types import Inputs, NoiseInput, Scope, Scores


def add(p: Tensor, bonus: Tensor, inputs: Inputs[Tensor]) -> Scores[Tensor]:
    """Scores of a method from y' (B,) and its bonus s - p (B,), signed for Thompson."""
    score = torch.clamp(p + inputs.lambda_.reshape(-1) * bonus, 0.0, 1.0)
    zero = torch.zeros_like(p)
    return Scores(p, score, bonus, zero + 1.0, zero, zero)


def deviation(draws: Tensor) -> Tensor:
    """Standard deviation over S draws, about their mean: (S, B) -> (B,)."""
    apart = draws - draws.mean(0)
    return torch.sqrt((apart**2).sum(0) / (draws.shape[0] - 1))


def novelty(impressions: Tensor, start: float, dtype: torch.dtype) -> Tensor:
    """How new items are, (B,) int64 -> (B,) in (0, 1]: sqrt(c0 / (c0 + n)), as a standard deviation shrinks. Ours.

    Args:
        start: c0: after 3 c0 impressions it is half.
    """
    return torch.sqrt(start / (start + impressions.to(dtype)))


def normal_input(scope: Scope = "candidate", count: int = 1) -> NoiseInput:
    """The random input from which `normal` makes `count` numbers a row."""
    return NoiseInput(name="normal", distribution="uniform", scope=scope, draws=1, width=2 * count)


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers (R, U) from twice as many uniform ones in [0, 1), (1, R, 2 U). [2]"""
    half = uniform.shape[2] // 2
    radius, angle = uniform[0, :, :half], uniform[0, :, half:]
    return torch.sqrt(-2.0 * torch.log(1.0 - radius)) * torch.cos(2.0 * math.pi * angle)
