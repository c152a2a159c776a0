"""Counter-based noise: every number is a hash of (key, draw, unit), so it needs no state and no order.

The same bits come out on every machine and for any batching, which is what makes a logged decision repeatable
and lets onnxruntime, torch and a GPU agree. numpy only.

References:
    [1] Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA: the SplitMix64 finaliser.
"""

from collections.abc import Sequence

import numpy as np
import xxhash

from models.types import Array, Noise, NoiseInput

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # [1] 2^64 / golden ratio, odd
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def seed_of(text: str) -> int:
    """Stable unsigned 64-bit seed of a request id (or any other text)."""
    return xxhash.xxh3_64_intdigest(text.encode())


def mix(value: Array) -> Array:
    """SplitMix64 finaliser [1], elementwise: uint64 -> uint64."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * _MIX_1
        value = (value ^ (value >> np.uint64(27))) * _MIX_2
        value ^= value >> np.uint64(31)
    return value


def combine(key: Array, other: Array | np.uint64) -> Array:
    """A new key from two, order mattering. uint64 arrays that broadcast -> uint64."""
    with np.errstate(over="ignore"):
        return mix(mix(key) + _GOLDEN + other)


def uniform(key: Array, count: int) -> Array:
    """(R,) uint64 keys -> (R, count) float32 in [0, 1): 24 random bits each."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = mix(mix(key)[:, None] + counter)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def keys(one: NoiseInput, *, request_seed: Array, version: int, item_hash: Array) -> Array:
    """(R,) uint64: what the numbers of one random input are made from, a key for each row. Arguments as of `draw`."""
    if one.scope == "version":
        key = np.array([version], dtype=np.uint64)
    elif one.scope == "candidate":
        key = combine(request_seed, item_hash)
    else:
        key = request_seed
    return combine(key, np.uint64(seed_of(one.name)))


def draw(inputs: Sequence[NoiseInput], *, request_seed: Array, version: int, item_hash: Array) -> Noise:
    """All random inputs of one ranking.

    Args:
        inputs: what the method declared.
        request_seed: (1,) uint64 for one request; (B,) where the B rows belong to several requests (replay).
        version: the model version, the seed of the scope "version".
        item_hash: (B,) uint64: a candidate's noise follows the candidate, not its place in the request.

    Returns:
        NoiseInput.name -> (S, R, U) float32 with R = B for the scope "candidate", 1 for "version",
        and len(request_seed) for "request".
    """
    noise: dict[str, Array] = {}
    for one in inputs:
        key = keys(one, request_seed=request_seed, version=version, item_hash=item_hash)
        value = uniform(key, one.draws * one.width).reshape(len(key), one.draws, one.width).transpose(1, 0, 2)
        if one.distribution == "dropout":
            value = (value >= one.rate).astype(np.float32) / np.float32(1.0 - one.rate)
        noise[one.name] = np.ascontiguousarray(value)
    return noise
