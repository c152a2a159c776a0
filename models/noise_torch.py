"""The noise of `models.noise` in torch, for a device that draws its own: the same bits.

torch has no uint64 arithmetic, so int64 stands in: sums and products wrap to the same bits, and a logical shift is an
arithmetic one without the copies of the sign.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.noise import seed_of
from models.types import NoiseInput

_BITS = 24  # of a float32's fraction


def signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = signed(0x9E3779B97F4A7C15)
_MIX_1 = signed(0xBF58476D1CE4E5B9)
_MIX_2 = signed(0x94D049BB133111EB)


def draw(
    inputs: Sequence[NoiseInput], *, request_seed: Tensor, version: Tensor, item_hash: Tensor, request: Tensor
) -> dict[str, Tensor]:
    """All random inputs of rows that belong to several requests of one version. The four tensors are int64.

    Args:
        inputs: what the method declared.
        request_seed: (Q,) bits of the requests' seeds.
        version: (1,) the model version.
        item_hash: (B,) bits of the items' hashes.
        request: (B,) index into `request_seed`: whose row it is.

    Returns:
        NoiseInput.name -> (S, R, U) float32, R = 1 for the scope "version" and B for the others.
    """
    noise = {}
    for one in inputs:
        if one.scope == "candidate":
            key = _combine(request_seed[request], item_hash)
        else:
            key = version if one.scope == "version" else request_seed
        value = _draws(one, _combine(key, signed(seed_of(one.name))))
        # A request's draws are made once and then handed to its rows.
        noise[one.name] = value.index_select(1, request) if one.scope == "request" else value
    return noise


def _draws(one: NoiseInput, key: Tensor) -> Tensor:
    """(R,) keys -> (S, R, U) float32."""
    place = torch.arange(1, one.draws * one.width + 1, device=key.device).reshape(one.draws, 1, one.width)
    bits = _shift(_mix(_mix(key)[:, None] + place * _GOLDEN), 64 - _BITS)
    if one.distribution == "uniform":
        return bits.to(torch.float32) * 2.0**-_BITS
    # bits / 2^24 >= rate, in whole numbers; rate and scale are rounded to float32 as in `models.noise`.
    first_kept = int(np.ceil(np.float32(one.rate) * np.float32(2.0**_BITS)))
    scale = float(np.float32(1.0) / np.float32(1.0 - one.rate))
    return torch.where(bits >= first_kept, scale, 0.0)


def _combine(key: Tensor, other: Tensor | int) -> Tensor:
    return _mix(_mix(key) + _GOLDEN + other)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _MIX_1
    value = (value ^ _shift(value, 27)) * _MIX_2
    return value ^ _shift(value, 31)


def _shift(value: Tensor, places: int) -> Tensor:
    """Right, filling with zeros."""
    return torch.bitwise_and(value >> places, 2 ** (64 - places) - 1)
