"""The numbers of `models.noise` in torch, for a device that makes its own from their keys: the same bits.

torch has no uint64 arithmetic, so int64 stands in: sums and products wrap to the same bits, and a logical shift is an
arithmetic one without the copies of the sign.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.types import NoiseInput

_BITS = 24  # of a float32's fraction


# As in `models.noise`, their bits as int64.
_GOLDEN, _MIX_1, _MIX_2 = (bits - 2**64 for bits in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class TorchNoise:
    """Draws the random inputs of one method: all that depends on them alone is settled here.

    Args:
        inputs: what the method declared.
        device: where the keys will be.
    """

    def __init__(self, inputs: Sequence[NoiseInput], device: torch.device | str = "cpu") -> None:
        self._draws = [(one, _places(one).to(device), *_levels(one)) for one in inputs]

    def draw(self, mixed_keys: Mapping[str, Tensor], request: Tensor) -> dict[str, Tensor]:
        """All random inputs of rows that belong to several requests of one version.

        Args:
            mixed_keys: NoiseInput.name -> bits of `noise.mix(noise.keys(...))`, int64: (Q,) one for each request where
                that is the scope, (B,) for "candidate", (1,) for "version".
            request: (B,) int64 index of the request whose row it is.

        Returns:
            NoiseInput.name -> (S, R, U) float32, R = 1 for the scope "version" and B for the others.
        """
        noise = {}
        for one, places, first_kept, scale in self._draws:
            bits = _shift(_mix(mixed_keys[one.name][:, None] + places), 64 - _BITS)  # (S, R, U)
            value = (bits if one.distribution == "uniform" else bits >= first_kept) * scale
            # A request's draws are made once and handed to all of its rows.
            noise[one.name] = value.index_select(1, request) if one.scope == "request" else value
        return noise


def _places(one: NoiseInput) -> Tensor:
    """(S, 1, U): what tells the numbers of one key apart.

    Not computed with the draw: torch.compile knows what is in an arange, and multiplies it without wrapping.
    """
    count = np.arange(1, one.draws * one.width + 1, dtype=np.int64)
    return torch.from_numpy((count * np.int64(_GOLDEN)).reshape(one.draws, 1, one.width))


def _levels(one: NoiseInput) -> tuple[int, float]:
    """The least 24 bits that keep a unit, and the number that bits or a kept unit are multiplied with.

    `bits / 2^24 >= rate` in whole numbers, with rate and scale rounded to float32 as in `models.noise`.
    """
    if one.distribution == "uniform":
        return 0, 2.0**-_BITS
    first_kept = int(np.ceil(np.float32(one.rate) * np.float32(2.0**_BITS)))
    return first_kept, float(np.float32(1.0) / np.float32(1.0 - one.rate))


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _MIX_1
    value = (value ^ _shift(value, 27)) * _MIX_2
    return value ^ _shift(value, 31)


def _shift(value: Tensor, places: int) -> Tensor:
    """Right, filling with zeros."""
    return torch.bitwise_and(value >> places, 2 ** (64 - places) - 1)
