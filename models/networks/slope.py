"""The slope of ReLU, in a form that is exported and that onnxruntime vectorises."""

from typing import Any

import torch
from torch import Tensor


class _Slope(torch.autograd.Function):
    """1 where z > 0, else 0: torch, too, takes 0 for the slope of ReLU at 0."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return (z > 0).to(z.dtype)

    @staticmethod
    def symbolic(g: Any, z: Any) -> Any:
        # min(max(3e38 z, 0), 1): the same for every normal float32, and vectorised, as comparing and casting is not.
        return g.op("HardSigmoid", z, alpha_f=3e38, beta_f=0.0)


def slope(z: Tensor) -> Tensor:
    """Derivative of ReLU, from its input or its output. Has no gradient of its own."""
    return _Slope.apply(z)  # type: ignore[no-any-return, no-untyped-call]
