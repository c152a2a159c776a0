"""Beta numbers from a fixed number of uniform ones: no loop whose length depends on chance, which no graph could hold.

References:
    [1] Marsaglia, Tsang 2000, "A Simple Method for Generating Gamma Variables", ACM Trans. Math. Softw. 26. Of a
        shape above 1 each attempt fails with probability 0.05 at most, all of ours with 6e-6; then the mode is taken.
"""

import torch
from torch import Tensor

from models.bonus import normal
from models.types import NoiseInput

_ATTEMPTS = 4
_PER_ATTEMPT = 3  # two make a normal number, one decides
_PER_GAMMA = _ATTEMPTS * _PER_ATTEMPT + 1
#: log U / a stays finite in float32.
_SMALLEST_SHAPE = 1e-4


def beta_input() -> NoiseInput:
    """The random input from which `beta` makes one number a candidate."""
    return NoiseInput(name="beta", distribution="uniform", scope="candidate", draws=1, width=2 * _PER_GAMMA)


def beta(a: Tensor, b: Tensor, uniform: Tensor) -> Tensor:
    """Beta(a, b) numbers (B,) from shapes (B,) > 0 and uniform numbers in [0, 1), (1, B, 2 * 13)."""
    one, other = uniform[0, :, :_PER_GAMMA], uniform[0, :, _PER_GAMMA:]
    # G(a) / (G(a) + G(b)), by the logarithms, for small shapes make numbers that float32 has not.
    return torch.sigmoid(_log_gamma(a, one) - _log_gamma(b, other))


def _log_gamma(shape: Tensor, uniform: Tensor) -> Tensor:
    """Logarithms of Gamma(shape, 1) numbers (B,), from uniform ones (B, 13). [1]: G(a) = G(a + 1) U^(1 / a)."""
    shape = shape.clamp(min=_SMALLEST_SHAPE)
    d = shape + 1.0 - 1.0 / 3.0
    value = torch.ones_like(shape)
    for attempt in range(_ATTEMPTS - 1, -1, -1):  # backwards: the first that succeeds stays
        first = attempt * _PER_ATTEMPT
        x = normal(uniform[None, :, first : first + 2]).squeeze(1)
        v = (1.0 + x / torch.sqrt(9.0 * d)) ** 3
        log_v = torch.log(v.clamp(min=1e-30))
        log_u = torch.log(1.0 - uniform[:, first + 2])
        accepted = (v > 0.0) & (log_u < 0.5 * x * x + d - d * v + d * log_v)
        value = torch.where(accepted, v, value)
    return torch.log(d * value) + torch.log(1.0 - uniform[:, -1]) / shape
